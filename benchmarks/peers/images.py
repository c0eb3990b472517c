"""The part of the work that every peer does alike: a record's text to pixels, pixels to a prediction."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers.usual_code import inference as usual
from jobs.resnet18_data import load_inference


class UsualCode:
    """The model as most people write it; see ``usual_code/inference.py``."""

    def __init__(self, folder: Path) -> None:
        self.model = usual.model_fn(str(folder))
        self.side = usual.CONFIG["image_side"]

    def predict(self, inputs: Sequence[str]) -> list[int]:
        """Name the class of each image, given in base64."""
        return self.classify(torch.from_numpy(np.stack([usual.decode(text, self.side) for text in inputs])))

    def classify(self, images: torch.Tensor) -> list[int]:
        """Name the class of each image: uint8, (images, side, side, 3)."""
        return usual.predict_fn(images, self.model)


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


def mark(folder: Path, records: int) -> None:
    """Note that this process has finished a batch; ``benchmarks.measure`` reads it."""
    with (folder / str(os.getpid())).open("a") as file:
        file.write(f"{time.time()} {records}\n")
