"""What tests share: behaviour as data, and small jobs."""

import base64
import importlib.util
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
CASES = Path(__file__).parent / "cases"
SEED = Path(__file__).parent / "models" / "seed"


def cases(name: str) -> list[dict[str, Any]]:
    """The cases of ``tests/cases/<name>.json``; each names its source."""
    loaded: list[dict[str, Any]] = json.loads((CASES / f"{name}.json").read_text())
    assert all(case["source"] for case in loaded)
    return loaded


def make_seed_model(folder: Path) -> None:
    """Unpack the seed's model: code/inference.py beside the state dict of a net that picks the strongest color."""
    import torch

    shutil.copytree(SEED, folder, dirs_exist_ok=True)
    spec: Any = importlib.util.spec_from_file_location("seed_net", SEED / "code" / "inference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = module.model_load()
    with torch.no_grad():
        net.conv.weight.zero_()
        net.conv.bias.zero_()
        for channel in range(3):
            net.conv.weight[channel, channel] = 1 / 9
    torch.save(net.state_dict(), folder / "model.pth")


def seed_line(identifier: int, color: str) -> str:
    """A record of the seed's input: an image of one color."""
    png = io.BytesIO()
    Image.new("RGB", (32, 32), color).save(png, format="PNG")
    return json.dumps({"id": identifier, "inputs": base64.b64encode(png.getvalue()).decode(), "date": "2022/01/01"})


def run_main_job(data: Path, script: str = "jobs/resnet18.py", *options: str) -> "subprocess.CompletedProcess[str]":
    """Run the main job, or its like, over a folder of its own."""
    command = [sys.executable, script, "--data", str(data), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
