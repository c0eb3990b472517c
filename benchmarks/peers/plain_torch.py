"""The job as a plain PyTorch script: one process, torch's own threads, files one after another.

It reads a batch of lines, decodes them in one pass, predicts, and writes each prediction beside its record's id and
date, in order. ``--channels-last`` is the one thing about it that not everybody knows to write.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO

import torch

from benchmarks.peers.images import decode, load_model, mark, to_input


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--input", "--model", "--output", "--marks"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args()

    model, side = load_model(options.model, channels_last=options.channels_last)
    options.output.mkdir(parents=True)
    for source in sorted(options.input.iterdir()):
        with source.open("rb") as lines, (options.output / f"{source.name}.out").open("w") as output:
            for batch in batches(lines, options.batch):
                records = [json.loads(line) for line in batch]
                images = [decode(record["inputs"], side) for record in records]
                with torch.inference_mode():
                    labels = model(to_input(images, channels_last=options.channels_last)).argmax(1).tolist()
                for record, label in zip(records, labels, strict=True):
                    joined = {"SageMakerOutput": {"predictions": label}, "id": record["id"], "date": record["date"]}
                    output.write(json.dumps(joined) + "\n")
                mark(options.marks, len(records))


def batches(lines: IO[bytes], size: int) -> Iterator[list[bytes]]:
    while batch := list(islice(lines, size)):
        yield batch


if __name__ == "__main__":
    main()
