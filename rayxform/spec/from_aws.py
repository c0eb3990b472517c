"""Temporary."""

from collections.abc import Mapping
from typing import Any


def model_members(container: Mapping[str, Any]) -> dict[str, Any]:
    """The job file's ``Model`` of a container."""
    env = dict(container.get("Environment", {}))
    model: dict[str, Any] = {"ModelDataUrl": container["ModelDataUrl"]} if container.get("ModelDataUrl") else {}
    if env.get("SAGEMAKER_PROGRAM"):
        model["EntryPoint"] = env["SAGEMAKER_PROGRAM"]
    if env:
        model["Environment"] = env
    return model
