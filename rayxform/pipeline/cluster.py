"""Ray itself: joined where it runs, else started here, quietly and fast."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import ray
import ray.exceptions

from rayxform.errors import EngineError
from rayxform.pipeline.fork_server import ForkServer
from rayxform.pipeline.pool import Resources
from rayxform.pipeline.ray_environment import address_of_ray, set_variables

_LOWEST_PRIORITY = 19


@contextmanager
def ray_session(address: str | None, fork_server: ForkServer | None = None) -> Iterator[Resources]:
    """A connection to Ray for the time of a job.

    A connection that is there already is used and left as it is; else the cluster at ``address`` or RAY_ADDRESS is joined;
    else Ray is started on this machine and ended with the job.

    Args:
        address: a cluster's address, or None.
        fork_server: what forks the workers of a Ray that is started here; None to have them start one by one.

    Yields:
        What the cluster has.

    Raises:
        EngineError: Ray does not start, or no cluster is at the address.
    """
    ours = not ray.is_initialized()
    if ours:
        _connect(address_of_ray(address), fork_server)
    try:
        there = ray.cluster_resources()
        nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        smallest = min((cpus for cpus in nodes if cpus), default=None)
        yield Resources(there.get("CPU", 0.0), there.get("GPU", 0.0), there.get("memory", 0.0), smallest)
    finally:
        if ours:
            ray.shutdown()
            _let_ray_print(allowed=True)  # the process may go on to use Ray for itself


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep off the terminal the line by which Ray's core says that it was told to keep quiet."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _connect(address: str | None, fork_server: ForkServer | None) -> None:
    is_local = address is None
    set_variables(is_local=is_local)
    local = {"include_dashboard": False} if is_local else {}
    try:
        with _quiet_stderr(), fork_server.serving() if is_local and fork_server else nullcontext():
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    except (OSError, RuntimeError, ValueError) as error:
        where = "start Ray on this machine" if is_local else f"join the Ray cluster at {address}"
        raise EngineError(f"cannot {where}: {error}; see the logs below /tmp/ray/session_latest/logs") from error
    quiet_logs()
    _let_ray_print(allowed=False)


def _let_ray_print(*, allowed: bool) -> None:
    """Whether a thread of Ray's prints on stdout, amidst what we print, that a worker ended; rayxform says what matters."""
    ray._private.worker._worker_logs_enabled = allowed  # noqa: SLF001 - there is no public way


def quiet_logs() -> None:
    """Keep off the terminal what Ray says of itself; to be called again when Ray Data is imported, which begins anew."""
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


def import_ray_data() -> None:
    """Import Ray Data while Ray starts as processes of its own: half a second of what they leave of the cores.

    A Ray that registers its node within a second is found at once, else at the next second; so this must not be in its way.
    """
    if sys.platform == "linux":  # where priorities are a thread's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
    importlib.import_module("rayxform.pipeline.dataset")


@contextmanager
def engine_errors() -> Iterator[None]:
    """The one place where Ray's exceptions become rayxform's."""
    try:
        yield
    except ray.exceptions.RayError as error:
        raise EngineError(f"Ray failed: {type(error).__name__}: {error}") from error
