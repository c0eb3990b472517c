"""The same ResNet18 over TFRecord: each record is a tf.train.Example whose feature ``image`` holds a PNG's or JPEG's bytes.

Only the reading differs from ``inference.py`` beside it; a quarter less travels, since nothing is base64.
"""

from __future__ import annotations

import torch
from inference import CONFIG, decode_image, model_fn, output_fn, predict_fn

from rayxform import read_examples

__all__ = ["input_fn", "model_fn", "output_fn", "predict_fn"]


def input_fn(body: bytes, content_type: str) -> torch.Tensor:
    """Turn a request's Examples into one uint8 tensor of images: (records, side, side, 3)."""
    if content_type != "application/x-tfexample":
        raise ValueError(f"this model reads application/x-tfexample, not {content_type!r}: set ContentType in TransformInput")
    return torch.stack([decode_image(example["image"][0], CONFIG["image_side"]) for example in read_examples(body)])
