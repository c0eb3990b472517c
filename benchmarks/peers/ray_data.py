"""The job in the style of Ray's documentation: ``read_json``, ``map_batches`` with a class, ``write_json``.

Written by somebody who knows Ray Data: one actor with one thread for each core, which is the fastest for this model.
The actors ask for three quarters of their core, and reading and writing for a quarter, where the default is a whole
one: once a pool has taken all cores there is none left to read with, and Ray waits for ever. All else is as it comes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from benchmarks.peers.images import core_count, decode, load_model, mark, to_input


class Classifier:
    """An actor: loads the model once, then predicts batch after batch."""

    def __init__(self, model: Path, marks: Path, channels_last: bool) -> None:
        torch.set_num_threads(1)
        self.model, self.side = load_model(model, channels_last=channels_last)
        self.marks, self.channels_last = marks, channels_last

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        images = [decode(text, self.side) for text in batch["inputs"]]
        with torch.inference_mode():
            labels = self.model(to_input(images, channels_last=self.channels_last)).argmax(1).numpy()
        mark(self.marks, len(labels))
        return {"id": batch["id"], "date": batch["date"], "predictions": np.asarray(labels)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--input", "--model", "--output", "--marks"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args()

    cores = core_count()
    ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False)
    (
        ray.data.read_json(str(options.input), num_cpus=0.25)
        .map_batches(
            Classifier,
            fn_constructor_args=(options.model, options.marks, options.channels_last),
            batch_size=options.batch,
            compute=ray.data.ActorPoolStrategy(size=cores),
            num_cpus=0.75,
        )
        .write_json(str(options.output), ray_remote_args={"num_cpus": 0.25})
    )


if __name__ == "__main__":
    main()
