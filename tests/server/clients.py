"""Clients that cannot live beside rayxform, for each wants a botocore of its own: in an environment of theirs."""

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("awscli>=1.40", "sagemaker>=2.230,<3")


def make_environment() -> Path:
    """The environment's bin folder; made once in the environment that runs the tests, and kept there."""
    place = Path(sys.prefix) / "share" / "rayxform-test-clients"
    if not (place / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        installed = subprocess.run(
            [place / "bin" / "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES], capture_output=True, text=True
        )
        if installed.returncode:
            pytest.skip(f"the AWS CLI and the SageMaker SDK cannot be installed: {installed.stderr[-500:]}")
        (place / "complete").touch()
    return place / "bin"
