"""The job of ``resnet18.py`` over TFRecord: the same digits as tf.train.Example, the same model, the same check.

On this machine, then on a Ray cluster::

    python jobs/resnet18_tfrecord.py
    ray job submit --working-dir . -- python jobs/resnet18_tfrecord.py

Exit codes are those of ``resnet18.py``.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from jobs import resnet18
from jobs.resnet18 import rayxform, yaml

JOB_FILE = resnet18.JOB_FILE.with_name("job_tfrecord.yaml")


def main(arguments: list[str] | None = None) -> int:
    """Make what is missing, run the job, check its output, and give the exit code."""
    return resnet18.run_variant(arguments, job_in=job_in, prepare=write_shards, read_back=read_back)


def write_shards(data: Path) -> None:
    """Write the records of ``input/`` as TFRecord files below ``input-tfrecord/``."""
    (data / "input-tfrecord").mkdir(exist_ok=True)
    for source in (data / "input").iterdir():
        frames = [rayxform.tfrecord_frame(example_of(record)) for record in resnet18.read_lines(source)]
        (data / "input-tfrecord" / f"{source.stem}.tfrecord").write_bytes(b"".join(frames))


def example_of(record: dict[str, Any]) -> bytes:
    """A record of the JSON Lines job as a serialized tf.train.Example."""
    return rayxform.write_example(
        {
            "image": [base64.b64decode(record["inputs"])],
            "id": [record["id"]],
            "date": [record["date"].encode()],
            "label": [record["label"]],
        }
    )


def job_in(data: Path) -> dict[str, Any]:
    """Give the job's members with their paths below the data folder."""
    job: dict[str, Any] = yaml.safe_load(JOB_FILE.read_text(encoding="utf-8"))
    job["Model"].update(ModelDataUrl=str(data / "model.tar.gz"), SourceDir=str(JOB_FILE.parent))
    job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] = str(data / "input-tfrecord")
    job["TransformOutput"]["S3OutputPath"] = str(data / "output-tfrecord")
    return job


def read_back(data: Path) -> list[dict[str, Any]]:
    """Read all outputs, and check that each holds its input's records: every one, once, in order."""
    joined = []
    for source in sorted((data / "input").iterdir()):
        output = data / "output-tfrecord" / f"{source.stem}.tfrecord.out"
        if not output.exists():
            raise resnet18.MismatchError(f"{output} is missing")
        found = resnet18.read_lines(output)
        expected = [{name: record[name] for name in ("id", "label")} for record in resnet18.read_lines(source)]
        if [{name: value for name, value in line.items() if name != "SageMakerOutput"} for line in found] != expected:
            raise resnet18.MismatchError(f"{output} does not hold the records of {source}: {json.dumps(found[:3])} …")
        joined += found
    return joined


if __name__ == "__main__":
    sys.exit(main())
