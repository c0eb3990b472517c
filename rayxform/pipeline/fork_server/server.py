"""The fork server's own process."""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import select
import shutil
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NoReturn

_PRELOADED: Final = (
    "ray._private.workers.default_worker",
    "ray.data",
    "pandas",
    "rayxform.pipeline.dataset",
)

_NO_JOB: Final = "ffffffff"
"""What Ray gives to workers that it starts before there is a job; the first task then says whose it is.

Ray's core reads RAY_JOB_ID and RAY_RAYLET_PID when it is loaded, and never again, so they are the same for all forks. The
second is the process without which a worker ends: here the server, which lives exactly as long as the driver.
"""

_LENGTH_BYTES: Final = 8
_READ_LIMIT_S: Final = 10.0
_READ_BYTES: Final = 1 << 16
_OOM_SCORE: Final = "1000"
"""What a raylet gives its workers (``worker_oom_score_adjustment``), so that the kernel ends one of them before anything else;
it does so to the process that it started, which here is the launcher."""


def main(listener_fd: int, watched_fd: int) -> None:
    """Import, then fork for each launcher that asks, until the other end of the watched pipe is closed."""
    os.environ |= {"RAY_RAYLET_PID": str(os.getpid()), "RAY_JOB_ID": _NO_JOB}
    _preload()
    if not _forks_differ():
        return
    gc.collect()
    gc.freeze()  # else the first collection of each fork would copy every page
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a fork
    with socket.socket(fileno=listener_fd) as listener:
        while True:
            readable, _, _ = select.select([listener_fd, watched_fd], [], [])
            if watched_fd in readable:  # a driver that was killed has left the folder
                shutil.rmtree(Path(listener.getsockname()).parent, ignore_errors=True)
                os._exit(0)
            connection, _ = listener.accept()
            with connection, suppress(OSError, ValueError):
                _serve(connection, (listener_fd, watched_fd))


def _preload() -> None:
    """Import what workers need, without a draw from the generator of identifiers of Ray's core.

    It is seeded when it is first asked, for the process and for good: forked after that, two workers would draw the same
    identifiers, and soon create the same object. What asks is each class that is an actor's, for an identifier of its own.
    """
    actor: Any = importlib.import_module("ray.actor")
    drawn = actor.ActorClassID
    actor.ActorClassID = SimpleNamespace(from_random=lambda: drawn(os.urandom(drawn.size())))
    try:
        for name in _PRELOADED:
            importlib.import_module(name)
    finally:
        actor.ActorClassID = drawn


def _forks_differ() -> bool:
    """Whether identifiers that are drawn in two forks differ, as another release of Ray might not have it."""
    drawn = []
    for _ in range(2):
        readable, writable = os.pipe()
        if os.fork() == 0:
            os.write(writable, importlib.import_module("ray").UniqueID.from_random().binary())
            os._exit(0)
        os.close(writable)
        drawn.append(os.read(readable, _READ_BYTES))
        os.close(readable)
        os.wait()
    return drawn[0] != drawn[1]


def _serve(connection: socket.socket, ours: tuple[int, ...]) -> None:
    connection.settimeout(_READ_LIMIT_S)
    message, streams, _, _ = socket.recv_fds(connection, _READ_BYTES, 3)
    try:
        end = _LENGTH_BYTES + int.from_bytes(message[:_LENGTH_BYTES], sys.byteorder)
        while len(message) < end:
            more = connection.recv(end - len(message))
            if not more:
                raise ValueError("a launcher that went away")
            message += more
        folder, count, *words = message[_LENGTH_BYTES:].split(b"\0")
        command, environment = words[: int(count)], words[int(count) :]
        if os.fork() == 0:
            _become(folder, command, environment, streams, (connection.fileno(), *ours))
        connection.sendall(b"y")
    finally:
        for number in streams:
            os.close(number)


def _become(
    folder: bytes, command: list[bytes], environment: list[bytes], streams: list[int], ours: tuple[int, ...]
) -> NoReturn:
    """Be the process that would have run the command; like it, this ends by leaving Python."""
    code = 1
    try:
        os.setpgid(0, 0)
        for number in ours:
            os.close(number)
        for place, number in enumerate(streams):
            os.dup2(number, place)
            os.close(number)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
        os.environb.clear()
        os.environb.update(dict(entry.split(b"=", 1) for entry in environment))
        os.chdir(folder)
        importlib.import_module("ray._raylet").Config.initialize("")  # which read the environment when it was imported
        sys.argv = [os.fsdecode(word) for word in command]
        while sys.argv[0].startswith("-"):  # Python's own options, such as -u
            del sys.argv[0]
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:  # noqa: BLE001 - as Python does it
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
