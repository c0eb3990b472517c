"""The example's inference.py: its network is torchvision's, and folding batch norms changes nothing but the speed."""

import base64
import io
import json

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from jobs.resnet18_data import load_inference


@pytest.fixture
def inference():
    return load_inference()


def trained_like(model):
    """Give batch norms figures that a training would leave, so that folding them has something to do."""
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
    return model.eval()


def test_the_network_takes_torchvisions_weights_and_gives_its_scores(inference):
    torch.manual_seed(0)
    theirs = trained_like(torchvision.models.resnet18(weights=None, num_classes=10))
    ours = inference.ResNet18(10).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(images)
        torch.testing.assert_close(ours(images), expected)
        inference.fold_batch_norms(ours)
        torch.testing.assert_close(ours(images), expected, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in ours.modules())


@pytest.mark.parametrize("encoding", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(32, 32), (64, 64), (300, 200)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_usual_image_becomes_pixels_of_the_models_size(inference, encoding, size, mode):
    picture = Image.new(mode, size, 200 if mode == "L" else (200, 100, 50))
    data = io.BytesIO()
    picture.save(data, encoding)
    body = json.dumps({"id": 1, "inputs": base64.b64encode(data.getvalue()).decode()}).encode()
    images = inference.input_fn(body + b"\n" + body)
    assert (images.shape, images.dtype) == ((2, 32, 32, 3), torch.uint8)
    expected = (200, 200, 200) if mode == "L" else (200, 100, 50)
    assert np.abs(images.numpy().astype(int) - expected).max() <= 4  # a JPEG's colours are not exact


@pytest.mark.parametrize("encoding", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_an_image_that_was_cut_short_is_not_guessed_at(inference, encoding, kept):
    data = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(data, encoding)
    cut = data.getvalue()[: int(len(data.getvalue()) * kept)]
    with pytest.raises(ValueError, match="line 1 of 1 in the request: .*cut short"):
        inference.input_fn(json.dumps({"inputs": base64.b64encode(cut).decode()}).encode())


@pytest.mark.parametrize(("size", "read_at"), [(32, 32), (64, 32), (100, 50), (200, 50), (1_000, 125)])
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(inference, monkeypatch, size, read_at):
    data = io.BytesIO()
    Image.effect_noise((size, size), 50).save(data, "JPEG")
    sizes = []
    decode = inference.cv2.imdecode

    def spy(*arguments):
        sizes.append((pixels := decode(*arguments)).shape)
        return pixels

    monkeypatch.setattr(inference.cv2, "imdecode", spy)
    assert inference.decode_image(data.getvalue(), 32).shape == (32, 32, 3)
    assert sizes == [(read_at, read_at, 3)]


@pytest.mark.parametrize("record", ['{"id": 2}', '{"inputs": "AAAA"}', '{"inputs": 7}', "{"])
def test_a_bad_record_is_named_by_its_line(inference, record):
    data = io.BytesIO()
    Image.new("RGB", (32, 32)).save(data, "PNG")
    good = json.dumps({"inputs": base64.b64encode(data.getvalue()).decode()})
    with pytest.raises(ValueError, match="line 2 of 2 in the request"):
        inference.input_fn(f"{good}\n{record}".encode())
