"""Runs a command, and notes how long it and its batches took and how much memory it and its children held."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_EVERY_S = 5.0
"""Asking for the memory of a dozen processes takes 60 ms of a core, which is then not the peer's. Every 2 s that was 3 % of
a core for a peer of a dozen processes, and next to nothing for one of one process. The first seconds, of starting up, are
looked at more often, so that a short run has a figure, too."""

FIRST_SAMPLE_S = 1.0


class PeerError(Exception):
    """A command failed or took too long; carries the end of what it printed."""


def core_count() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Outcome:
    """One run of a command.

    Attributes:
        seconds: from its start to its end.
        peak_bytes: the most memory that it and all its children held together, in bytes.
        memory_kind: how that was counted: "PSS" (a shared page counts once), "USS" (no shared page) or "RSS".
        last_object: the JSON object in the last line that it printed, or {}.
    """

    seconds: float
    peak_bytes: int
    memory_kind: str
    last_object: dict[str, Any]


@dataclass(frozen=True)
class Pace:
    """How a run went on, batch by batch.

    Attributes:
        first_s: from the command's start to its first finished batch, in seconds.
        steady_s: from the first finished batch to the last, in seconds.
        steady_records: the records that were finished in that span: all but the first batch's.
    """

    first_s: float
    steady_s: float
    steady_records: int

    @property
    def steady_rate(self) -> float:
        """Records a second with start-up left out; NaN if there was one batch only."""
        return self.steady_records / self.steady_s if self.steady_s > 0 else float("nan")


def run(command: list[str], log: Path, timeout_s: float) -> Outcome:
    """Run a command from the root of the repository, on this machine alone, and wait for its end.

    Args:
        command: the arguments of this Python, as "-m", "rayxform".
        log: the file that takes what it prints.
        timeout_s: after so many seconds it is killed, and all its children with it.

    Raises:
        PeerError: it failed, or was killed.
    """
    # Nobody's cluster and nobody's setting of threads; each peer sets what its author would set.
    environment = {name: value for name, value in os.environ.items() if name not in {"RAY_ADDRESS", "OMP_NUM_THREADS"}}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with log.open("wb") as output, log.with_suffix(".err").open("wb") as errors:
        began = time.perf_counter()
        process = psutil.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,  # a peer that ends its own process group does not end this one
        )
        family = Family(process)
        try:
            code = _wait(process, family, began + timeout_s)
            seconds = time.perf_counter() - began
        finally:
            family.kill()
    if code is None:
        raise PeerError(f"{' '.join(command)} was still running after {timeout_s:.0f} s\n{_end_of(log)}")
    if code != 0:
        raise PeerError(f"{' '.join(command)} ended with exit code {code}\n{_end_of(log)}")
    return Outcome(seconds, family.peak_bytes, family.memory_kind, _last_object(log))


class Family:
    """A process with all that it has started, also through others."""

    def __init__(self, parent: psutil.Process) -> None:
        self.members = {parent}
        self.peak_bytes = 0
        self.memory_kind = "PSS" if psutil.LINUX else "USS"
        self._parent = parent

    def sample(self) -> None:
        """Look for new members, and at the memory of all."""
        try:
            self.members.update(self._parent.children(recursive=True))
        except psutil.NoSuchProcess:
            return
        self.peak_bytes = max(self.peak_bytes, sum(map(self._bytes_of, self.members)))

    def kill(self) -> None:
        """End whoever is still there; Ray's processes outlive a driver that was killed."""
        for member in self.members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()

    def _bytes_of(self, member: psutil.Process) -> int:
        try:
            return int(getattr(member.memory_full_info(), self.memory_kind.lower()))
        except psutil.AccessDenied:
            self.memory_kind = "RSS"
            return int(member.memory_info().rss)
        except psutil.NoSuchProcess:
            return 0


def _wait(process: psutil.Popen, family: Family, until: float) -> int | None:
    """Wait for the exit code, and look at the memory meanwhile; None if that takes longer than ``until``."""
    pause_s = FIRST_SAMPLE_S
    while time.perf_counter() < until:
        gone, _ = psutil.wait_procs([process], pause_s)
        if gone:
            return int(process.returncode)
        family.sample()
        pause_s = min(2 * pause_s, SAMPLE_EVERY_S)
    return None


def pace_of_marks(folder: Path, started: float) -> Pace:
    """Read what a peer's processes noted with ``mark`` of their finished batches.

    Args:
        folder: the folder of their files.
        started: when the command was started, as ``time.time()`` gives it.
    """
    marks = sorted(_marks(folder))
    if not marks:
        raise PeerError(f"no batch was finished: {folder} is empty")
    first, last = marks[0][0], marks[-1][0]
    return Pace(first - started, last - first, sum(records for _, records in marks[1:]))


def _marks(folder: Path) -> Iterator[tuple[float, int]]:
    for file in folder.iterdir():
        for line in file.read_text().splitlines():
            at, records = line.split()
            yield float(at), int(records)


def _last_object(log: Path) -> dict[str, Any]:
    lines = log.read_text(errors="replace").strip().splitlines()
    try:
        value = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _end_of(log: Path) -> str:
    printed = log.read_text(errors="replace") + log.with_suffix(".err").read_text(errors="replace")
    return printed[-4000:]
