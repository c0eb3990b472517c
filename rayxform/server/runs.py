"""How the endpoint runs jobs: as processes of this machine, which outlive the server, or on a Ray cluster's job server.

A run on this machine holds a lock on a file from its first moment to its last, because it inherits the lock: so a server that
was killed and started again sees which runs go on, and none is begun twice. What a run prints last is what it came to.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import psutil

from rayxform.pipeline.result import last_result
from rayxform.processes import started_after_boot_s

KILL_AFTER_S: Final = 30.0
"""How long a run that was told to stop may take; it writes down what it has done meanwhile, and needs three seconds."""


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
        goes_on: whether it has not ended.
        result: what ``rayxform run --json`` printed, or None where it ended without a word, or goes on.
        message: what else is known of its end; "" for nothing.
    """

    goes_on: bool
    result: Mapping[str, Any] | None = None
    message: str = ""


class Runs(Protocol):
    """Where jobs run. All of it may be asked again after the server was started again."""

    def begin(self, name: str, attempt: int, members: Mapping[str, Any], within: Sequence[str]) -> None:
        """Begin a run of a job, its ``attempt``-th, from 1, that may touch what lies below ``within``, or all if that is empty.

        Raises:
            RayxformError: it cannot be begun.
        """

    def look(self, name: str, attempt: int) -> Run:
        """What became of it.

        Raises:
            RayxformError: that cannot be found out now.
        """

    def stop(self, name: str, attempt: int) -> None:
        """Tell it to stop; to be called again until it has.

        Raises:
            RayxformError: it cannot be told now.
        """


JOB_NICENESS: Final = 10
"""Jobs give way to the server, which their callers ask how they are: beside it they get a tenth of a core."""

_AUTOGROUP_WAIT_S: Final = 0.1
_AUTOGROUP_TRIES: Final = 5


class LocalRuns:
    """Runs as processes of this machine, each in a session of its own and in a folder of its own."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        """Name the folder.

        Args:
            folder: below it each job has one, with job.json, log, result.json and lock.
            options: what else ``rayxform run`` is told.
        """
        self._folder = folder
        self._options = options
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._told_at: dict[str, float] = {}

    def begin(self, name: str, attempt: int, members: Mapping[str, Any], within: Sequence[str]) -> None:
        """See Runs; a run that goes on is left alone."""
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("ab") as lock:
            if not try_lock(lock.fileno()):
                return
            (folder / "result.json").unlink(missing_ok=True)
            (folder / "job.json").write_text(json.dumps({**members, "TransformJobName": name}))
            command = [sys.executable, "-m", "rayxform", "run", str(folder / "job.json"), "--json", *self._options]
            command += [word for prefix in within for word in ("--within", prefix)]
            with (folder / "result.json").open("wb") as result, (folder / "log").open("ab") as log:
                log.write(f"--- run {attempt}\n".encode())
                log.flush()
                process = subprocess.Popen(  # noqa: S603 - our own command; what a caller names is in the file
                    command, stdin=subprocess.DEVNULL, stdout=result, stderr=log, cwd=folder, start_new_session=True,
                    pass_fds=(lock.fileno(),),
                )  # fmt: skip
        _have_it_give_way(process.pid)
        self._processes[name] = process
        self._told_at.pop(name, None)
        (folder / "process.json").write_text(json.dumps([process.pid, _started_at(process.pid)]))

    def look(self, name: str, attempt: int) -> Run:
        """See Runs."""
        del attempt
        folder = self._folder / name
        if (process := self._processes.get(name)) is not None:
            process.poll()  # so that it does not stay as a zombie
        try:
            with (folder / "lock").open("ab") as lock:
                if not try_lock(lock.fileno()):
                    return Run(goes_on=True)
        except FileNotFoundError:
            return Run(goes_on=False)
        code = process.returncode if process is not None else None
        said = f"its process ended with {_ending(code)}; " if code is not None else ""
        result = last_result(_text_of(folder / "result.json"))
        return Run(goes_on=False, result=result, message=f"{said}its log is {folder / 'log'}")

    def stop(self, name: str, attempt: int) -> None:
        """See Runs: SIGTERM once, and SIGKILL where that did not help for long."""
        del attempt
        now = time.monotonic()
        told_at = self._told_at.setdefault(name, now)
        if told_at == now or now - told_at > KILL_AFTER_S:
            self._signal(name, signal.SIGTERM if told_at == now else signal.SIGKILL)

    def _signal(self, name: str, number: signal.Signals) -> None:
        pid = _process_of(self._folder / name)
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if pid is not None:
                os.kill(pid, number)


def _process_of(folder: Path) -> int | None:
    """A run's process: the one that was noted, if it is that still, since its number may be another's by now.

    A server that was killed as it began the run has noted none, or left the last run's.
    """
    with contextlib.suppress(OSError, ValueError):
        pid, started_at = json.loads((folder / "process.json").read_text())
        if _started_at(pid) == started_at:
            return int(pid)
    return _holder_of(folder / "lock")


def _holder_of(lock: Path) -> int | None:
    """The other process that has a file open, which whoever begins a run hands to it; None if there is none."""
    name = str(lock.resolve())
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # it has ended meanwhile, or is another user's
            if process.pid != os.getpid() and any(one.path == name for one in process.open_files()):
                return process.pid
    return None


def try_lock(descriptor: int) -> bool:
    """Lock a file for as long as it is open, here or in a process that inherits it; False where another one has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _have_it_give_way(pid: int) -> None:
    """Lower the priority of a process that leads a session, and of that session.

    Where Linux has autogroups, it first shares the cores between sessions, and only then by what is nice (sched(7)). It lets
    the niceness of a session be set ten times a second.
    """
    with contextlib.suppress(OSError):  # it has ended already, or the system has no priorities
        os.setpriority(os.PRIO_PROCESS, pid, JOB_NICENESS)
        for _ in range(_AUTOGROUP_TRIES):
            try:
                Path(f"/proc/{pid}/autogroup").write_text(str(JOB_NICENESS))
            except BlockingIOError:
                time.sleep(_AUTOGROUP_WAIT_S)
            else:
                return


def _started_at(pid: int) -> float | None:
    try:
        return started_after_boot_s(pid)
    except psutil.NoSuchProcess:
        return None


def _ending(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"


def _text_of(path: Path) -> str:
    """A file's text; "" where there is none, or it was cut short within a character."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
