"""``run``, ``plan``, ``check``, ``status`` and ``stop``: what one does with a job."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Union

from rayxform.cache import released
from rayxform.model.zygote import serving_zygote
from rayxform.pipeline.fork_server import warming_up
from rayxform.pipeline.inspecting import CheckReport, JobPlan, check_first, plan_requests
from rayxform.pipeline.model_source import check_model, start_zygote
from rayxform.pipeline.planning import Plan, make_plan, output_of
from rayxform.pipeline.result import JobResult, Progress
from rayxform.pipeline.status import JobStatus, read_status, stop_run
from rayxform.spec import TransformJob, load_job, parse_job
from rayxform.storage.reading import read_text

Job = Union[str, "os.PathLike[str]", Mapping[str, Any], TransformJob]
"""A job file's path or URL, a mapping with a job file's members, or a job."""

Watch = Callable[[Callable[[], Progress]], Any]


def run(
    job: Job,
    *,
    overrides: Sequence[str] = (),
    workers: int | None = None,
    address: str | None = None,
    restart: bool = False,
    within: Sequence[str] = (),
    began_at: float | None = None,
    watch: Watch | None = None,
) -> JobResult:
    """Run a job to its end; one that was cut short goes on from where it was.

    Args:
        job: a job file, its members, or a job.
        overrides: ``Path.To.Member=VALUE``, each replacing a member of a job file.
        workers: the size of the actor pool; None for the job's own, else one worker a GPU, or a core where there are none;
            for a model server InstanceCount, else one for Endpoint, and for Command one a GPU, or one.
        address: a Ray cluster's address; None for RAY_ADDRESS, else Ray is started on this machine and ended afterwards.
        restart: whether to begin anew, whatever an earlier run left.
        within: URLs and paths; the job may read and write what lies below them, and nothing else. Empty for no limit.
        began_at: when the command was given, as Unix time in seconds; None for now.
        watch: called once with a function that tells the progress at any time, from any thread.

    Returns:
        What the job came to; a job whose records or model fail comes back with the status "Failed", and is not raised.

    Raises:
        JobError: the job is refused: it is wrong, there is no input object, no usable model, no output folder that can be
            written, or not enough of a resource; another run of it is going on; or it is not what it was when an earlier run
            was cut short.
        StorageError: the input cannot be listed, or the output not written at all.
        EngineError: Ray failed.
    """
    began_at = began_at or time.time()
    with warming_up(address) as fork_server, released():
        plan_ = make_plan(*read_job(job, overrides), within=within)
        model = check_model(plan_.job)
        plan_.output.check()
        with serving_zygote(start_zygote(plan_.job, model) if fork_server else None):
            # Ray takes its time to import, so a refused job should not wait for it.
            from rayxform.pipeline.run import run_plan  # noqa: PLC0415

            return run_plan(
                plan_,
                model=model,
                workers=workers,
                address=address,
                restart=restart,
                began_at=began_at,
                watch=watch,
                fork_server=fork_server,
            )


def plan(job: Job, *, overrides: Sequence[str] = ()) -> JobPlan:
    """What a job will send: the requests of every input, and every error it will meet; without Ray, and without the model.

    Only a model server is asked, for the members of the job that decide on requests and that it leaves open.

    Args:
        job: a job file, its members, or a job.
        overrides: ``Path.To.Member=VALUE``, each replacing a member of a job file.

    Raises:
        JobError: the job is refused: it is wrong, or there is no input object.
        StorageError: the input cannot be listed.
    """
    return plan_requests(_plan(job, overrides))


def check(job: Job, *, overrides: Sequence[str] = (), threads: int | None = None) -> CheckReport:
    """Load the model in this process, without Ray, or reach or start its server, and run the job's first mini-batch.

    This changes the process as a model server's would be: its environment variables, sys.path and torch's threads.

    Args:
        job: a job file, its members, or a job.
        overrides: ``Path.To.Member=VALUE``, each replacing a member of a job file.
        threads: how many threads the model's arithmetic may use; None leaves it to the libraries.

    Raises:
        JobError: the job is refused: it is wrong, there is no input object, or no usable model.
        RecordError: the first record cannot be sent, or its prediction cannot be joined.
        ModelError: the model cannot be loaded, fails, or answers what cannot be cut to records.
    """
    with released():
        return check_first(_plan(job, overrides), threads)


def status(job: Job, *, overrides: Sequence[str] = ()) -> JobStatus:
    """How far a job is, or what it came to: from its state folder alone, while it runs, from anywhere, or long after.

    Args:
        job: a job file, its members, or a job.
        overrides: ``Path.To.Member=VALUE``, each replacing a member of a job file.

    Raises:
        JobError: the job is wrong, or was never run.
        StorageError: its state cannot be read.
    """
    return read_status(output_of(*read_job(job, overrides)))


def stop(job: Job, *, overrides: Sequence[str] = (), timeout_s: float = 10.0) -> None:
    """End the run of a job that goes on, on whatever machine; the same job then goes on from there.

    Args:
        job: a job file, its members, or a job.
        overrides: ``Path.To.Member=VALUE``, each replacing a member of a job file.
        timeout_s: how long to wait for its end, in seconds.

    Raises:
        JobError: the job is wrong, or no run of it goes on.
        EngineError: it did not end in time.
        StorageError: its state cannot be read or written.
    """
    stop_run(output_of(*read_job(job, overrides)), timeout_s)


def _plan(job: Job, overrides: Sequence[str]) -> Plan:
    return make_plan(*read_job(job, overrides))


def read_job(job: Job, overrides: Sequence[str] = ()) -> tuple[TransformJob, str]:
    """A job, and what names it if it has no name.

    Args:
        job: a job file, its members, or a job.
        overrides: ``Path.To.Member=VALUE``, each replacing a member of a job file.

    Raises:
        JobFileError: it is wrong.
        StorageError: it cannot be read.
    """
    if isinstance(job, TransformJob):
        return job, "job"
    if isinstance(job, Mapping):
        return parse_job(job), "job"
    path = os.fspath(job)
    base = path.rpartition("/")[0]
    return load_job(read_text(path), base=base, overrides=overrides, origin=path), PurePosixPath(path).name
