"""Clients that cannot live beside rayxform, for each wants a botocore of its own: in environments of theirs."""

import subprocess
import sys
from pathlib import Path

import pytest

V2 = ("awscli>=1.40", "sagemaker>=2.230,<3")
V3 = ("sagemaker>=3",)


def make_environment(name: str, packages: tuple[str, ...]) -> Path:
    """An environment's bin folder; made once in the environment that runs the tests, and kept there.

    By uv, since pip looks for ten minutes for the packages that version 3 of the SDK goes with.
    """
    place = Path(sys.prefix) / "share" / f"rayxform-test-{name}"
    if not (place / "complete").exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "-q", "--clear", "--python", sys.executable, place], check=True)
        installed = subprocess.run(
            [*uv, "pip", "install", "-q", "--python", place / "bin" / "python", *packages], capture_output=True, text=True
        )
        if installed.returncode:
            pytest.skip(f"{', '.join(packages)} cannot be installed: {installed.stderr[-500:]}")
        (place / "complete").touch()
    return place / "bin"
