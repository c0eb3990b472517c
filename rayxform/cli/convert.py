"""``rayxform convert``: what AWS says of a transform job, as a job file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayxform.errors import JobError, JobFileError
from rayxform.spec import container_of, job_members, model_members, parse_job, to_yaml

_FILL_IN = "# Model: {ModelDataUrl: model.tar.gz}  # fill in where the model is: a path or a URL; see `rayxform schema`\n"
_NO_MODEL = (
    "rayxform: the job file has no Model yet; fill it in, or convert again with --model (the answer of `aws sagemaker "
    "describe-model`), --model-data-url or --source-dir"
)


def convert(options: argparse.Namespace) -> int:
    """Print the job file; what rayxform will refuse of it, and what is missing, is said on stderr.

    Raises:
        JobError: the input cannot be read, or is not AWS's answer.
    """
    members = job_members(_read(options.file))
    model = _model(options)
    if model:
        members["Model"] = model
    try:
        parse_job(members if model else {**members, "Model": {"ModelDataUrl": "model.tar.gz"}})
    except JobFileError as error:
        print(f"rayxform: `rayxform run` will refuse this job until it is changed:\n{error}", file=sys.stderr)
    if not model:
        print(_NO_MODEL, file=sys.stderr)
    if options.json:
        print(json.dumps(members, indent=2, ensure_ascii=False))
    else:
        print(to_yaml(members) + ("" if model else _FILL_IN), end="")
    return 0


def _model(options: argparse.Namespace) -> dict[str, Any]:
    found = model_members(container_of(_read(options.model))) if options.model else {}
    given = {"ModelDataUrl": options.model_data_url, "EntryPoint": options.entry_point, "SourceDir": options.source_dir}
    return found | {name: value for name, value in given.items() if value}


def _read(place: str) -> Mapping[str, Any]:
    """The JSON object in a file, or on stdin for "-"."""
    name = "stdin" if place == "-" else place
    try:
        found = json.loads(sys.stdin.read() if place == "-" else Path(place).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise JobError(f"{name} cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise JobError(f"{name} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}; {_WANTED}") from error
    except (ValueError, RecursionError) as error:
        raise JobError(f"{name} is not JSON: {error}; {_WANTED}") from error
    if not isinstance(found, dict):
        raise JobError(f"{name} holds {type(found).__name__}, not an object; {_WANTED}")
    return found


_WANTED = "give it what `aws sagemaker describe-transform-job` prints"
