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

import cv2
import msgspec
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate, max_pool2d
from torch.nn.utils.fusion import fuse_conv_bn_eval

JSON_LINES = "application/jsonlines"
JPEG_BEGINS = b"\xff\xd8"
IMAGE_MODE = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# A JPEG can be decoded at a part of its size, sooner. Beside IMREAD_COLOR_RGB, "grayscale" only says which part.
JPEG_PARTS = {8: cv2.IMREAD_REDUCED_GRAYSCALE_8, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2}
# ImageNet's mean and standard deviation of red, green and blue, for values from 0 to 255.
MEAN = torch.tensor([123.675, 116.28, 103.53])
STD = torch.tensor([58.395, 57.12, 57.375])
# On a CPU a request goes through the model in parts of this many pixels (8 photos of 224 x 224, or 390 of 32 x 32):
# what lies between two layers then stays in the cache, which is never slower than 26 photos at once, and mostly faster.
CPU_PIXELS = 400_000
# To rayxform: input_fn may decode the next request while a GPU works on this one. On busy CPU cores that gains nothing.
INPUT_FN_RUNS_AHEAD = torch.cuda.is_available()
# config.json from beside the weights. model_fn fills it: input_fn needs the side, and is not given the model.
CONFIG = {"image_side": 32, "classes": 10}


class Record(msgspec.Struct):
    """What the model needs of a record; msgspec reads the JSON and the base64 in it in one go, four times as fast as json."""

    inputs: bytes


decode_record = msgspec.json.Decoder(Record).decode


def model_fn(model_dir: str) -> nn.Module:
    """Load the model; called once in each worker, before the first request."""
    CONFIG.update(json.loads(Path(model_dir, "config.json").read_text()))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = ResNet18(CONFIG["classes"])
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


def predict_fn(images: torch.Tensor, model: nn.Module) -> list[int]:
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
    return "\n".join(f'{{"predictions": {label}}}' for label in predictions)


class Block(nn.Module):
    """Two convolutions, and a way around them."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, channels_in, height, width) → (n, channels, height / stride, width / stride)."""
        around = images if self.downsample is None else self.downsample(images)
        return self.bn2(self.conv2(self.bn1(self.conv1(images)).relu_())).add_(around).relu_()


class ResNet18(nn.Module):
    """The ResNet18 of torchvision, whose weights fit: importing torchvision takes each worker 1.4 s and 170 MB."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(Block(64, 64, 1), Block(64, 64, 1))
        self.layer2 = nn.Sequential(Block(64, 128, 2), Block(128, 128, 1))
        self.layer3 = nn.Sequential(Block(128, 256, 2), Block(256, 256, 1))
        self.layer4 = nn.Sequential(Block(256, 512, 2), Block(512, 512, 1))
        self.fc = nn.Linear(512, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 3, height, width) → a score for each class: (n, classes)."""
        features = max_pool2d(self.bn1(self.conv1(images)).relu_(), 3, 2, 1)
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        return self.fc(features.mean((2, 3)))


def fold_batch_norms(model: nn.Module) -> None:
    """Fold each batch norm into the convolution that feeds it, in place: the same numbers to rounding, 15 % sooner.

    In a ResNet the module after a convolution is the batch norm of its output.
    """
    for parent in model.modules():
        for (name, module), (next_name, following) in pairwise(list(parent.named_children())):
            if isinstance(module, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(module, following))
                setattr(parent, next_name, nn.Identity())


def decode_image(data: bytes, side: int) -> torch.Tensor:
    """Decode a PNG, JPEG or other image into uint8 pixels of red, green and blue: (side, side, 3)."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), IMAGE_MODE | jpeg_part(data, side))  # twice as fast as Pillow
    if pixels is None:
        raise ValueError("OpenCV cannot read the image: damaged, cut short, or of a format that it does not know")
    image = torch.from_numpy(pixels)
    if image.shape[:2] == (side, side):
        return image
    planes = image.permute(2, 0, 1)[None]
    return interpolate(planes, (side, side), mode="bilinear", antialias=True)[0].permute(1, 2, 0)


def jpeg_part(data: bytes, side: int) -> int:
    """How OpenCV is told to decode a JPEG at an eighth, a quarter or half of its size, if that is still the side or more."""
    if not data.startswith(JPEG_BEGINS):
        return 0
    smaller = min(Image.open(io.BytesIO(data), formats=["JPEG"]).size)  # reads the header only
    return next((mode for part, mode in JPEG_PARTS.items() if smaller >= part * side), 0)


def to_input(images: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """Turn uint8 images into what the model takes: normalised, on its device and in its precision."""
    weight = next(model.parameters())
    rows = images.to(weight.device).flatten(2).to(weight.dtype)  # bytes go to the device, a quarter of the size of floats
    # A row of pixels at a time: three numbers at a time, which is what broadcasting over the colours comes to, are slow.
    width = images.shape[2]
    rows.sub_(MEAN.to(rows).repeat(width)).div_(STD.to(rows).repeat(width))
    return rows.view(images.shape).permute(0, 3, 1, 2)  # channels_last, without a copy
