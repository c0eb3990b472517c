"""The ceiling: the example's own model on images that lie in memory ready to use, nothing read, decoded or written.

Tried as one process with a thread for each core and as a process of one thread for each core, each with the images of
a whole request at once and with the smaller parts in which ``inference.py`` puts them through the model. The best of
the four is the ceiling. Prints one JSON object: images a second of each.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch

from benchmarks.peers.images import core_count
from jobs.resnet18_data import load_inference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--batch", type=int, required=True, help="records in a request")
    parser.add_argument("--seconds", type=float, default=8)
    options = parser.parse_args()

    cores = core_count()
    side = json.loads((options.model / "config.json").read_text())["image_side"]
    parts = math.ceil(options.batch * side * side / load_inference().CPU_PIXELS)
    rates = {}
    for batch in sorted({options.batch, math.ceil(options.batch / parts)}):
        for processes, threads in sorted({(1, cores), (cores, 1)}):
            name = f"{processes} x {threads} threads, {batch} images"
            rates[name] = images_per_second(options.model, batch, processes, threads, options.seconds)
    print(json.dumps(rates))


def images_per_second(model: Path, batch: int, processes: int, threads: int, seconds: float) -> float:
    """Run the model in ``processes`` at the same time, and add up what they manage."""
    # A forked copy of torch's thread pool hangs, so these are spawned.
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(processes)
    rates = context.SimpleQueue()
    workers = [context.Process(target=_measure, args=(model, batch, threads, seconds, start, rates)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise RuntimeError("a process of the ceiling failed; its traceback is above")
    return math.fsum(rates.get() for _ in workers)


def _measure(
    model_folder: Path,
    batch: int,
    threads: int,
    seconds: float,
    start: Barrier,
    rates: multiprocessing.SimpleQueue[float],
) -> None:
    torch.set_num_threads(threads)
    inference = load_inference()
    model = inference.model_fn(str(model_folder))
    side = inference.CONFIG["image_side"]
    images = torch.randn(batch, 3, side, side).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        model(images)
        start.wait(timeout=120)
        done, began = 0, time.perf_counter()
        while (passed := time.perf_counter() - began) < seconds:
            model(images)
            done += batch
    rates.put(done / passed)


if __name__ == "__main__":
    main()
