"""A process between a worker and the model server that it started, which ends the server when the worker is gone.

``command`` runs this file as a script, so it imports nothing of rayxform's. The worker holds the writing end of a pipe;
however the worker ends, SIGKILL included, the system closes it, and this process reads its end. It leaves the worker's
process group and parent first, since Ray kills the children of a worker that ends. On Linux it also adopts processes whose
parents end (prctl(2), PR_SET_CHILD_SUBREAPER), so that it finds those that left the server's process group.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

GRACE_S = 3.0
"""How long a server may take to end after SIGTERM before it gets SIGKILL."""

TAIL_BYTES = 8192
"""How much of the server's last output is reported."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_NOT_STARTED = 127  # as a shell says it


class Server:
    """The server's process and what it said last."""

    def __init__(self, command: list[str]) -> None:
        prctl = _prctl()
        prctl(_PR_SET_CHILD_SUBREAPER, 1)

        def lead_a_group_and_end_with_the_supervisor() -> None:
            os.setpgid(0, 0)
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        self.tail = b""
        self.exit_code: int | None = None
        self._process = subprocess.Popen(  # noqa: S603 - the job's own command
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=lead_a_group_and_end_with_the_supervisor,  # noqa: PLW1509 - this process has one thread
        )
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        self.output = self._process.stdout.fileno()
        os.set_blocking(self.output, False)

    def read(self) -> bool:
        """Pass on what it has said, and keep the end of it; whether it may say more."""
        try:
            said = os.read(self.output, 65536)
        except BlockingIOError:
            return True
        with contextlib.suppress(OSError):
            os.write(2, said)
        self.tail = (self.tail + said)[-TAIL_BYTES:]
        return bool(said)

    def reap(self) -> None:
        """Take the exit codes of ended children, the server's among them."""
        with contextlib.suppress(ChildProcessError):
            while self.exit_code is None:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._process.pid:
                    self.exit_code = self._process.returncode = os.waitstatus_to_exitcode(status)

    def signal(self, number: int) -> None:
        """Signal the server's process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def kill_all(self) -> None:
        """Kill the group and every process that was adopted, until there is none."""
        self.signal(signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                for child in _children():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                pid, status = os.waitpid(-1, 0)
                if pid == self._process.pid:
                    self.exit_code = self._process.returncode = os.waitstatus_to_exitcode(status)


def supervise(life: int, command: list[str]) -> dict[str, object]:
    """Run a command until it ends, or ``life`` is closed at its other end; what it said last, and its exit code."""
    woken, waker = os.pipe()
    for end in (woken, waker):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    try:
        server = Server(command)
    except OSError as error:
        return {"exit_code": _NOT_STARTED, "output": f"{command[0]}: {error.strerror}"}
    with selectors.DefaultSelector() as selector:
        for one in (life, woken, server.output):
            selector.register(one, selectors.EVENT_READ)
        end_at = float("inf")
        while server.exit_code is None and time.monotonic() < end_at:
            for key, _ in selector.select(None if end_at == float("inf") else GRACE_S / 10):
                if key.fd == server.output:
                    if not server.read():
                        selector.unregister(server.output)
                elif key.fd == woken:
                    os.read(woken, 512)
                else:  # the worker is gone
                    selector.unregister(life)
                    server.signal(signal.SIGTERM)
                    end_at = time.monotonic() + GRACE_S
            server.reap()
    was_last = b""
    while server.read() and server.tail != was_last:
        was_last = server.tail
    server.kill_all()
    return {"exit_code": server.exit_code, "output": server.tail.decode("utf-8", "replace")}


def _children() -> list[int]:
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def _prctl() -> ctypes._NamedFuncPointer:
    if sys.platform == "linux":
        return ctypes.CDLL(None, use_errno=True).prctl
    return lambda *_: 0


def main() -> None:
    """Run as ``supervisor.py LIFE REPORT COMMAND...``: two inherited file descriptors, and the command's words."""
    life, report, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    for end in (life, report):
        os.set_inheritable(end, False)
    if os.fork():
        os._exit(0)
    os.setpgid(0, 0)
    result = supervise(life, command)
    with contextlib.suppress(BrokenPipeError):
        os.write(report, json.dumps(result).encode())


if __name__ == "__main__":
    main()
