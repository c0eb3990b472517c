"""How fast is rayxform: the same ResNet18 job through it and its peers, one after another, in one run.

::

    python -m benchmarks.throughput                            50,000 small and 2,000 large images, ten minutes
    python -m benchmarks.throughput --images large --repeat 3  the median of three runs of each peer
    python -m benchmarks.throughput --images echo              no model: what the pipeline alone passes
    python -m benchmarks.throughput --quick                    all of it on very little: does it work
    python -m benchmarks.throughput --torchserve               also against what SageMaker's own containers run

Small images are PNGs of 32 x 32 pixels, about 3 KB a line; large ones JPEGs of 375 x 375, about 40 KB a line, of which
the model takes 224 x 224. Every peer starts as a process of its own, and reads, decodes, predicts, joins id and date,
and writes. The plain script and SageMaker's stack run twice: with an inference.py as most people write it, and with
rayxform's own example; rayxform runs the usual one, too, beside the stack with the same file. Ratios are to the plain script
as most people write it, and to the ceiling of the same precision: the cores' time for the model on images that lie in memory
ready to use, plus that for decoding them.

"All in" counts from the command to its end; "steady" from the first finished batch to the last. Memory is the most that
all processes of a peer held together.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import data_sets
from benchmarks.data_sets import KINDS, DataSet
from benchmarks.measure import Outcome, Pace, PeerError, core_count, pace_of_marks, run
from benchmarks.report import Result, differences, figures, machine_facts, table
from jobs.resnet18_data import INFERENCE_FILE
from rayxform.model.runtime.precision import cpu_computes

MAX_PAYLOAD_IN_MB = 1
USUAL_CODE = Path(__file__).with_name("peers") / "usual_code"
TUNED = ("--concurrency", str(core_count()), "--threads", "1")
"""What one would set by hand for SageMaker's stack."""


@dataclass(frozen=True)
class Options:
    """What was asked for; see ``parse``."""

    images: list[str]
    counts: dict[str, int]
    echo_mb: int
    repeat: int
    peers: list[str]
    ceiling_s: float
    timeout_s: float
    workers: int | None
    json: Path | None


Runner = Callable[[Path, str, DataSet, Options], tuple[Outcome, Pace]]
"""Runs one peer: takes a folder for it, the kind of images, the data and the options."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))  # peers are ended, folders removed
    print("\n".join(machine_facts()), flush=True)
    raw: list[dict[str, Any]] = []
    try:
        for images in options.images:
            raw += echo_benchmark(options) if images == "echo" else model_benchmark(images, options)
    except PeerError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if options.json:
            options.json.write_text(json.dumps(raw, indent=1))
    return 0


def parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", choices=["small", "large", "both", "echo", "all"], help="(both; with --quick, all)")
    parser.add_argument("--count-small", type=int, default=50_000, help="records (%(default)s)")
    parser.add_argument("--count-large", type=int, default=2_000, help="records (%(default)s)")
    parser.add_argument("--echo-mb", type=int, default=1_000, help="10^6 bytes of JSON Lines (%(default)s)")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each peer; the table has medians (%(default)s)")
    parser.add_argument("--peers", nargs="+", choices=[*PEERS, "ceiling"], help="(all that can run here but SageMaker's stack)")
    parser.add_argument(
        "--torchserve", action="store_true", help="SageMaker's stack as well; see benchmarks/peers/torchserve.py"
    )
    parser.add_argument("--workers", type=int, help="rayxform's workers (one a core)")
    parser.add_argument(
        "--ceiling-seconds", type=float, default=8, metavar="S", help="for each way to measure the ceiling (%(default)s)"
    )
    parser.add_argument("--timeout", type=float, default=1_800, metavar="S", help="for one peer's run (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="600 small and 60 large images, 20 MB of echo")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single run there")
    given = parser.parse_args(arguments)
    images = {"both": ["small", "large"], "all": ["small", "large", "echo"]}
    chosen = given.images or ("all" if given.quick else "both")
    counts = {"small": 600, "large": 60} if given.quick else {"small": given.count_small, "large": given.count_large}
    return Options(
        images=images.get(chosen, [chosen]),
        counts=counts,
        echo_mb=20 if given.quick else given.echo_mb,
        repeat=given.repeat,
        peers=given.peers or [*_peers_here(torchserve=given.torchserve), "ceiling"],
        ceiling_s=1 if given.quick else given.ceiling_seconds,
        timeout_s=given.timeout,
        workers=given.workers,
        json=given.json,
    )


def _peers_here(*, torchserve: bool) -> Iterator[str]:
    """Those that need no more than the extra ``benchmarks``, Daft where it is installed, and bfloat16 where CPUs compute it."""
    import torch  # noqa: F401 - which says what this CPU can

    for name in PEERS:
        is_here = name != "daft" or importlib.util.find_spec("daft") is not None
        is_here = is_here and ("bfloat16" not in name or cpu_computes("bfloat16"))
        if is_here and (torchserve or name not in BESIDE_TORCHSERVE):
            yield name


def model_benchmark(kind: str, options: Options) -> list[dict[str, Any]]:
    """Run all peers on one kind of image, print the table, and give every run's figures."""
    data = data_sets.photos(kind, options.counts[kind])
    heading(kind, data)
    results: dict[str, list[Result]] = {peer: [] for peer in options.peers if peer != "ceiling"}
    ceilings: dict[str, list[float]] = {CEILING_OF.get(peer, ""): [] for peer in results}
    for _ in range(options.repeat):  # in turn, so that a slow minute of the machine meets all alike
        for flags, tops in ceilings.items() if "ceiling" in options.peers else ():
            tops.append(ceiling(data, flags, options))
        for peer, runs in results.items():
            runs.append(run_peer(peer, kind, data, options))
            print(f"{peer}: {runs[-1].outcome.seconds:.1f} s", flush=True)
    top_of = {flags: statistics.median(rates) for flags, rates in ceilings.items() if rates}
    tops = {peer: top_of.get(CEILING_OF.get(peer, "")) for peer in results}
    print("\n" + "\n".join(table(results, tops)), flush=True)
    for line in differences(results):
        print(line)
    return [figures(kind, result, tops[peer]) for peer, runs in results.items() for result in runs]


def heading(name: str, data: DataSet) -> None:
    size = f"{data.records:,} records, {data.input_bytes / 1e6:,.1f} MB, {data.bytes_per_record:,.0f} bytes a line"
    print(f"\n## {name}: {size}\n", flush=True)


def run_peer(peer: str, kind: str, data: DataSet, options: Options) -> Result:
    with tempfile.TemporaryDirectory(prefix="throughput-", dir=data_sets.DATA) as temporary:
        work = Path(temporary)
        outcome, pace = PEERS[peer](work, kind, data, options)
        ids = []
        predictions = {}
        for record in read_output(work / "output"):
            ids.append(record["id"])
            predictions[record["id"]] = _label(record)
        if sorted(ids) != list(range(1, data.records + 1)):
            raise PeerError(f"{peer} was given {data.records} records and wrote {len(ids)}, {len(predictions)} different")
        return Result(peer, data.records, outcome, pace, predictions, ids == sorted(ids))


def run_rayxform(code: Path = INFERENCE_FILE.parent, **members: Any) -> Runner:
    """Make a runner for the job with the inference.py of a folder, and with some members of Rayxform set."""

    def runner(work: Path, kind: str, data: DataSet, options: Options) -> tuple[Outcome, Pace]:  # noqa: ARG001
        job = job_for(data, work, data.folder / "model.tar.gz", join=True)
        job["Model"]["SourceDir"] = str(code)  # today's code; the data may have been made with another
        job["Rayxform"] = members
        return run_job(job, work, options)

    return runner


def run_script(module: str, *flags: str) -> Runner:
    """Make a runner for one of ``benchmarks/peers``."""

    def runner(work: Path, kind: str, data: DataSet, options: Options) -> tuple[Outcome, Pace]:
        marks = work / "marks"
        marks.mkdir()
        folders = {
            "input": data.folder / "input",
            "model": data.folder / "model",
            "output": work / "output",
            "marks": marks,
        }
        places = [part for name, folder in folders.items() for part in (f"--{name}", str(folder))]
        command = ["-m", f"benchmarks.peers.{module}", *places, "--batch", str(KINDS[kind].batch), *flags]
        started = time.time()
        outcome = run(command, work / "log.out", options.timeout_s)
        return outcome, pace_of_marks(marks, started)

    return runner


PEERS: dict[str, Runner] = {
    "rayxform": run_rayxform(),
    "rayxform-compiled": run_rayxform(Compile=True),
    "rayxform-bfloat16": run_rayxform(Precision="bfloat16"),
    "rayxform-bfloat16-compiled": run_rayxform(Precision="bfloat16", Compile=True),
    "rayxform-usual": run_rayxform(USUAL_CODE),
    "rayxform-usual-micro-batch": run_rayxform(USUAL_CODE, ModelMicroBatch=0),
    "rayxform-usual-compiled": run_rayxform(USUAL_CODE, Compile=True, ModelMicroBatch=0),
    "plain": run_script("plain_torch"),
    "plain-same-code": run_script("plain_torch", "--same-code"),
    "data-loader": run_script("data_loader"),
    "ray-data": run_script("ray_data"),
    "daft": run_script("daft_pipeline"),
    "sagemaker": run_script("torchserve"),
    "sagemaker-tuned": run_script("torchserve", *TUNED),
    "sagemaker-usual": run_script("torchserve", "--code", str(USUAL_CODE)),
    "sagemaker-usual-tuned": run_script("torchserve", "--code", str(USUAL_CODE), *TUNED),
}
BESIDE_TORCHSERVE = [name for name in PEERS if name.startswith(("sagemaker", "rayxform-usual-"))]
"""SageMaker's stack, and what is of interest only beside it."""

CEILING_OF = {
    "rayxform-compiled": "--compile",
    "rayxform-bfloat16": "--precision bfloat16",
    "rayxform-bfloat16-compiled": "--precision bfloat16 --compile",
}
"""Peers whose model computes otherwise than in float32 as it comes, and the flags of their ceiling."""


def run_job(job: dict[str, Any], work: Path, options: Options) -> tuple[Outcome, Pace]:
    """Run a job through rayxform's command line, and take its own word for the pace."""
    (work / "job.json").write_text(json.dumps(job))
    workers = ["--workers", str(options.workers)] if options.workers else []
    command = ["-m", "rayxform", "run", str(work / "job.json"), "--json", *workers]
    outcome = run(command, work / "log.out", options.timeout_s)
    timings = outcome.last_object["Timings"]
    return outcome, Pace(timings["FirstMiniBatchSeconds"], timings["SteadySeconds"], timings["SteadyRecords"])


def job_for(data: DataSet, work: Path, model: Path, *, join: bool) -> dict[str, Any]:
    lines = "application/jsonlines"
    job: dict[str, Any] = {
        "TransformJobName": "throughput",
        "Model": {"ModelDataUrl": str(model)},
        "BatchStrategy": "MultiRecord",
        "MaxPayloadInMB": MAX_PAYLOAD_IN_MB,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": str(data.folder / "input")}},
            "ContentType": lines,
            "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": str(work / "output"), "Accept": lines, "AssembleWith": "Line"},
    }
    if join:
        job["DataProcessing"] = {"JoinSource": "Input", "OutputFilter": "$['SageMakerOutput','id','date']"}
    return job


def ceiling(data: DataSet, flags: str, options: Options) -> float:
    """Measure what the model and decoding manage, in images a second, on requests as large as rayxform's are on average."""
    batch = max(int(MAX_PAYLOAD_IN_MB * 2**20 / data.bytes_per_record), 1)
    command = ["-m", "benchmarks.peers.ceiling", "--model", str(data.folder / "model"), "--batch", str(batch), *flags.split()]
    with tempfile.TemporaryDirectory() as temporary:
        command += ["--input", str(data.folder / "input"), "--seconds", str(options.ceiling_s), "--cache", temporary]
        rates = run(command, Path(temporary) / "log.out", options.timeout_s).last_object
    print(f"ceiling {flags}: " + "; ".join(f"{name}: {rate:,.0f}/s" for name, rate in rates.items()), flush=True)
    return float(rates["ceiling"])


def echo_benchmark(options: Options) -> list[dict[str, Any]]:
    """Run jobs whose handler answers with what it is sent, and print bytes a second."""
    data = data_sets.echo(options.echo_mb)
    heading("echo", data)
    print(
        "| Job | MB/s, all in | MB/s, steady | First mini-batch, s | Peak memory, MiB |\n|---|--:|--:|--:|--:|",
        flush=True,
    )
    raw = []
    for name, join, members in (
        ("no filter, join or envelope", False, {"Compatibility": "aws"}),
        ("the envelope alone", False, {}),
        ("JoinSource Input, OutputFilter", True, {}),
    ):
        runs = [echo_run(data, join, members, options) for _ in range(options.repeat)]
        all_in, steady, first, peak = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"| {name} | {all_in:,.1f} | {steady:,.1f} | {first:.1f} | {peak:,.0f} |", flush=True)
        raw += [{"images": "echo", "job": name, "all_in_mb_s": run_[0], "steady_mb_s": run_[1]} for run_ in runs]
    return raw


def echo_run(data: DataSet, join: bool, members: dict[str, str], options: Options) -> tuple[float, float, float, float]:
    with tempfile.TemporaryDirectory(prefix="throughput-", dir=data_sets.DATA) as temporary:
        work = Path(temporary)
        job = job_for(data, work, data.folder / "model", join=join) | {"Rayxform": members}
        outcome, pace = run_job(job, work, options)
        written = sum(1 for file in output_files(work / "output") for _ in file.open("rb"))
        if written != data.records:
            raise PeerError(f"echo was given {data.records} records and wrote {written}")
    steady = pace.steady_rate * data.bytes_per_record / 1e6
    return data.input_bytes / 1e6 / outcome.seconds, steady, pace.first_s, outcome.peak_bytes / 2**20


def output_files(folder: Path) -> list[Path]:
    """Give a peer's output files by name, without rayxform's own folder of job state."""
    return sorted(file for file in folder.iterdir() if file.is_file())


def read_output(folder: Path) -> Iterator[dict[str, Any]]:
    for file in output_files(folder):
        for line in file.read_text().splitlines():
            yield json.loads(line)


def _label(record: dict[str, Any]) -> int:
    return int(record["SageMakerOutput"]["predictions"] if "SageMakerOutput" in record else record["predictions"])


if __name__ == "__main__":
    sys.exit(main())
