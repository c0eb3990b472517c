"""What objects are called: outputs, parts, and the job's state beside its output."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from urllib.parse import quote

OUTPUT_SUFFIX = ".out"
STATE_FOLDER = ".rayxform"
DATASET_RECORD = "dataset.json"
ERRORS_SUFFIX = ".errors"
"""What is appended to a part's name for the list of its bad records."""
END_SUFFIX = ".end"
"""What is appended to the name of an output that grows in place for how much of it counts."""
GROWING = "growing"
"""What an output is called while it grows in place."""
_LONGEST_STEM = 240


def output_key(input_key: str) -> str:
    """The output's key below S3OutputPath for an input's key below the S3Uri prefix: ``a/b.jsonl`` → ``a/b.jsonl.out``.

    Source: AWS, "Use Batch Transform": ``.out`` is appended to the whole name, and folders below the prefix are kept.
    """
    return input_key + OUTPUT_SUFFIX


def key_below(prefix: str, key: str) -> str:
    """The name of an object below S3Uri, which is a string prefix of its key.

    What S3Uri takes for a folder is left out (``in`` and ``in/a`` → ``a``), and else what is one before its last slash
    (``data/in`` and ``data/in2/a`` → ``in2/a``, ``data/in`` itself → ``in``). Source: what public notebooks show of AWS's
    names; of a prefix that is no folder they show none.
    """
    folder = prefix if prefix.endswith("/") or not prefix else f"{prefix}/"
    return key.removeprefix(folder if key.startswith(folder) else prefix[: prefix.rfind("/") + 1]).lstrip("/")


def part_name(file_index: int, first_record: int, n_records: int) -> str:
    """The name of a part: file, first record and count, so that the parts of a file tile it and sort in record order."""
    return f"{file_index:08d}/{first_record:015d}-{n_records:09d}.part"


def growing_name(file_index: int) -> str:
    """The name of a file's output while it grows in place, among its parts."""
    return f"{file_index:08d}/{GROWING}"


def is_growing(path: str) -> bool:
    """Whether a path is that of an output that grows in place, and not of a part."""
    return path.rpartition("/")[2] == GROWING


def data_file_name(input_key: str, extension: str) -> str:
    """The name of an input's files in the partitions of a data set: ``a/b.jsonl`` → ``a%2Fb.jsonl.parquet``.

    Readers of data sets pass over names that begin with ``.`` or ``_``, so that is quoted too. A name that would be too long
    for a disk ends with a digest of the key.
    """
    name = re.sub(r"^[._]", lambda found: f"%{ord(found[0]):02X}", quote(input_key, safe=""))
    if len(name) > _LONGEST_STEM:
        name = f"{name[: _LONGEST_STEM - 33]}-{hashlib.sha256(input_key.encode()).hexdigest()[:32]}"
    return f"{name}.{extension}"


def job_name(origin: str) -> str:
    """A TransformJobName for a job that has none, from its file's name: AWS's characters, at most 63 of them."""
    stem = re.sub(r"[^a-zA-Z0-9]+", "-", PurePosixPath(origin).stem).strip("-")
    return stem[:63].rstrip("-") or "job"
