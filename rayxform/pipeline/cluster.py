"""Ray itself: joined where it runs, else started here, quietly and fast."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import ray
import ray.exceptions

from rayxform.errors import EngineError
from rayxform.pipeline.fork_server import ForkServer
from rayxform.pipeline.pool import Resources

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_USAGE_DISABLED": "1",
    "RAY_verbose_spill_logs": "0",
    "RAY_TQDM": "0",
    # Ray's core logs to the terminal what concerns Ray's developers; its log files keep everything from errors on.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

_LOCAL = {
    # A reader that has nothing to read for a second would end, and another start when there is: 0.5 and 1.3 s of a core.
    "RAY_idle_worker_killing_time_threshold_ms": "86400000",
}


_LOWEST_PRIORITY = 19


@contextmanager
def ray_session(address: str | None) -> Iterator[Resources]:
    """A connection to Ray for the time of a job.

    A connection that is there already is used and left as it is; else the cluster at ``address`` or RAY_ADDRESS is joined;
    else Ray is started on this machine and ended with the job.

    Args:
        address: a cluster's address, or None.

    Yields:
        What the cluster has.

    Raises:
        EngineError: Ray does not start, or no cluster is at the address.
    """
    ours = not ray.is_initialized()
    fork_server = _connect(address or os.environ.get("RAY_ADDRESS") or "local") if ours else None
    try:
        there = ray.cluster_resources()
        nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        smallest = min((cpus for cpus in nodes if cpus), default=None)
        yield Resources(there.get("CPU", 0.0), there.get("GPU", 0.0), there.get("memory", 0.0), smallest)
    finally:
        if ours:
            ray.shutdown()
        if fork_server:
            fork_server.end()


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


def _connect(address: str) -> ForkServer | None:
    is_local = address == "local"
    for name, value in (_QUIET | (_LOCAL if is_local else {})).items():
        os.environ.setdefault(name, value)
    local = {"include_dashboard": False} if is_local else {}
    fork_server = _start_fork_server() if is_local else None
    try:
        with _quiet_stderr(), fork_server.serving() if fork_server else nullcontext():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (OSError, RuntimeError, ValueError) as error:
        if fork_server:
            fork_server.end()
        where = "start Ray on this machine" if is_local else f"join the Ray cluster at {address}"
        raise EngineError(f"cannot {where}: {error}; see the logs below /tmp/ray/session_latest/logs") from error
    quiet_logs()
    # Else a thread of Ray's prints on stdout, amidst what we print, that a worker ended; where that matters, rayxform says so.
    ray._private.worker._worker_logs_enabled = False  # noqa: SLF001 - there is no public way
    return fork_server


def _start_fork_server() -> ForkServer | None:
    """A fork server, where processes may be forked and nobody said RAYXFORM_FORK_WORKERS=0."""
    if sys.platform != "linux" or os.environ.get("RAYXFORM_FORK_WORKERS") == "0":
        return None
    with suppress(OSError):  # Ray's workers then start as they always do
        return ForkServer()
    return None


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
