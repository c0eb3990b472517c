"""What benchmarks print: the machine, and the throughput benchmark's table of medians with ratios."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

import rayxform
from benchmarks.measure import Outcome, Pace, core_count

NAMES = {
    "rayxform": "rayxform",
    "rayxform-compiled": "rayxform, Compile",
    "rayxform-bfloat16": "rayxform, Precision bfloat16",
    "rayxform-bfloat16-compiled": "rayxform, Precision bfloat16, Compile",
    "rayxform-usual": "rayxform, the usual inference.py",
    "rayxform-usual-micro-batch": "rayxform, the usual inference.py, ModelMicroBatch 0",
    "rayxform-usual-compiled": "rayxform, the usual inference.py, Compile, ModelMicroBatch 0",
    "plain": "plain PyTorch script",
    "plain-same-code": "the same around rayxform's inference.py",
    "data-loader": "PyTorch script, DataLoader",
    "ray-data": "Ray Data pipeline",
    "daft": "Daft pipeline",
    "sagemaker": "SageMaker's stack, concurrency 1",
    "sagemaker-tuned": "SageMaker's stack, tuned",
    "sagemaker-usual": "SageMaker's stack, concurrency 1, the usual inference.py",
    "sagemaker-usual-tuned": "SageMaker's stack, tuned, the usual inference.py",
}


@dataclass(frozen=True)
class Result:
    """One run of one peer, or what several came to."""

    peer: str
    records: int
    outcome: Outcome
    pace: Pace
    predictions: dict[int, int]
    in_order: bool

    @property
    def all_in_rate(self) -> float:
        """Records a second with start-up counted."""
        return self.records / self.outcome.seconds


def table(results: dict[str, list[Result]], tops: Mapping[str, float | None]) -> Iterator[str]:
    """Give the lines of a Markdown table: medians over the runs of each peer, beside its ceiling."""
    memory_kind = next((runs[0].outcome.memory_kind for runs in results.values()), "")
    heads = ["Peer", "Records/s, all in", "x plain", "Records/s, steady", "x plain", "of ceiling"]
    heads += ["First batch, s", "In all, s", f"Peak memory ({memory_kind}), MiB", "In order"]
    yield "| " + " | ".join(heads) + " |"
    yield "|---|" + "--:|" * (len(heads) - 1)
    plain = results.get("plain")
    for peer, runs in results.items():
        steady, all_in = median(runs, _steady), median(runs, _all_in)
        cells = [
            NAMES[peer],
            f"{all_in:,.1f}",
            f"{all_in / median(plain, _all_in):.2f}" if plain else "",
            f"{steady:,.1f}{spread(runs)}",
            f"{steady / median(plain, _steady):.2f}" if plain else "",
            f"{steady / top:.2f} (of {top:,.0f})" if (top := tops.get(peer)) else "",
            f"{median(runs, lambda result: result.pace.first_s):.1f}",
            f"{median(runs, lambda result: result.outcome.seconds):.1f}",
            f"{median(runs, lambda result: result.outcome.peak_bytes) / 2**20:,.0f}",
            "yes" if all(result.in_order for result in runs) else "no",
        ]
        yield "| " + " | ".join(cells) + " |"


def median(runs: list[Result], figure: Callable[[Result], float]) -> float:
    return statistics.median(map(figure, runs))


def spread(runs: list[Result]) -> str:
    """Give the least and the greatest steady rate of several runs."""
    rates = [_steady(result) for result in runs]
    return f" ({min(rates):,.0f} to {max(rates):,.0f})" if len(rates) > 1 else ""


def _steady(result: Result) -> float:
    return result.pace.steady_rate


def _all_in(result: Result) -> float:
    return result.all_in_rate


def differences(results: dict[str, list[Result]]) -> Iterator[str]:
    """Say how many predictions each peer has other than the first one."""
    (first, (reference, *_)), *others = results.items()
    for peer, (compared, *_) in others:
        count = sum(compared.predictions[number] != label for number, label in reference.predictions.items())
        yield f"{peer}: {count:,} of {reference.records:,} predictions differ from those of {first}."


def figures(kind: str, result: Result, top: float | None) -> dict[str, Any]:
    """Give one run as plain values, for ``--json``."""
    return {
        "images": kind,
        "peer": result.peer,
        "records": result.records,
        "seconds": result.outcome.seconds,
        "all_in_per_s": result.all_in_rate,
        "steady_per_s": result.pace.steady_rate,
        "ceiling_per_s": top,
        "peak_bytes": result.outcome.peak_bytes,
        "memory_kind": result.outcome.memory_kind,
        "in_order": result.in_order,
        **asdict(result.pace),
    }


def machine_facts(packages: Sequence[str] = ("ray", "torch", "torchvision", "pillow")) -> Iterator[str]:
    """Say what the figures were measured on: the machine, and the versions of these packages."""
    yield f"{cpu_model()}, {core_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB; {platform.platform()}"
    versions = [f"{name} {version(name)}" for name in packages]
    yield f"rayxform {rayxform.__version__}, Python {platform.python_version()}, " + ", ".join(versions)
    load = os.getloadavg()[0]
    yield f"Load before the start: {load:.2f}" + (" (something else is running: do not trust this run)" if load > 0.5 else "")


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
