"""What the peers of the data-plane benchmark have in common: one core, one run to warm up, then runs that are timed."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Timed = Callable[[], dict[str, Any]]
"""The part of a peer that is timed; gives what it counted, so that a peer that leaves something out is noticed."""

Peer = Callable[[Path, Path], Timed]
"""Gets a peer ready for a data set's folder and a file to write."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "ARROW_NUM_THREADS")


def main(description: str | None, peers: Mapping[str, Peer]) -> None:
    """Run one peer on one core, and print one JSON object: what it counted, and the seconds of each timed run."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--peer", choices=peers, required=True)
    parser.add_argument("--data", type=Path, required=True, help="a folder of benchmarks.data_sets.records")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--repeat", type=int, required=True)
    options = parser.parse_args()

    pin_to_one_core()
    timed = peers[options.peer](options.data, options.output)
    counted = timed()
    seconds = []
    for _ in range(options.repeat):
        began = time.perf_counter()
        counted = timed()
        seconds.append(time.perf_counter() - began)
    print(json.dumps(counted | {"seconds": seconds}))


def pin_to_one_core() -> None:
    """Keep this process, and all that it starts, on its last core, with one thread a library; before those are loaded."""
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
