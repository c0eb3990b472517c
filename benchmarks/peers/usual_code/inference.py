"""A ResNet18's ``inference.py`` as most people write it: torchvision's model as it comes, Pillow, one conversion a batch.

The scripts that rayxform is compared with share this code, and with ``usual`` in a peer's name SageMaker's stack and
rayxform run this file, unmodified.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image

MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)
CONFIG = {"image_side": 224, "classes": 1000}


def model_fn(model_dir: str) -> torch.nn.Module:
    """Load the model."""
    CONFIG.update(json.loads(Path(model_dir, "config.json").read_text()))
    model: torch.nn.Module = torchvision.models.resnet18(weights=None, num_classes=CONFIG["classes"])
    model.load_state_dict(torch.load(Path(model_dir, "model.pth"), weights_only=True))
    return model.eval()


def input_fn(body: bytes, content_type: str = "application/jsonlines") -> torch.Tensor:  # noqa: ARG001 - as it is called
    """Decode a request to uint8: (records, side, side, 3)."""
    records = [json.loads(line) for line in body.splitlines()]
    return torch.from_numpy(np.stack([decode(record["inputs"], CONFIG["image_side"]) for record in records]))


def predict_fn(images: torch.Tensor, model: torch.nn.Module) -> list[int]:
    """Name the class of each image."""
    planes = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    with torch.inference_mode():
        return [int(label) for label in model(planes.sub_(MEAN).div_(STD)).argmax(1)]


def output_fn(predictions: list[int], accept: str = "application/jsonlines") -> str:  # noqa: ARG001 - as it is called
    """Write a line for each image."""
    return "\n".join(json.dumps({"predictions": label}) for label in predictions)


def decode(text: str, side: int) -> Any:
    """An image, given in base64, to uint8: (side, side, 3)."""
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    image.draft("RGB", (side, side))
    rgb = image.convert("RGB")
    return np.asarray(rgb if rgb.size == (side, side) else rgb.resize((side, side), Image.Resampling.BILINEAR))
