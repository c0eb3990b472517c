"""What the bytes of a job's output depend on, so that a job that was cut short goes on as what it was, or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from rayxform.core.inference_ids import InferenceIds
from rayxform.model import file_digest
from rayxform.pipeline.model_source import ModelFiles, locate_model
from rayxform.spec import TransformJob

FORMAT: Final = 1
"""Changes when a later rayxform cannot go on with what an earlier one wrote."""

_INDIFFERENT: Final = (
    "TransformJobName",
    "ModelName",
    "TransformResources",
    "MaxConcurrentTransforms",
    "ModelClientConfig",
    "Tags",
    "ExperimentConfig",
    "TransformInput.DataSource",
    "TransformOutput.S3OutputPath",
    "TransformOutput.KmsKeyId",
    "DataCaptureConfig.DestinationS3Uri",
    "DataCaptureConfig.KmsKeyId",
    "Rayxform.CpusPerWorker",
    "Rayxform.GpusPerWorker",
    "Rayxform.MemoryPerWorkerInMB",
    "Rayxform.StageInput",
    "Rayxform.WaitForNodesInSeconds",
    "Model.ModelDataUrl",
    "Model.SourceDir",
)
"""Members that change how a job runs but not what it writes, or whose content is looked at instead of their names."""


class Fingerprint(msgspec.Struct, rename="pascal"):
    """``plan.json``.

    Attributes:
        format: of the state folder.
        members: the job's members that its output depends on: path → value.
        model: the model's files: path → SHA-256.
        run: the UUID that ids of results are made from.
        started_at: when the job first began, as Unix time in seconds.
    """

    format: int
    members: dict[str, Any]
    model: dict[str, str]
    run: str
    started_at: float

    @property
    def model_digest(self) -> str:
        """The model's files in one SHA-256."""
        return digest_of(self.model)

    @property
    def inference_ids(self) -> InferenceIds:
        """What makes the ids of results, which stay the same however often the job goes on."""
        return InferenceIds(self.run, self.started_at)


def fingerprint(job: TransformJob, run: str, started_at: float, model: ModelFiles | None = None) -> Fingerprint:
    """A job's fingerprint; reads all of the model's files.

    Args:
        job: the job.
        run: see ``Fingerprint``.
        started_at: see there.
        model: the model's files, where they have been looked for; of a server there are none.

    Raises:
        ModelSourceError: there is no usable model.
        StorageError: it cannot be fetched.
    """
    given = job.members.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    members = {path: value for path, value in _flat(given) if not _is_indifferent(path)}
    settled = {"MaxPayloadInMB": job.max_payload_in_mb, "BatchStrategy": job.batch_strategy}
    return Fingerprint(FORMAT, members | settled, model_digests(job, model), run, started_at)


def digest_of(model: Mapping[str, str]) -> str:
    """The model's files, as ``model_digests`` gives them, in one SHA-256."""
    return hashlib.sha256(repr(sorted(model.items())).encode()).hexdigest()


def what_changed(before: Fingerprint, now: Fingerprint) -> list[str]:
    """What differs between the fingerprints of two runs, in words; empty if one can go on where the other was cut short."""
    if before.format != now.format:
        return [f"the state folder has format {before.format}, this rayxform writes {now.format}"]
    changed = [
        f"{path} was {_shown(before.members.get(path))}, is {_shown(now.members.get(path))}"
        for path in sorted(before.members.keys() | now.members.keys())
        if before.members.get(path) != now.members.get(path) and not _only_lets_pass(path, before)
    ]
    for name in sorted(before.model.keys() | now.model.keys()):
        if name not in now.model:
            changed.append(f"the model's {name} is gone")
        elif name not in before.model:
            changed.append(f"the model's {name} is new")
        elif before.model[name] != now.model[name]:
            changed.append(f"the model's {name} is not what it was")
    return changed


def _only_lets_pass(path: str, before: Fingerprint) -> bool:
    """What is written under OnRecordError fail holds no bad record, so it is the same under skip and placeholder."""
    return path == "Rayxform.OnRecordError" and before.members.get(path, "fail") == "fail"


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)


def _flat(members: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in members.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _is_indifferent(path: str) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in _INDIFFERENT)


def model_digests(job: TransformJob, model: ModelFiles | None = None) -> dict[str, str]:
    """The SHA-256 of each of the model's files; empty for a server. Args, and what is raised, are ``fingerprint``'s."""
    if job.has_server:
        return {}
    files = model or locate_model(job)
    data = tuple(Path(uri) for uri in (job.input_uri, job.output_uri) if uri.startswith("/"))
    paths = {f"model/{path.relative_to(files.model_dir)}": path for path in _files_of(files.model_dir, data)}
    if files.entry_point is not None:
        code = files.entry_point.parent
        paths |= {f"code/{path.relative_to(code)}": path for path in _files_of(code, data) if _is_code(path)}
    return {name: _sha256(path) for name, path in sorted(paths.items())}


def _files_of(folder: Path, data: Sequence[Path]) -> Iterator[Path]:
    """The files below a folder; not what Python leaves there, nor what is hidden, nor the job's data."""
    for at, folders, names in os.walk(folder):
        place = Path(at)
        folders[:] = sorted(name for name in folders if name != "__pycache__" and name[0] != "." and place / name not in data)
        yield from (place / name for name in sorted(names) if name[0] != ".")


def _is_code(path: Path) -> bool:
    """A folder of code may hold anything beside it, a job's data included."""
    return path.suffix == ".py" or path.name == "requirements.txt"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file)
