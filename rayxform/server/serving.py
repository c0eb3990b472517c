"""``rayxform serve``: the endpoint and the pages on one port."""

from __future__ import annotations

import gc
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import uvicorn

from rayxform.errors import ServerSettingsError
from rayxform.server.app import make_app
from rayxform.server.database import Database
from rayxform.server.jobs import Jobs
from rayxform.server.keeper import Keeper
from rayxform.server.models import Models
from rayxform.server.runs import LocalRuns, Runs, try_lock
from rayxform.server.settings import ServerSettings, check_host
from rayxform.server.web import Pages

DEFAULT_PORT = 8750
_BACKLOG = 2048
_GC_THRESHOLD = 50_000


def default_state() -> Path:
    """Where the server keeps its state: below XDG_STATE_HOME (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "rayxform"


def serve(
    settings: ServerSettings,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    state: Path | None = None,
    address: str | None = None,
    job_files: Sequence[str] = (),
    announce: Callable[[str], object] = str,
) -> None:
    """Serve until SIGINT or SIGTERM; jobs that run then go on, and the next server with this state finds them.

    Args:
        settings: who may call, and what jobs may touch.
        host: where to listen.
        port: where to listen; 0 for any that is free.
        state: the folder of the server's database, and of its jobs' logs; None for ``default_state``.
        address: a Ray cluster: the URL of its job server (http://HEAD:8265), whose jobs they become, or an address that
            each job's process joins; None to start Ray for each job.
        job_files: job files that the pages show, and run on demand.
        announce: called with the server's URL when it listens.

    Raises:
        ServerSettingsError: it cannot listen there, or must not, or another server has this state.
        JobError: a job file is wrong, or no Ray cluster is at the address.
    """
    is_alone = check_host(host, settings)
    folder = (state or default_state()).absolute()
    with _held(folder), _listening(host, port) as listener:
        database = Database(folder / "server.sqlite")
        keeper = Keeper(database, _make_runs(folder, address), settings)
        models = Models(database, settings)
        jobs = Jobs(database, models, settings, keeper.wake)
        for job_file in job_files:
            jobs.show_file(job_file)
        pages = Pages(database, jobs, settings, folder / "jobs").app()
        app = make_app(database, models, jobs, pages, settings, allowed_host=host if is_alone and not settings.keys else None)
        config = uvicorn.Config(
            app, log_level=logging.WARNING, access_log=False, server_header=False, proxy_headers=False, backlog=_BACKLOG
        )
        keeper.start()
        gc.collect()
        gc.set_threshold(_GC_THRESHOLD)  # a call leaves next to nothing to collect
        gc.freeze()  # what is there by now stays, so that a full collection does not hold up the calls of that moment
        announce(_url(listener))
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            keeper.end()
            database.close()


def _make_runs(folder: Path, address: str | None) -> Runs:
    if address is not None and "://" in address:
        from rayxform.server.ray_runs import RayRuns  # noqa: PLC0415 - it brings Ray, which a server does without

        return RayRuns(address)
    return LocalRuns(folder / "jobs", ["--address", address] if address is not None else [])


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The state folder, for this server alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock: IO[bytes] = (folder / "server.lock").open("ab")
    except OSError as error:
        raise ServerSettingsError(
            f"cannot keep the server's state in {folder}: {error.strerror}; choose another --state"
        ) from None
    with lock:
        if not try_lock(lock.fileno()):
            raise ServerSettingsError(f"another rayxform serve has its state in {folder}; end it, or choose another --state")
        yield


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(_BACKLOG)  # a client that was told the URL may call at once
    except (OSError, OverflowError) as error:
        raise ServerSettingsError(f"cannot listen on {host}, port {port}: {error}; choose another --host or --port") from None
    with listener:
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
