"""The part of the work that every peer does alike: a record's text to pixels, pixels to what the model takes."""

from __future__ import annotations

import base64
import io
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image

MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)


def load_model(folder: Path, *, channels_last: bool) -> tuple[torch.nn.Module, int]:
    """Give the ResNet18 in ``folder``, ready to predict, and the side of its images in pixels."""
    config = json.loads((folder / "config.json").read_text())
    model = torchvision.models.resnet18(weights=None, num_classes=config["classes"])
    model.load_state_dict(torch.load(folder / "model.pth", weights_only=True))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return model.to(memory_format=layout).eval(), config["image_side"]


def decode(text: str, side: int) -> NDArray[np.uint8]:
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    image.draft("RGB", (side, side))
    rgb = image.convert("RGB")
    return np.asarray(rgb if rgb.size == (side, side) else rgb.resize((side, side), Image.Resampling.BILINEAR))


def to_input(images: list[NDArray[np.uint8]], *, channels_last: bool) -> torch.Tensor:
    """Stack decoded images, and convert them to normalised floats in one go."""
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return batch.to(torch.float32, memory_format=layout).sub_(MEAN).div_(STD)


def core_count() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def mark(folder: Path, records: int) -> None:
    """Note that this process has finished a batch; ``benchmarks.measure`` reads it."""
    with (folder / str(os.getpid())).open("a") as file:
        file.write(f"{time.time()} {records}\n")
