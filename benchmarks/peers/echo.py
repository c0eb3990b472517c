"""An inference.py that answers with what it is sent: all that a job then takes is what rayxform takes."""

from __future__ import annotations


def model_fn(model_dir: str) -> None:
    """Load nothing."""


def transform_fn(model: None, body: bytes, content_type: str, accept: str) -> bytes:  # noqa: ARG001 - SageMaker's arguments
    """Give the request's body back."""
    return body
