"""The job of ``resnet18.py`` over TFRecord: the same digits as tf.train.Example, the same model, the same check.

On this machine, then on a Ray cluster::

    python jobs/resnet18_tfrecord.py
    ray job submit --working-dir . -- python jobs/resnet18_tfrecord.py

Exit codes are those of ``resnet18.py``.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from jobs.resnet18 import JOB_FILE, Variant, main, rayxform, read_lines


def write_shards(data: Path) -> None:
    """Write the records of ``input/`` as TFRecord files below ``input-tfrecord/``."""
    (data / "input-tfrecord").mkdir(exist_ok=True)
    for source in (data / "input").iterdir():
        frames = [rayxform.tfrecord_frame(example_of(record)) for record in read_lines(source)]
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


TFRECORDS = Variant(
    JOB_FILE.with_name("job_tfrecord.yaml"), "-tfrecord", "tfrecord", kept=("id", "label"), prepare=write_shards
)

if __name__ == "__main__":
    sys.exit(main(variant=TFRECORDS))
