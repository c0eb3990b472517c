"""The job in the style of Ray's documentation: ``read_json``, ``map_batches`` with a class, ``write_json``.

Written by somebody who knows Ray Data: one actor with one thread for each core, which is the fastest for this model.
The actors ask for three quarters of their core, and reading and writing for a quarter, where the default is a whole
one: once a pool has taken all cores there is none left to read with, and Ray waits for ever. All else is as it comes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from benchmarks.measure import core_count
from benchmarks.peers.images import UsualCode, job_parser, mark


class Classifier:
    """An actor: loads the model once, then predicts batch after batch."""

    def __init__(self, model: Path, marks: Path) -> None:
        torch.set_num_threads(1)
        self.model = UsualCode(model)
        self.marks = marks

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        labels = self.model.predict(list(batch["inputs"]))
        mark(self.marks, len(labels))
        return {"id": batch["id"], "date": batch["date"], "predictions": np.asarray(labels)}


def main() -> None:
    options = job_parser(__doc__).parse_args()

    cores = core_count()
    ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False)
    (
        ray.data.read_json(str(options.input), num_cpus=0.25)
        .map_batches(
            Classifier,
            fn_constructor_args=(options.model, options.marks),
            batch_size=options.batch,
            compute=ray.data.ActorPoolStrategy(size=cores),
            num_cpus=0.75,
        )
        .write_json(str(options.output), ray_remote_args={"num_cpus": 0.25})
    )


if __name__ == "__main__":
    main()
