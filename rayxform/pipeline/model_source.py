"""A job's model: its files on this machine and a handler from them, or its server.

Every worker calls this; what was fetched or unpacked once on a machine is used again by the next worker and the next job.
"""

from __future__ import annotations

import hashlib
import re
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from math import floor
from pathlib import Path
from typing import Final

from rayxform.cache import cache_folder, release
from rayxform.errors import ModelSourceError
from rayxform.model import (
    Arithmetic,
    Handler,
    InvocationContext,
    Model,
    ModelProcess,
    are_met,
    check_syntax,
    find_entry_point,
    install_requirements,
    unpack_model,
)
from rayxform.model.zygote import ModelZygote, imports_ahead
from rayxform.pipeline.model_server import check_endpoint, model_variables, open_server
from rayxform.spec import TransformJob
from rayxform.storage.reading import local_copy

_WORKING_FOLDERS: Final = "working_dir_files"
"""Where Ray unpacks the working folders of jobs, each in a folder that is named by its content."""


@dataclass(frozen=True)
class ModelFiles:
    """Where a model lies on this machine.

    Attributes:
        model_dir: what model_fn gets.
        entry_point: inference.py, or None if the defaults run.
    """

    model_dir: Path
    entry_point: Path | None


def locate_model(job: TransformJob) -> ModelFiles:
    """Fetch and unpack a job's model, and find its entry point, without running any of its code.

    Raises:
        ModelSourceError: there is no usable model.
        StorageError: it cannot be fetched.
    """
    cache = cache_folder()
    source_dir = _folder_of(job.source_dir, "Model.SourceDir", cache) if job.source_dir else None
    if job.model_data_url:
        model_dir = _folder_of(job.model_data_url, "Model.ModelDataUrl", cache)
    else:
        model_dir = cache / "models" / "none"
        model_dir.mkdir(parents=True, exist_ok=True)
    entry_point = find_entry_point(model_dir, source_dir, job.entry_point)
    if entry_point is not None:
        check_syntax(entry_point)
    return ModelFiles(model_dir, entry_point)


def check_model(job: TransformJob) -> ModelFiles | None:
    """Find what can be wrong with a job's model without running any of its code.

    Returns:
        Its files; None for a server.

    Raises:
        ModelSourceError: there is no usable model, or no server at Model.Endpoint.
        StorageError: it cannot be fetched.
    """
    if job.endpoint is not None:
        check_endpoint(job)
    return None if job.has_server else locate_model(job)


def arithmetic_of(job: TransformJob, model_digest: str) -> Arithmetic:
    """How a job's model is to compute on this machine."""
    return Arithmetic(job.precision, job.compile, job.model_micro_batch, model_digest, str(cache_folder() / "compiled"))


def load_model(
    job: TransformJob, threads: int | None, model_digest: str, busy_limit_s: float = 0.0, *, in_float32: bool = False
) -> Model:
    """Get the model ready for requests one by one: load it in this process, or reach or start its server.

    Args:
        job: the job.
        threads: how many threads the model's arithmetic may use; None leaves it to the libraries.
        model_digest: names the content of the model's files.
        busy_limit_s: how long a server that runs already may be too busy for a ``/ping``, in seconds; some at the least.
        in_float32: whether Precision is left out, and Compile with it, to compare with.

    Raises:
        ModelSourceError: there is no usable model.
        ModelLoadError: it cannot be loaded, or its server is not ready; carries the user's traceback or the server's output.
        StorageError: it cannot be fetched.
    """
    if job.has_server:
        return open_server(job, threads, busy_limit_s)
    files, packages = _fetch_handler(job)
    if packages is not None:
        sys.path.insert(0, str(packages))
    arithmetic = arithmetic_of(job, model_digest)
    arithmetic = replace(arithmetic, precision="float32", compile=False) if in_float32 else arithmetic
    return Handler.load(files.model_dir, files.entry_point, model_variables(job, files.entry_point), threads, arithmetic)


def start_model(
    job: TransformJob, threads: int | None, model_digest: str, busy_limit_s: float = 0.0, *, reads_input: bool = False
) -> Model:
    """Get the model ready for a whole job: load it in a process of its own, or reach or start its server.

    Args, and what is raised, are those of ``load_model``; with ``reads_input`` the process loads no model, and answers with
    what input_fn makes of a request.
    """
    if job.has_server:
        return open_server(job, threads, busy_limit_s)
    files, packages = _fetch_handler(job)
    variables = model_variables(job, files.entry_point)
    return ModelProcess(
        files.model_dir,
        files.entry_point,
        variables,
        threads,
        packages=packages,
        arithmetic=arithmetic_of(job, model_digest),
        timeout_s=job.invocations_timeout_s,
        reads_input=reads_input,
    )


def start_zygote(job: TransformJob, files: ModelFiles | None) -> ModelZygote | None:
    """Start what the processes of a job's model are forked from on this machine, where its code imports what takes long.

    It is made for as many threads as a worker has on a machine of its own (see ``plan_pool``); where that turns out otherwise,
    or the model brings packages, or the system has no such thing, each process starts by itself.
    """
    if files is None or sys.platform != "linux":
        return None
    requirements = _requirements_of(files)
    imports = imports_ahead(files.entry_point) if requirements is None or are_met(requirements) else []
    if not imports:
        return None
    uses_gpus = any(Path("/dev").glob("nvidia[0-9]*")) if job.gpus_per_worker is None else job.gpus_per_worker > 0
    threads = None if uses_gpus else max(1, floor(job.cpus_per_worker or 1))
    with suppress(OSError):
        return ModelZygote(imports, model_variables(job, files.entry_point), threads)
    return None


def request_context(
    job: TransformJob, model_dir: str, key: str, first_record: int, n_records: int, attempt: int = 1
) -> InvocationContext:
    """What a job's model is told of a request.

    Args:
        job: the job.
        model_dir: the unpacked model's folder, as the model has it.
        key: the input's key.
        first_record: the request's first record, from 0.
        n_records: how many it holds.
        attempt: which one this is, from 1.
    """
    content_type = job.content_type or "application/octet-stream"
    return InvocationContext(key, first_record, n_records, attempt, content_type, job.effective_accept, model_dir)


def _fetch_handler(job: TransformJob) -> tuple[ModelFiles, Path | None]:
    """An inference.py's files on this machine, and the folder of what its requirements.txt asks for, or None."""
    files = locate_model(job)
    requirements = _requirements_of(files)
    if requirements is None:
        return files, None
    return files, install_requirements(requirements, cache_folder() / "packages", job.environment)


def _requirements_of(files: ModelFiles) -> Path | None:
    requirements = None if files.entry_point is None else files.entry_point.parent / "requirements.txt"
    return requirements if requirements is not None and requirements.is_file() else None


def _folder_of(url: str, member: str, cache: Path) -> Path:
    """A folder of this machine with what a URL names: a folder, or what is in an archive."""
    path = local_copy(_on_this_node(url), cache / "fetched" / hashlib.sha256(url.encode()).hexdigest()[:32])
    if path is None:
        raise ModelSourceError(f"{member} is {url!r}, but nothing is there; name a model.tar.gz or a folder")
    if path.is_dir():
        return path
    unpacked = unpack_model(path, cache / "models")
    release(path)
    return unpacked


def _on_this_node(url: str) -> str:
    """A path in the driver's working folder, in this worker's: Ray unpacks it on every node, and may do so elsewhere there."""
    here = Path.cwd()
    below = re.fullmatch(rf"/.*/{_WORKING_FOLDERS}/{re.escape(here.name)}/(.+)", url)
    return str(here / below[1]) if below is not None and here.parent.name == _WORKING_FOLDERS else url
