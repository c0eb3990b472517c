"""The job as a PyTorch script with a DataLoader: a process a core decodes, one process has the model.

The loader's workers each take every n-th batch of the files, read and decode it, and hand a tensor over in shared memory; the
main process predicts and writes, in the order in which batches come: with several workers that is not the files' order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from benchmarks.measure import core_count
from benchmarks.peers.images import UsualCode, job_parser, mark
from benchmarks.peers.usual_code.inference import decode

Batch = tuple[str, list[dict[str, Any]], torch.Tensor]
"""A file's name, records without their images, and the images: (records, side, side, 3)."""


class Batches(IterableDataset[Batch]):
    """Every n-th batch of all files, decoded."""

    def __init__(self, folder: Path, size: int, side: int) -> None:
        self._folder = folder
        self._size = size
        self._side = side

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        own, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        torch.set_num_threads(1)
        number = 0
        for source in sorted(self._folder.iterdir()):
            with source.open("rb") as lines:
                while batch := list(islice(lines, self._size)):
                    if number % workers == own:
                        records = [json.loads(line) for line in batch]
                        images = torch.from_numpy(np.stack([decode(record.pop("inputs"), self._side) for record in records]))
                        yield source.name, records, images
                    number += 1


def main() -> None:
    options = job_parser(__doc__).parse_args()

    code = UsualCode(options.model)
    options.output.mkdir(parents=True)
    dataset = Batches(options.input, options.batch, code.side)
    for name, records, images in DataLoader(dataset, batch_size=None, num_workers=core_count()):
        labels = code.classify(images)
        with (options.output / f"{name}.out").open("a") as output:
            for record, label in zip(records, labels, strict=True):
                joined = {"SageMakerOutput": {"predictions": label}, "id": record["id"], "date": record["date"]}
                output.write(json.dumps(joined) + "\n")
        mark(options.marks, len(records))


if __name__ == "__main__":
    main()
