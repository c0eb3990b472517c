"""A first job: a ResNet18 names 1,100 handwritten digits, and the answers are checked against their labels.

On this machine, then on a Ray cluster::

    python jobs/resnet18.py
    ray job submit --working-dir . -- python jobs/resnet18.py

The first run makes the input and trains the model, which takes half a minute on two cores; later ones find them in
``jobs/resnet18/data``. On a cluster that is a folder of the job's own, which Ray removes in the end: ``--data`` names
another to keep the results, and on several machines has to name one that all of them see.

Exits with 1 if the job fails, if a record is missing, comes twice or is out of place, or if fewer than 93 % of the
digits are named rightly; with 2 if the job is refused before it starts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# In a clone that is not installed, rayxform is found here; also by the workers that Ray starts from this process.
ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))

try:
    import yaml

    import rayxform
    from jobs.resnet18_data import is_current, prepare
    from rayxform.errors import JobError
except ImportError as error:
    sys.exit(f"{error}. What this job needs is installed by: pip install '.[demo]'")

JOB_FILE = ROOT / "jobs" / "resnet18" / "job.yaml"
DATA = JOB_FILE.with_name("data")
MIN_ACCURACY = 0.93


class MismatchError(Exception):
    """The output is not what the input asks for."""


@dataclass(frozen=True)
class Variant:
    """This job, or one over the same digits in another format.

    Attributes:
        job_file: beside the data.
        suffix: what the names of its folders of input and output end in.
        extension: of its input files.
        kept: the attributes of a record that stand beside its prediction.
        prepare: makes in the data folder what the variant needs besides.
    """

    job_file: Path
    suffix: str
    extension: str
    kept: Sequence[str]
    prepare: Callable[[Path], None] = lambda _: None


DIGITS = Variant(JOB_FILE, "", "jsonl", ("id", "date", "label"))


def main(arguments: list[str] | None = None, variant: Variant = DIGITS) -> int:
    """Make what is missing, run the job, check its output, and give the exit code."""
    parser = argparse.ArgumentParser(description="A ResNet18 names 1,100 handwritten digits.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder for input, model and output (%(default)s)")
    parser.add_argument("--workers", type=int, help="processes that run the model (one a GPU, or else one a core)")
    parser.add_argument("--address", help="the Ray cluster to use (RAY_ADDRESS; where that is not set, this machine)")
    options = parser.parse_args(arguments)

    if not is_current(options.data / "model.tar.gz"):
        print("Making the input and training the model: half a minute, the first time only …", flush=True)
    prepare(options.data)
    variant.prepare(options.data)
    try:
        result = rayxform.run(job_in(options.data, variant), workers=options.workers, address=options.address)
    except JobError as refused:
        print(f"The job was refused: {refused}", file=sys.stderr)
        return 2
    if result.status != "Completed":
        print(f"The job ended as {result.status}: {result.failure_reason}", file=sys.stderr)
        return 1
    print(f"{result.records:,} records in {result.requests} requests and {result.seconds:.1f} s: {result.output_path}")
    try:
        return report(read_back(options.data, variant))
    except MismatchError as mismatch:
        print(f"The output is wrong: {mismatch}", file=sys.stderr)
        return 1


def job_in(data: Path, variant: Variant) -> Path | dict[str, Any]:
    """Give the job file, or, for another data folder, its members with the paths below that folder."""
    if data.resolve() == DATA:
        return variant.job_file
    job: dict[str, Any] = yaml.safe_load(variant.job_file.read_text(encoding="utf-8"))
    job["Model"]["ModelDataUrl"] = str(data.resolve() / "model.tar.gz")
    if "SourceDir" in job["Model"]:
        job["Model"]["SourceDir"] = str(variant.job_file.parent / job["Model"]["SourceDir"])
    job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] = str(data.resolve() / f"input{variant.suffix}")
    job["TransformOutput"]["S3OutputPath"] = str(data.resolve() / f"output{variant.suffix}")
    return job


def read_back(data: Path, variant: Variant) -> list[dict[str, Any]]:
    """Read all outputs, and check that each holds its input's records: every one, once, in order."""
    joined = []
    for source in sorted((data / "input").iterdir()):
        output = data / f"output{variant.suffix}" / f"{source.stem}.{variant.extension}.out"
        if not output.exists():
            raise MismatchError(f"{output} is missing")
        expected, found = read_lines(source), read_lines(output)
        if len(found) != len(expected):
            raise MismatchError(f"{output} has {len(found)} lines; {source} has {len(expected)}")
        for number, (record, line) in enumerate(zip(expected, found, strict=True), start=1):
            kept = {name: record[name] for name in variant.kept}
            if {name: value for name, value in line.items() if name != "SageMakerOutput"} != kept:
                raise MismatchError(f"{output}, line {number}: {line} does not belong to {kept}")
        joined += found
    return joined


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Read a file of JSON Lines."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def report(joined: list[dict[str, Any]]) -> int:
    """Print some records and how many digits are named rightly, and give the exit code."""
    for line in joined[:3]:
        print(json.dumps(line, separators=(",", ":")))
    right = sum(line["SageMakerOutput"]["predictions"] == line["label"] for line in joined)
    accuracy = right / len(joined)
    print(f"{right:,} of {len(joined):,} digits named rightly: {accuracy:.1%}")
    if accuracy < MIN_ACCURACY:
        print(f"That is less than the {MIN_ACCURACY:.0%} that this model reaches elsewhere.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
