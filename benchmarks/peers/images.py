"""The part of the work that every peer does alike: a record's text to pixels, pixels to a prediction."""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image

from jobs.resnet18_data import load_inference

MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)


class UsualCode:
    """The model as most people write it: torchvision's ResNet18 as it comes, Pillow, one conversion to floats a batch."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        self.side = config["image_side"]
        self.model = torchvision.models.resnet18(weights=None, num_classes=config["classes"])
        self.model.load_state_dict(torch.load(folder / "model.pth", weights_only=True))
        self.model.eval()

    def predict(self, inputs: Sequence[str]) -> list[int]:
        """Name the class of each image, given in base64."""
        return self.classify(torch.from_numpy(np.stack([decode(text, self.side) for text in inputs])))

    def classify(self, images: torch.Tensor) -> list[int]:
        """Name the class of each image: uint8, (images, side, side, 3)."""
        planes = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        with torch.inference_mode():
            return [int(label) for label in self.model(planes.sub_(MEAN).div_(STD)).argmax(1)]


def decode(text: str, side: int) -> Any:
    """An image, given in base64, as most people decode it: (side, side, 3)."""
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    image.draft("RGB", (side, side))
    rgb = image.convert("RGB")
    return np.asarray(rgb if rgb.size == (side, side) else rgb.resize((side, side), Image.Resampling.BILINEAR))


class SameCode:
    """The functions of rayxform's own example, ``jobs/resnet18/inference.py``."""

    def __init__(self, folder: Path) -> None:
        self.inference = load_inference()
        self.model = self.inference.model_fn(str(folder))

    def predict(self, inputs: Sequence[str]) -> list[int]:
        """Name the class of each image, given in base64."""
        body = b"\n".join(b'{"inputs":"' + text.encode() + b'"}' for text in inputs)
        labels: list[int] = self.inference.predict_fn(self.inference.input_fn(body), self.model)
        return labels


def job_parser(description: str | None) -> argparse.ArgumentParser:
    """What every peer is told: its folders, and how many records it takes at a time."""
    parser = argparse.ArgumentParser(description=description)
    for name in ("--input", "--model", "--output", "--marks"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--batch", type=int, required=True)
    return parser


def core_count() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def mark(folder: Path, records: int) -> None:
    """Note that this process has finished a batch; ``benchmarks.measure`` reads it."""
    with (folder / str(os.getpid())).open("a") as file:
        file.write(f"{time.time()} {records}\n")
