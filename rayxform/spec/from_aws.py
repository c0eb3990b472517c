"""From AWS's answers to a job file's members: DescribeTransformJob gives the job, a model's container the ``Model``.

Source: the API reference, DescribeTransformJob, DescribeModel and ContainerDefinition; the two variables are those by which
the SageMaker Python SDK tells a framework's container where its code is (``sagemaker.model.FrameworkModel``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rayxform.errors import JobFileError, Problem
from rayxform.spec.problems import shown
from rayxform.spec.schema import member_node

PROGRAM: Final = "SAGEMAKER_PROGRAM"
SUBMIT_DIRECTORY: Final = "SAGEMAKER_SUBMIT_DIRECTORY"

_OURS: Final = ("Model", "Rayxform")
_WHOLE: Final = ("Environment", "Tags")
"""Members whose own values may be empty."""
_IN_ARCHIVE: Final = ("/opt/ml/model", "/opt/ml/model/code")
"""Where a container has what the archive held."""
_DESCRIBED_JOB: Final = "the answer of `aws sagemaker describe-transform-job`"
_DESCRIBED_MODEL: Final = "the answer of `aws sagemaker describe-model`"


def job_members(described: Mapping[str, Any]) -> dict[str, Any]:
    """What CreateTransformJob was called with, from what DescribeTransformJob answers; it behaves as on AWS.

    ARNs, status, times, FailureReason and what boto3 adds are left out, and so are values that AWS fills in with nothing.

    Args:
        described: the answer.

    Returns:
        A job file's members, without ``Model``, in the answer's order.

    Raises:
        JobFileError: it is another answer.
    """
    known = [name for name in (member_node(()) or {})["properties"] if name not in _OURS]
    for name in ("TransformInput", "TransformOutput"):
        if not isinstance(described.get(name), Mapping):
            raise JobFileError([Problem(name, shown(described.get(name)), "an object", f"Give {_DESCRIBED_JOB}.")])
    members = {name: value for name, value in described.items() if name in known}
    return {**_without_empty(members), "Rayxform": {"Compatibility": "aws"}}


def container_of(described: Mapping[str, Any]) -> Mapping[str, Any]:
    """The container in what DescribeModel answers, or CreateModel is called with.

    Raises:
        JobFileError: there is none, or a pipeline of several.
    """
    containers = described.get("Containers") or [described.get("PrimaryContainer")]
    if isinstance(containers, list) and len(containers) == 1 and isinstance(containers[0], Mapping):
        return containers[0]
    name = "Containers" if described.get("Containers") else "PrimaryContainer"
    remedy = f"Give {_DESCRIBED_MODEL}; of a pipeline of several containers, each is a job of its own here."
    raise JobFileError([Problem(name, shown(described.get(name)), "one container", remedy)])


def model_members(container: Mapping[str, Any]) -> dict[str, Any]:
    """A job file's ``Model`` for a model's container.

    ModelDataUrl, or the S3Uri of ModelDataSource, stays. SAGEMAKER_PROGRAM becomes EntryPoint, and SAGEMAKER_SUBMIT_DIRECTORY
    SourceDir, unless it means the archive's own ``code/``. Other variables stay; the image and the rest have no effect here.

    Args:
        container: AWS's ContainerDefinition.

    Raises:
        JobFileError: it names neither a model nor code.
    """
    environment = dict(container.get("Environment") or {})
    program, source = environment.pop(PROGRAM, ""), environment.pop(SUBMIT_DIRECTORY, "")
    s3_source = (container.get("ModelDataSource") or {}).get("S3DataSource") or {}
    members = {
        "ModelDataUrl": container.get("ModelDataUrl") or s3_source.get("S3Uri"),
        "EntryPoint": program,
        "SourceDir": "" if source.rstrip("/") in _IN_ARCHIVE else source,
        "Environment": environment,
    }
    if not members["ModelDataUrl"] and not members["SourceDir"]:
        limit = "the location of a model.tar.gz, or of a folder"
        remedy = "A model that is part of the image cannot be used here: pack it into a model.tar.gz."
        raise JobFileError([Problem("PrimaryContainer.ModelDataUrl", None, limit, remedy)])
    return {name: value for name, value in members.items() if value}


def _without_empty(members: Mapping[str, Any]) -> dict[str, Any]:
    """The members but for those that hold nothing, at any depth."""
    kept = {
        name: _without_empty(value) if isinstance(value, Mapping) and name not in _WHOLE else value
        for name, value in members.items()
    }
    return {name: value for name, value in kept.items() if value not in (None, "", {}, [])}
