"""What became of each input, by the events; some tens of bytes for each, as a job may have a million of them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from rayxform.storage.event_log import Event

NAMED = 200
"""How many inputs of a state are kept by name."""


class FileState(IntEnum):
    """Where an input is on its way."""

    WAITING = 0
    RUNNING = 1
    WRITTEN = 2
    """All its parts are in; its output has not appeared yet."""
    DONE = 3
    FAILED = 4


# An enumeration's members are looked up several times as slowly, and there are a million events.
_RUNNING, _WRITTEN, _DONE = int(FileState.RUNNING), int(FileState.WRITTEN), int(FileState.DONE)


@dataclass(frozen=True)
class NamedFile:
    """An input that is kept by name.

    Attributes:
        file: its number in the plan.
        key: its key.
        parts: how many parts of it are written.
        records: how many records those hold.
        input_bytes: how many bytes of it were sent.
        output_bytes: how long its output is; None where it has none yet.
        at: when it last changed its state, as Unix time in seconds.
    """

    file: int
    key: str
    parts: int
    records: int
    input_bytes: int
    output_bytes: int | None
    at: float


class FileStates:
    """Takes events one by one; tells how many inputs are in each state, and names the first of them."""

    def __init__(self) -> None:
        self.records = 0
        self._states = bytearray()
        self._parts = array("q")
        self._records = array("q")
        self._input_bytes = array("q")
        self._counts = [0] * len(FileState)
        self._named: list[dict[int, tuple[str, int | None, float]]] = [{} for _ in FileState]

    def count(self, *states: FileState) -> int:
        """How many inputs are in one of some states."""
        return sum(self._counts[state] for state in states)

    @property
    def unwritten(self) -> int:
        """How many inputs are neither done nor written; asked after each event, so it takes no loop."""
        return len(self._states) - self._counts[_DONE] - self._counts[_WRITTEN]

    def is_waiting(self, file: int) -> bool:
        """Whether nothing is known of an input but that it is planned."""
        return file >= len(self._states) or self._states[file] == FileState.WAITING

    def named(self, *states: FileState) -> Sequence[NamedFile]:
        """The inputs of some states that are kept by name, at most NAMED of each, in the order of the plan."""
        found = sorted((file, *kept) for state in states for file, kept in self._named[state].items())
        return [
            NamedFile(file, key, self._parts[file], self._records[file], self._input_bytes[file], output_bytes, at)
            for file, key, output_bytes, at in found
        ]

    def begin_run(self, n_files: int) -> None:
        """A run begins: what failed is tried again."""
        self._extend(n_files)
        for file in [file for file, state in enumerate(self._states) if state == FileState.FAILED]:
            self._move(file, FileState.RUNNING if self._parts[file] else FileState.WAITING, None)

    def complete(self) -> None:
        """The job is Completed, so every output has appeared."""
        if not self._counts[FileState.WRITTEN]:
            return
        self._states = self._states.replace(bytes([FileState.WRITTEN]), bytes([FileState.DONE]))
        self._counts[FileState.DONE] += self._counts[FileState.WRITTEN]
        self._counts[FileState.WRITTEN] = 0
        self._named[FileState.DONE] |= self._named[FileState.WRITTEN]
        self._named[FileState.WRITTEN] = {}

    def take(self, event: Event) -> None:
        """Note what happened to an input."""
        file = event.file
        if file is None:
            return
        self._extend(file + 1)
        if event.event == "Part":
            self._parts[file] += 1
            self._add_records(file, event.records)
            self._input_bytes[file] += event.input_bytes
            if self._states[file] <= _RUNNING:
                self._move(file, _RUNNING, event)
        elif event.event == "FileFailed":
            self._move(file, FileState.FAILED, event)
        elif event.event in ("FileComplete", "FileDone"):
            is_done = event.event == "FileDone"
            if is_done:
                self._add_records(file, event.records - self._records[file])
            self._move(file, _DONE if is_done else _WRITTEN, event)

    def _add_records(self, file: int, n_records: int) -> None:
        self._records[file] += n_records
        self.records += n_records

    def _extend(self, n_files: int) -> None:
        more = n_files - len(self._states)
        if more > 0:
            self._states.extend(bytes(more))
            self._counts[FileState.WAITING] += more
            for column in (self._parts, self._records, self._input_bytes):
                column.frombytes(bytes(more * column.itemsize))

    def _move(self, file: int, state: int, event: Event | None) -> None:
        before = self._states[file]
        self._counts[before] -= 1
        self._counts[state] += 1
        self._states[file] = state
        kept = self._named[before].pop(file, None)
        if event is not None:
            kept = (
                event.object or (kept[0] if kept else ""),
                event.output_bytes if state > _RUNNING else None,
                event.time,
            )
        if kept is not None and state and len(self._named[state]) < NAMED:
            self._named[state][file] = kept
