"""A job's HTTP model server: reached where it runs (Model.Endpoint), or started in this process (Model.Command)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from rayxform.errors import ModelLoadError, ModelSourceError
from rayxform.model import sagemaker_environment
from rayxform.spec import TransformJob

if TYPE_CHECKING:
    from rayxform.model.command import CommandServer
    from rayxform.model.server import ServerClient

ENDPOINT_LIMIT_S = 5.0
"""How long to wait for a server that is said to run already."""


def open_server(job: TransformJob, threads: int | None, busy_limit_s: float = 0.0) -> ServerClient | CommandServer:
    """The job's server, once it answers ``/ping``.

    Args:
        job: the job.
        threads: OMP_NUM_THREADS of a server that is started; None leaves it to the server.
        busy_limit_s: how long a server that runs already may be too busy for a ``/ping``, in seconds; some at the least.

    Raises:
        ModelLoadError: it is not there, ended, or did not get ready.
        ModelSourceError: rayxform was installed without its client.
    """
    try:
        from rayxform.model.command import CommandServer  # noqa: PLC0415 - aiohttp is an extra
        from rayxform.model.server import ServerClient  # noqa: PLC0415
    except ImportError as error:
        problem = f"Model.Endpoint and Model.Command need a package that is not there: {error}"
        raise ModelSourceError(f"{problem}; pip install 'rayxform[http]'") from error
    timeout_s, chunked = job.invocations_timeout_s, job.max_payload_bytes is None
    if job.command is not None:
        return CommandServer(job.command, _environment(job, threads), timeout_s=timeout_s, chunked=chunked)
    client = ServerClient(job.endpoint or "", timeout_s=timeout_s, chunked=chunked)
    try:
        client.wait_until_ready(ENDPOINT_LIMIT_S, max(busy_limit_s, ENDPOINT_LIMIT_S))
    except ModelLoadError:
        client.close()
        raise
    return client


def settle_parameters(job: TransformJob) -> TransformJob:
    """The job with its server's execution parameters, which are asked for only if the job file leaves some of them open.

    How records are packed follows from them, so they have to be known before there is a plan. A server that each worker
    starts for itself is started here for it, and ended.

    Raises:
        ModelSourceError: a server that should be running is not there.
        ModelLoadError: a server that is started here ends or does not get ready, or an answer is not what AWS describes.
    """
    if not job.asks_server:
        return job
    with _server(job) as server:
        return replace(job, server_parameters=server.execution_parameters())


def check_endpoint(job: TransformJob) -> None:
    """Find out whether the server that should be running is there.

    Raises:
        ModelSourceError: it is not.
    """
    with _server(job):
        pass


@contextmanager
def _server(job: TransformJob) -> Iterator[ServerClient | CommandServer]:
    """The job's server for a moment, on the driver: one that is not there refuses the job."""
    try:
        server = open_server(job, None)
    except ModelLoadError as error:
        if job.endpoint is None:
            raise
        raise ModelSourceError(f"Model.Endpoint: {error.message}; start the server first") from error
    try:
        yield server
    finally:
        server.close()


def _environment(job: TransformJob, threads: int | None) -> dict[str, str]:
    """The worker's environment, and what SageMaker adds to it."""
    inherited = dict(os.environ)
    # Ray lets its own workers compute with as many threads as they reserve CPUs; a server uses the machine's cores itself.
    if "OMP_NUM_THREADS" not in psutil.Process().environ():
        inherited.pop("OMP_NUM_THREADS", None)
    if threads is not None:
        inherited["OMP_NUM_THREADS"] = str(threads)
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return inherited | {"PATH": programs} | model_variables(job, None)


def model_variables(job: TransformJob, entry_point: Path | None) -> dict[str, str]:
    """The environment variables of a job's model: SageMaker's, of which three are there only if the job sets what they say."""
    given = job.given_parameters
    return sagemaker_environment(
        entry_point=entry_point,
        max_payload_in_mb=given.max_payload_in_mb,
        batch_strategy=given.batch_strategy,
        max_concurrent_transforms=given.max_concurrent_transforms,
        environment=job.environment,
    )
