"""A ResNet18 that names what is on an image: the model's side of a Batch Transform job.

The four functions are the ones that SageMaker's PyTorch container calls, so this file runs there as well as here. A
request's body holds JSON Lines, one record a line: ``{"id": 1, "inputs": "<a PNG or JPEG, base64>", …}``. The response
holds one line for each of them, in the same order: ``{"predictions": 7}``.
"""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image

JSON_LINES = "application/jsonlines"
# ImageNet's mean and standard deviation of red, green and blue, for values from 0 to 255.
MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)
# On a CPU a request goes through the model in parts of this many pixels (8 photos of 224 x 224, or 390 of 32 x 32):
# what lies between two layers then stays in the cache, which is never slower than 26 photos at once, and mostly faster.
CPU_PIXELS = 400_000
# config.json from beside the weights. model_fn fills it: input_fn needs the side, and is not given the model.
CONFIG = {"image_side": 32, "classes": 10}


def model_fn(model_dir: str) -> torch.nn.Module:
    """Load the model; called once in each worker, before the first request."""
    CONFIG.update(json.loads(Path(model_dir, "config.json").read_text()))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(CONFIG["classes"])
    model.load_state_dict(torch.load(Path(model_dir, "model.pth"), map_location=device, weights_only=True))
    # Convolutions are up to twice as fast when the three colours of a pixel lie side by side.
    return model.to(device, memory_format=torch.channels_last).eval()


def input_fn(body: bytes, content_type: str = JSON_LINES) -> torch.Tensor:
    """Turn a request's body into one uint8 tensor of images: (records, side, side, 3)."""
    if content_type != JSON_LINES:
        raise ValueError(f"this model reads {JSON_LINES}, not {content_type!r}: set ContentType in TransformInput")
    side = CONFIG["image_side"]
    lines = body.splitlines()
    images = np.empty((len(lines), side, side, 3), np.uint8)
    for number, line in enumerate(lines):
        try:
            images[number] = decode_image(base64.b64decode(json.loads(line)["inputs"]), side)
        except Exception as error:
            raise ValueError(f"line {number + 1} of {len(lines)} in the request: {error!r}") from error
    return torch.from_numpy(images)


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


def decode_image(data: bytes, side: int) -> Any:
    """Decode a PNG, JPEG or other image into ``side`` x ``side`` pixels of red, green and blue."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (side, side))  # a JPEG of twice the side or more is decoded at half, a quarter … of its size
    rgb = image.convert("RGB")
    return rgb if rgb.size == (side, side) else rgb.resize((side, side), Image.Resampling.BILINEAR)


def to_input(images: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
    """Turn uint8 images into what the model takes: normalised, on its device and in its precision."""
    weight = next(model.parameters())
    # Bytes go to the device, a quarter of the size of floats. The permuted view is channels_last without a copy.
    batch = images.to(weight.device).permute(0, 3, 1, 2).to(weight.dtype)
    return batch.sub_(MEAN.to(batch)).div_(STD.to(batch))
