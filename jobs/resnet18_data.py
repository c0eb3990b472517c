"""What the job in ``resnet18.py`` needs, made from what scikit-learn ships: input files and a trained model.

Of the 1,797 labelled handwritten digits 1,100 become the job's input (two JSON Lines files of 100 and 1,000 records,
as in the article that the job comes from) and 697 train the ResNet18. No image is in both.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import shutil
import tarfile
import tempfile
from datetime import date, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image

INFERENCE_FILE = Path(__file__).with_name("resnet18") / "inference.py"
CODE = (INFERENCE_FILE, INFERENCE_FILE.with_name("requirements.txt"))
INPUT_FILES = {"digits-100.jsonl": 100, "digits-1000.jsonl": 1000}
CONFIG = {"image_side": 32, "classes": 10}
# A digit is 8 x 8 pixels. At 64 x 64 a line is some 3.4 KB, and 1 MB holds about 300 of them, as in the article.
PNG_SIDE = 64
EPOCHS = 6
BATCH = 64


def prepare(folder: Path) -> None:
    """Make ``input/`` and ``model.tar.gz`` in ``folder``, unless they are there; some twenty seconds on two cores.

    They are made beside and moved into place at the end, the archive last. A run that was cut short therefore leaves
    no archive, and the next one starts anew; so does one that finds other code than the archive has.

    Args:
        folder: where they go; created where it is missing.
    """
    archive = folder / "model.tar.gz"
    if is_current(archive):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder) as name:
        made = Path(name)
        lines = digit_lines()
        (made / "input").mkdir()
        for file, count in INPUT_FILES.items():
            (made / "input" / file).write_bytes(b"".join(line + b"\n" for line in lines[:count]))
            del lines[:count]
        pack_model(made / "model.tar.gz", train(lines), CONFIG)
        archive.unlink(missing_ok=True)
        shutil.rmtree(folder / "input", ignore_errors=True)
        (made / "input").rename(folder / "input")
        (made / "model.tar.gz").rename(archive)


def is_current(archive: Path) -> bool:
    """Whether the archive is there and holds the code of today."""
    if not archive.exists():
        return False
    with tarfile.open(archive) as tar:
        for file in CODE:  # pack_model puts the code first, so that nobody unpacks 40 MB to look at it
            member = tar.next()
            packed = tar.extractfile(member) if member else None
            if packed is None or packed.read() != file.read_bytes():
                return False
    return True


def digit_lines() -> list[bytes]:
    """Give all 1,797 digits as lines of JSON in the job's format, in an order that is mixed but always the same."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second to import, and needed once

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    return [
        image_line(number, Image.fromarray(np.uint8(digits.images[i] * (255 / 16))), int(digits.target[i]))
        for number, i in enumerate(order, start=1)
    ]


def image_line(number: int, image: Image.Image, label: int) -> bytes:
    """Write one digit as a line of JSON, dated one day after the line before it."""
    png = io.BytesIO()
    image.resize((PNG_SIDE, PNG_SIDE), Image.Resampling.BICUBIC).convert("RGB").save(png, "PNG")
    record = {
        "id": number,
        "inputs": base64.b64encode(png.getvalue()).decode(),
        "date": f"{date(2022, 1, 1) + timedelta(days=number - 1):%Y/%m/%d}",
        "label": label,
    }
    return json.dumps(record).encode()


def train(lines: list[bytes]) -> torch.nn.Module:
    """Train a ResNet18 on labelled records, from the same weights and in the same order every time."""
    inference = load_inference()
    inference.CONFIG.update(CONFIG)
    images = inference.input_fn(b"\n".join(lines))  # the very pixels that the job will see
    labels = torch.tensor([json.loads(line)["label"] for line in lines])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: torch.nn.Module = torchvision.models.resnet18(weights=None, num_classes=CONFIG["classes"])
        model.to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05, fused=True)
        steps = EPOCHS * (len(lines) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
        for _ in range(EPOCHS):
            for chosen in torch.randperm(len(lines)).split(BATCH)[: len(lines) // BATCH]:
                batch = inference.to_input(shifted(images[chosen]), model)
                loss = torch.nn.functional.cross_entropy(model(batch), labels[chosen], label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return model.eval()


def shifted(images: torch.Tensor, pixels: int = 3) -> torch.Tensor:
    """Move each image by up to ``pixels`` in each direction: the same digits, written elsewhere."""
    side = images.shape[1]
    framed = torch.nn.functional.pad(images, (0, 0, pixels, pixels, pixels, pixels))
    corners = torch.randint(2 * pixels + 1, (len(images), 2)).tolist()
    return torch.stack([image[y : y + side, x : x + side] for image, (y, x) in zip(framed, corners, strict=True)])


def pack_model(archive: Path, model: torch.nn.Module, config: dict[str, int]) -> None:
    """Pack a model the way SageMaker takes it: ``code/inference.py``, the weights and what belongs to them.

    Args:
        archive: the ``model.tar.gz`` to write.
        model: torchvision's ResNet18.
        config: ``image_side`` in pixels and the number of ``classes``.
    """
    weights = io.BytesIO()
    torch.save(model.state_dict(), weights)
    members = {
        **{f"code/{file.name}": file.read_bytes() for file in CODE},
        "config.json": json.dumps(config).encode(),
        "model.pth": weights.getvalue(),
    }
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def load_inference() -> ModuleType:
    """Import the job's ``inference.py`` under a name of its own, as each worker does."""
    spec: Any = importlib.util.spec_from_file_location("resnet18_inference", INFERENCE_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
