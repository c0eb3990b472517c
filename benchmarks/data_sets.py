"""What the benchmarks run on: photo crops and a ResNet18 of random weights, made once and the same every time.

The photos are the two that scikit-learn ships; each image is a crop of one, mirrored and brightened at random, so that
it compresses as photos do.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image

from jobs.resnet18_data import load_inference, pack_model

DATA = Path(__file__).with_name("data")
FILES = 4


@dataclass(frozen=True)
class PhotoKind:
    """One kind of image.

    Attributes:
        crops: the least and the greatest side of a crop, in pixels of the photo.
        stored_side: the side of the stored image, in pixels.
        encoding: Pillow's name of the format, and its options.
        image_side: the side of what the model takes, in pixels.
        classes: how many classes the model tells apart.
        batch: records in a batch of the plain script and of Ray's pipeline.
    """

    crops: tuple[int, int]
    stored_side: int
    encoding: dict[str, Any]
    image_side: int
    classes: int
    batch: int


KINDS = {
    "small": PhotoKind((160, 400), 32, {"format": "PNG"}, 32, 10, 256),
    "large": PhotoKind((300, 420), 375, {"format": "JPEG", "quality": 83}, 224, 1000, 26),
}


@dataclass(frozen=True)
class DataSet:
    """A folder with ``input/``, and, but for echo, ``model.tar.gz`` and the same model unpacked in ``model/``."""

    folder: Path
    records: int

    @property
    def input_bytes(self) -> int:
        """The size of all input files, in bytes."""
        return sum(file.stat().st_size for file in (self.folder / "input").iterdir())

    @property
    def bytes_per_record(self) -> float:
        """The mean length of a line, its newline included, in bytes."""
        return self.input_bytes / self.records


def photos(kind: str, count: int) -> DataSet:
    """Give ``count`` records of one of the ``KINDS``, with a model for them."""

    def fill(folder: Path) -> None:
        write_files(folder / "input", photo_lines(KINDS[kind], count), count)
        pack_model(folder / "model.tar.gz", random_model(kind), _config(kind))
        with tarfile.open(folder / "model.tar.gz") as tar:
            tar.extractall(folder / "model", filter="data")

    return DataSet(made_once(f"{kind}-{count}", fill), count)


def echo(megabytes: int) -> DataSet:
    """Give so many million bytes of records of 3 KB, with a handler that answers with what it is sent."""
    pattern = list(islice(photo_lines(KINDS["small"], 1000), 1000))
    size = sum(map(len, pattern)) / len(pattern)
    count = int(megabytes * 1e6 / size)

    def fill(folder: Path) -> None:
        tails = cycle([line[line.index(b",") :] for line in pattern])
        write_files(folder / "input", (b'{"id": %d%s' % (number, next(tails)) for number in range(1, count + 1)), count)
        (folder / "model" / "code").mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("peers") / "echo.py", folder / "model" / "code" / "inference.py")

    return DataSet(made_once(f"echo-{megabytes}", fill), count)


def records(megabytes: int, record_bytes: int) -> DataSet:
    """Give records of about so many bytes, in one file as lines and in one of each kind of frames, and their predictions.

    The folder has ``records.jsonl``, ``records.tfrecord``, ``records.recordio`` (the lines' contents in frames) and
    ``predictions.jsonl``. Lengths lie between half and one and a half of ``record_bytes``.
    """
    from rayxform.core.framing import recordio_frame, tfrecord_frame

    count = int(megabytes * 1e6 / record_bytes)

    def fill(folder: Path) -> None:
        lines = folder / "records.jsonl"
        with lines.open("wb") as file:
            file.writelines(line + b"\n" for line in text_records(count, record_bytes))
        for name, frame in (("tfrecord", tfrecord_frame), ("recordio", recordio_frame)):
            with lines.open("rb") as source, (folder / f"records.{name}").open("wb") as file:
                file.writelines(frame(line.rstrip(b"\n")) for line in source)
        with (folder / "predictions.jsonl").open("wb") as file:
            file.writelines(b'{"predictions": %d, "score": 0.%d0}\n' % (n * 7 % 10, n % 10) for n in range(1, count + 1))

    return DataSet(made_once(f"records-{megabytes}-{record_bytes}", fill), count)


def text_records(count: int, record_bytes: int) -> Iterator[bytes]:
    """Give records with an id, a text that looks like base64, and a date."""
    random = np.random.default_rng(0)
    text = base64.b64encode(random.bytes(3 * record_bytes))
    lengths = (
        random.integers(-record_bytes // 2, record_bytes // 2 + 1, count) + record_bytes - len('{"id":,"inputs":"","date":""}')
    )
    begins = random.integers(0, 2 * record_bytes, count)
    for number, begin, length in zip(range(1, count + 1), begins.tolist(), lengths.tolist(), strict=True):
        date = b"2022/%02d/%02d" % (number // 28 % 12 + 1, number % 28 + 1)
        inputs = text[begin : begin + max(length - len(str(number)) - len(date), 0)]
        yield b'{"id": %d, "inputs": "%s", "date": "%s"}' % (number, inputs, date)


def made_once(name: str, fill: Callable[[Path], None]) -> Path:
    """Give the data folder of that name; where there is none, it is filled under another name and then renamed."""
    folder = DATA / name
    if not folder.exists():
        print(f"Making {folder.relative_to(DATA.parent.parent)} …", flush=True)
        DATA.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=DATA) as temporary:
            made = Path(temporary) / name
            made.mkdir()
            fill(made)
            made.rename(folder)
    return folder


def write_files(folder: Path, lines: Iterator[bytes], count: int) -> None:
    """Write the lines into ``FILES`` files of the same number of records."""
    folder.mkdir()
    for number in range(FILES):
        records = count * (number + 1) // FILES - count * number // FILES
        with (folder / f"part-{number}.jsonl").open("wb") as file:
            file.writelines(islice(lines, records))


def photo_lines(kind: PhotoKind, count: int) -> Iterator[bytes]:
    """Give records in the format of the example job: id, image and date."""
    from sklearn.datasets import load_sample_images

    images = load_sample_images().images
    random = np.random.default_rng(0)
    for number in range(1, count + 1):
        encoded = io.BytesIO()
        crop(images[random.integers(len(images))], kind, random).save(encoded, **kind.encoding)
        text = base64.b64encode(encoded.getvalue()).decode()
        date = f"2022/{number // 28 % 12 + 1:02}/{number % 28 + 1:02}"
        yield json.dumps({"id": number, "inputs": text, "date": date}).encode() + b"\n"


def crop(photo: NDArray[np.uint8], kind: PhotoKind, random: np.random.Generator) -> Image.Image:
    """Cut a square out of a photo, perhaps mirror it, and make it darker or brighter."""
    side = int(random.integers(kind.crops[0], kind.crops[1] + 1))
    top, left = (int(random.integers(length - side + 1)) for length in photo.shape[:2])
    square = Image.fromarray(photo[top : top + side, left : left + side])
    pixels = np.asarray(square.resize((kind.stored_side, kind.stored_side), Image.Resampling.BICUBIC, reducing_gap=2))
    mirrored = pixels[:, :: random.choice([-1, 1])]
    return Image.fromarray(np.clip(mirrored * random.uniform(0.7, 1.3), 0, 255).astype(np.uint8))


def random_model(kind: str) -> torch.nn.Module:
    """Build a ResNet18 of random weights whose answers differ from image to image, so that peers can be compared.

    Fresh weights answer alike to everything: batch norm is therefore set to what it sees in a few images, and the mean
    answer is taken off the last layer.
    """
    inference = load_inference()
    inference.CONFIG.update(_config(kind))
    images = inference.input_fn(b"".join(photo_lines(KINDS[kind], 64)))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model: torch.nn.Module = torchvision.models.resnet18(weights=None, num_classes=KINDS[kind].classes)
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None  # a plain mean of all that is seen
        batch = inference.to_input(images, model)
        model.train()(batch)
        last: Any = model.get_submodule("fc")
        last.bias -= model.eval()(batch).mean(0)
    return model


def _config(kind: str) -> dict[str, int]:
    return {"image_side": KINDS[kind].image_side, "classes": KINDS[kind].classes}
