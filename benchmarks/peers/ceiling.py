"""The ceiling: the cores' time for the example's model on images that lie in memory, plus that for decoding them, alone.

Nothing is read, joined or written. The model is the one that rayxform's workers have: ``model_fn`` of the example, prepared by
rayxform's runtime in the precision that is asked for, compiled or not. It is tried as one process with a thread for each core
and as a process of one thread for each core, each with the images of a whole request at once and with the smaller parts in
which ``inference.py`` puts them through the model; the best of the four counts. Decoding is ``input_fn`` on a request of the
data set, a process of one thread for each core. What one core does in a second it does not do twice, so the ceiling is
1 / (1 / model + 1 / decoding). Prints one JSON object: images a second of each trial, ``decoding``, and ``ceiling``.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import core_count
from jobs.resnet18_data import load_inference
from rayxform.model import Arithmetic
from rayxform.model.runtime import Precision, prepare


@dataclass(frozen=True)
class Setting:
    """What is measured, and how."""

    model: Path
    input: Path
    batch: int
    arithmetic: Arithmetic
    seconds: float
    threads: int = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--input", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--batch", type=int, required=True, help="records in a request")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--precision", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cache", default="", help="the folder for compiled models")
    options = parser.parse_args()

    cores = core_count()
    precision: Precision = options.precision
    arithmetic = Arithmetic(precision, options.compile, model="ceiling", folder=options.cache)
    side = json.loads((options.model / "config.json").read_text())["image_side"]
    parts = math.ceil(options.batch * side * side / load_inference().CPU_PIXELS)
    rates = {}
    for batch in sorted({options.batch, math.ceil(options.batch / parts)}):
        for processes, threads in sorted({(1, cores), (cores, 1)}):
            setting = Setting(options.model, options.input, batch, arithmetic, options.seconds, threads)
            rates[f"{processes} x {threads} threads, {batch} images"] = images_per_second(_run_model, setting, processes)
    setting = Setting(options.model, options.input, options.batch, arithmetic, options.seconds)
    decoding = images_per_second(_run_decoding, setting, cores)
    print(json.dumps({**rates, "decoding": decoding, "ceiling": 1 / (1 / max(rates.values()) + 1 / decoding)}))


def images_per_second(work: Callable[[Setting], Callable[[], int]], setting: Setting, processes: int) -> float:
    """Do the work in ``processes`` at the same time, and add up what they manage."""
    # A forked copy of torch's thread pool hangs, so these are spawned.
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(processes)
    rates = context.SimpleQueue()
    workers = [context.Process(target=_measure, args=(work, setting, start, rates)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise RuntimeError("a process of the ceiling failed; its traceback is above")
    return math.fsum(rates.get() for _ in workers)


def _measure(
    work: Callable[[Setting], Callable[[], int]],
    setting: Setting,
    start: Barrier,
    rates: multiprocessing.SimpleQueue[float],
) -> None:
    step = work(setting)
    step()
    start.wait(timeout=300)
    done, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < setting.seconds:
        done += step()
    rates.put(done / passed)


def _run_model(setting: Setting) -> Callable[[], int]:
    inference = load_inference()
    model = inference.model_fn(str(setting.model))
    prepare(model, setting.threads, setting.arithmetic)
    side = inference.CONFIG["image_side"]
    # As ``to_input`` of the example gives them.
    images = torch.randn(setting.batch, 3, side, side).to(next(model.parameters()).dtype, memory_format=torch.channels_last)

    def step() -> int:
        with torch.no_grad():
            model(images)
        return setting.batch

    return step


def _run_decoding(setting: Setting) -> Callable[[], int]:
    inference: Any = load_inference()
    inference.model_fn(str(setting.model))  # which tells it the size of images
    torch.set_num_threads(1)
    with min(setting.input.iterdir()).open("rb") as lines:
        body = b"".join(islice(lines, setting.batch))

    def step() -> int:
        return len(inference.input_fn(body))

    return step


if __name__ == "__main__":
    main()
