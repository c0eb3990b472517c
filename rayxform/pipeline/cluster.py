"""Ray itself: joined where it runs, else started here, quietly and fast."""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from functools import partial

import ray
import ray.exceptions

# Where Ray itself has them; there is no public way.
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.util.placement_group import placement_group, remove_placement_group

from rayxform.ending import own_sigterm
from rayxform.errors import EngineError
from rayxform.pipeline.fork_server import ForkServer
from rayxform.pipeline.pool import Resources
from rayxform.pipeline.ray_environment import address_of_ray, set_variables
from rayxform.priority import give_way

_Start = Callable[[Callable[[], object]], None]
"""Calls what starts Ray."""

_AUTH_MODE, _AUTH_TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"

_NEVER_RAN = "cancelled before it started running"
_TOKENS_DIFFER = (
    "\nRay takes a worker's owner for lost where this process has a token (RAY_AUTH_TOKEN, ~/.ray/auth_token) and the cluster "
    "asks for none: set RAY_AUTH_MODE=disabled"
)


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
    if ray.is_initialized():
        yield cluster_resources()
        return
    address = address_of_ray(address)
    is_local = address is None
    with _private_token() if is_local else nullcontext(), _uninterrupted() if is_local else nullcontext(_at_once) as start:
        try:
            _connect(address, fork_server, start)
            yield cluster_resources(may_grow=not is_local)
        finally:
            with own_sigterm() as keep_sigterm:
                _shut_down(keep_sigterm)
            _let_ray_print(allowed=True)  # the process may go on to use Ray for itself


def cluster_resources(*, may_grow: bool = True) -> Resources:
    """What the cluster has that this process has joined."""
    there = ray.cluster_resources()
    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    smallest = min((cpus for cpus in nodes if cpus), default=None)
    return Resources(there.get("CPU", 0.0), there.get("GPU", 0.0), there.get("memory", 0.0), smallest, may_grow=may_grow)


@contextmanager
def demand(bundle: Mapping[str, float], number: int) -> Iterator[None]:
    """Let the cluster's autoscaler see that so many bundles of resources are needed, until the context, or this process, ends.

    It is asked by a placement group, which is this job's own; ``request_resources`` has one answer for the whole cluster.
    """
    group = placement_group([dict(bundle)] * number)
    try:
        yield
    finally:
        remove_placement_group(group)


@contextmanager
def _private_token() -> Iterator[None]:
    """A token for a Ray that is started here, where nobody has set one, or how its processes are to know each other.

    Ray 2.60 asks for one by default, and where there is none writes one to ``~/.ray/auth_token``. That fails where the home
    folder cannot be written, as in many a container, and what it leaves there is then taken to clusters that ask for none,
    which lose their workers for it.
    """
    loader = AuthenticationTokenLoader.instance()
    if _AUTH_MODE in os.environ or loader.has_token(ignore_auth_mode=True):
        yield
        return
    os.environ[_AUTH_TOKEN] = secrets.token_hex(32)
    loader.reset_cache()
    try:
        yield
    finally:
        for name in (_AUTH_MODE, _AUTH_TOKEN):  # Ray sets the mode
            os.environ.pop(name, None)
        Config.initialize("")
        loader.reset_cache()


@contextmanager
def _uninterrupted() -> Iterator[_Start]:
    """For the start of a Ray of this machine: what interrupts this thread meanwhile is raised when that is done.

    Ray forks with ``preexec_fn``. An exception that a signal raises in what Python calls around that (``os.register_at_fork``)
    is only printed, and the lock that logging holds there is never given back: a stop was lost, and the job hung for ever.

    Yields:
        What starts Ray in a thread. It lives as long as the context, for Ray's processes end with the thread that they were
        started in (PR_SET_PDEATHSIG, prctl(2)).
    """
    with ThreadPoolExecutor(1, "ray") as thread:
        thread.submit(int).result()  # so that it runs already: an interrupt may come while it is started, too

        def start(init: Callable[[], object]) -> None:
            try:
                thread.submit(init).result()
            finally:
                thread.submit(int).result()  # its turn comes when that is done

        yield start


def _at_once(init: Callable[[], object]) -> None:
    """Join a cluster, which forks nothing, and may take long where it does not answer, so that it can be interrupted."""
    init()


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


def _connect(address: str | None, fork_server: ForkServer | None, start: _Start) -> None:
    is_local = address is None
    set_variables(is_local=is_local)
    local = {"include_dashboard": False} if is_local else {}
    init = partial(ray.init, address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    quiet_logs()  # Ray says that in a thread it cannot take SIGTERM
    try:
        with own_sigterm(), _quiet_stderr(), fork_server.serving() if is_local and fork_server else nullcontext():
            start(init)
    except (OSError, RuntimeError, ValueError) as error:
        if is_local:
            what, remedy = "start Ray on this machine", "see the logs below /tmp/ray/session_latest/logs"
        else:
            what = f"join the Ray cluster at {address}"
            remedy = "is it up, and does it ask for another RAY_AUTH_TOKEN, or for none (RAY_AUTH_MODE=disabled)?"
        raise EngineError(f"cannot {what}: {error}; {remedy}") from error
    quiet_logs()
    _let_ray_print(allowed=False)


def _shut_down(keep_sigterm: Callable[[], None]) -> None:
    """Leave Ray, whose core gives SIGTERM back to the system as it ends, where one would end this process at once.

    It does so only if it has not yet done it, so it is made to by the same function, and SIGTERM is taken back from it.
    """
    core = ctypes.PyDLL(ray._raylet.__file__)  # noqa: SLF001 - it is loaded; PyDLL, so that no thread comes in between
    with suppress(AttributeError):  # a Ray without that function: then a SIGTERM in the midst of the shutdown ends all
        core._ZN3ray6RayLog21UninstallSignalActionEv()  # noqa: SLF001 - RayLog::UninstallSignalAction()
        keep_sigterm()
    ray.shutdown()


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
    give_way()
    importlib.import_module("rayxform.pipeline.dataset")


@contextmanager
def engine_errors() -> Iterator[None]:
    """The one place where Ray's exceptions become rayxform's."""
    try:
        yield
    except ray.exceptions.RayError as error:
        remedy = _TOKENS_DIFFER if isinstance(error, ray.exceptions.ActorDiedError) and _NEVER_RAN in str(error) else ""
        raise EngineError(f"Ray failed: {type(error).__name__}: {error}{remedy}") from error
