"""How far does it scale: workers on accelerators that are simulated, so that many of them fit on this machine.

::

    python -m benchmarks.scale                                    1 to 32 workers, some ten minutes
    python -m benchmarks.scale --workers 64 --model-s 0.3 --nodes 4
    python -m benchmarks.scale --flat                             does a record cost the same among 10^4 and among 10^6

The handler sleeps as long as a model would take, and echoes; the ideal is workers / seconds of a mini-batch. Workers begin
together, when all are loaded: on a real cluster each has a machine to start on. Nodes are those of Ray's ``cluster_utils``.
What is measured is what all of them share, and thus what saturates: the driver. Its CPU time for one more block is then worked
out for 100 TB on 500 GPUs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil

from benchmarks.measure import ROOT
from benchmarks.report import machine_facts
from rayxform.pipeline.flow import block_limit_bytes, choose_block_bytes

RECORD_BYTES = 3000

STORE_BYTES = 2 * 1024**3
"""Of each node's object store, as of a machine of 7 GB: Ray takes three tenths, but on a ``Cluster`` 150 MB, which holds no two
blocks a worker."""

INFERENCE = """
import os, time
from pathlib import Path

def model_fn(folder):
    gate = Path(os.environ["GATE"])
    (gate / str(os.getpid())).touch()
    while len(list(gate.iterdir())) < int(os.environ["WORKERS"]):
        time.sleep(0.05)

def transform_fn(model, body, content_type, accept):
    time.sleep(float(os.environ["MODEL_S"]) + float(os.environ["RECORD_S"]) * (body.count(b"\\n") + 1))
    return body
"""


@dataclass(frozen=True)
class Case:
    """A job.

    Attributes:
        workers: how many.
        model_s: seconds that a mini-batch takes.
        nodes: on how many nodes.
        files: how many objects the records lie in.
        batches: how many mini-batches there are.
        records_per_batch: records in each.
        record_s: seconds that a record takes, beside ``model_s``.
        record_bytes: its size.
    """

    workers: int
    model_s: float
    nodes: int
    files: int
    batches: int
    records_per_batch: int = 1
    record_s: float = 0.0
    record_bytes: int = RECORD_BYTES

    @property
    def blocks(self) -> int:
        """How many blocks the mini-batches come in, as one reader cuts them."""
        batch_bytes = self.records_per_batch * self.record_bytes
        left, blocks = self.batches, 0
        while left > 0:
            left -= max(1, -(-choose_block_bytes(left * batch_bytes, self.workers) // batch_bytes))
            blocks += 1
        return blocks


@dataclass(frozen=True)
class Run:
    """What came of it.

    Attributes:
        efficiency: mini-batches a second, steady, as a share of the ideal.
        steady_s: seconds from the first finished mini-batch to the last.
        steady_records: records in that time.
        driver_cpu_s: CPU time of the driver, start-up included.
        driver_mib: the most memory of its own (USS) that it held.
    """

    efficiency: float
    steady_s: float
    steady_records: int
    driver_cpu_s: float
    driver_mib: float


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 32], help="(default: %(default)s)")
    parser.add_argument("--model-s", type=float, nargs="+", default=[1.0, 0.3], help="seconds a mini-batch (%(default)s)")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 4], help="(default: %(default)s)")
    parser.add_argument("--batches", type=int, default=40, help="mini-batches a worker (default: %(default)s)")
    parser.add_argument("--flat", action="store_true", help="10,000, 100,000 and 1,000,000 records on four workers instead")
    options = parser.parse_args(arguments)
    print("\n".join(machine_facts()), flush=True)
    if options.flat:
        return _flat()
    print(
        "\n| workers | nodes | files | model, s | efficiency | mini-batches/s | driver, ms a mini-batch | driver, MiB |\n"
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
        flush=True,
    )
    runs: list[tuple[Case, Run]] = []
    for nodes in options.nodes:
        with cluster(nodes, max(options.workers)) as address:
            for case in cases(options, nodes):
                run = measure(case, address)
                runs.append((case, run))
                print(_row(case, run), flush=True)
    print("\n" + "\n".join(estimate(runs)))
    return 0


def cases(options: argparse.Namespace, nodes: int) -> Iterator[Case]:
    """One file and many, for each number of workers and each length."""
    for workers in options.workers:
        for model_s in options.model_s:
            batches = workers * options.batches
            yield Case(workers, model_s, nodes, 1, batches)
            if workers == max(options.workers):
                yield Case(workers, model_s, nodes, batches, batches)


class cluster:  # noqa: N801 - used as a context
    """Nodes that say to have a core for each worker, and two more."""

    def __init__(self, nodes: int, workers: int) -> None:
        self._nodes = nodes
        self._cpus = -(-workers // nodes) + 2

    def __enter__(self) -> str:
        from ray.cluster_utils import Cluster

        node = {"num_cpus": self._cpus, "object_store_memory": STORE_BYTES}
        self._cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        for _ in range(self._nodes - 1):
            self._cluster.add_node(**node)
        self._cluster.wait_for_nodes()
        return str(self._cluster.address)

    def __exit__(self, *error: object) -> None:
        self._cluster.shutdown()


def measure(case: Case, address: str) -> Run:
    """Run a job on a cluster, with its driver as a process of its own."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        job = _write_job(folder, case)
        command = [sys.executable, "-m", "rayxform", "run", str(job), "--json", "--address", address]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (folder / "log").open("wb") as log:
            driver = subprocess.Popen(
                [*command, "--workers", str(case.workers)], stdout=subprocess.PIPE, stderr=log, env=environment
            )
            cpu_s, peak_bytes = _watch(psutil.Process(driver.pid), driver)
            output = driver.stdout.read() if driver.stdout else b""
        if driver.returncode:
            raise RuntimeError(output.decode() + (folder / "log").read_text())
        return _run_of(case, json.loads(output.splitlines()[-1])["Timings"], cpu_s, peak_bytes / 2**20)


def _watch(process: psutil.Process, driver: subprocess.Popen[bytes]) -> tuple[float, int]:
    """Wait for the driver's end; its CPU seconds, and the most bytes that it had for itself."""
    cpu_s, peak_bytes = 0.0, 0
    while driver.poll() is None:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            cpu_s, peak_bytes = times.user + times.system, max(peak_bytes, process.memory_full_info().uss)
        time.sleep(0.2)
    return cpu_s, peak_bytes


def _run_of(case: Case, timings: dict[str, Any], driver_cpu_s: float, driver_mib: float) -> Run:
    batch_s = case.model_s + case.record_s * case.records_per_batch
    steady_s, records = timings["SteadySeconds"], timings["SteadyRecords"]
    efficiency = records / case.records_per_batch / steady_s / (case.workers / batch_s)
    return Run(efficiency, steady_s, records, driver_cpu_s, driver_mib)


def _write_job(folder: Path, case: Case) -> Path:
    for name in ("input", "model", "gate"):
        (folder / name).mkdir()
    (folder / "model/inference.py").write_text(INFERENCE)
    line = b'{"id":1,"inputs":"' + b"x" * (case.record_bytes - 21) + b'"}\n'
    records = case.batches * case.records_per_batch
    for number in range(case.files):
        share = records // case.files
        (folder / f"input/{number:06d}.jsonl").write_bytes(line * share)
    members = {
        "Model": {
            "SourceDir": str(folder / "model"),
            "Environment": {
                "GATE": str(folder / "gate"),
                "WORKERS": str(case.workers),
                "MODEL_S": str(case.model_s),
                "RECORD_S": str(case.record_s),
            },
        },
        "BatchStrategy": "MultiRecord",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3Uri": str(folder / "input")}},
            "ContentType": "application/jsonlines",
            "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": str(folder / "output"), "Accept": "application/jsonlines"},
        "Rayxform": {"MaxRecordsPerBatch": case.records_per_batch},
    }
    job = folder / "job.json"
    job.write_text(json.dumps(members))
    return job


def _row(case: Case, run: Run) -> str:
    rate = run.steady_records / case.records_per_batch / run.steady_s
    cost_ms = 1000 * run.driver_cpu_s / case.batches
    return (
        f"| {case.workers} | {case.nodes} | {case.files:,} | {case.model_s:g} | {run.efficiency:.3f} | {rate:,.1f} | "
        f"{cost_ms:.1f} | {run.driver_mib:,.0f} |"
    )


def estimate(runs: Sequence[tuple[Case, Run]]) -> Iterator[str]:
    """What 100 TB on 500 GPUs would ask of the driver, from the largest runs; what saturates first."""
    known = sorted((case.blocks, run.driver_cpu_s) for case, run in runs if case.files == 1 and case.nodes == 1)
    slopes = [(more_s - few_s) / (more - few) for (few, few_s), (more, more_s) in pairwise(known) if more > few]
    if not slopes:
        yield "Too few runs for an estimate."
        return
    block_s = max(slopes[-1], 1e-6)
    total, gpus, gpu_rate = 100e12, 500, 3000
    seconds = total / RECORD_BYTES / gpus / gpu_rate
    block_bytes = block_limit_bytes(gpus, 1)
    rate = total / block_bytes / seconds
    yield "## 100 TB on 500 GPUs, worked out"
    yield (
        f"100 TB in records of {RECORD_BYTES:,} bytes, at {gpu_rate:,} of them a second on each of {gpus} GPUs, take "
        f"{seconds / 3600:,.1f} h, at {total / seconds / 1e9:,.1f} GB/s of input. {gpus} workers get blocks of "
        f"{block_bytes / 2**20:,.0f} MiB: {rate:,.0f} a second."
    )
    yield (
        f"The driver takes {1000 * block_s:.1f} ms of a core for one more block. So it needs {100 * rate * block_s:,.0f} % "
        f"of a core there, and saturates at {1 / block_s:,.0f} blocks a second, which are "
        f"{block_bytes / block_s / 1e9:,.1f} GB/s, or {block_bytes / block_s / RECORD_BYTES / gpu_rate:,.0f} such GPUs. "
        f"In blocks of one mini-batch of 6 MiB it would saturate at {6 * 2**20 / block_s / 1e9:,.1f} GB/s."
    )


def _flat() -> int:
    """Seconds a record from 10^4 to 10^6 records; the model takes 0.4 ms for each."""
    print(
        "\n| records | steady, s | us a record | of the ideal | driver, s | driver, MiB |\n|--:|--:|--:|--:|--:|--:|",
        flush=True,
    )
    with cluster(1, 4) as address:
        for exponent in (4, 5, 6):
            case = Case(4, 0.0, 1, 4, 10**exponent // 250, records_per_batch=250, record_s=0.0004, record_bytes=300)
            run = measure(case, address)
            each = 1e6 * run.steady_s / run.steady_records
            print(
                f"| {10**exponent:,} | {run.steady_s:.2f} | {each:.2f} | {run.efficiency:.3f} | {run.driver_cpu_s:.1f} | "
                f"{run.driver_mib:,.0f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
