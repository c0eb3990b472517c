"""How far a job is: which files are complete, and what was counted. Pure: manifest rows in, decisions and figures out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rayxform.core.naming import growing_name
from rayxform.errors import EngineError


class Part(NamedTuple):
    """A written part.

    Attributes:
        n_records: how many records it holds.
        name: what it is called.
        n_bytes: its size.
        grown_to: how long the file's output, which grows in place, was when the part had been appended; None if the part is
            a file of its own.
    """

    n_records: int
    name: str
    n_bytes: int
    grown_to: int | None = None


@dataclass
class FileProgress:
    """What is known of one input.

    Attributes:
        file: its index in the plan.
        parts: first record → the part.
        total_records: how many records it holds, once its end was read.
        failed: whether an error ended it.
        resumed: the first records of those parts that an earlier run wrote, in order.
    """

    file: int
    parts: dict[int, Part] = field(default_factory=dict)
    n_records: int = 0
    total_records: int | None = None
    failed: bool = False
    resumed: list[int] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether every record is in a part."""
        return not self.failed and self.n_records == self.total_records

    def add(self, first_record: int, part: Part) -> None:
        """Note a part; one of an earlier run that holds some of the same records gives way to it."""
        at = bisect_left(self.resumed, first_record)
        while at and self._end(self.resumed[at - 1]) > first_record:
            at -= 1
        while at < len(self.resumed) and self.resumed[at] < first_record + part.n_records:
            self.n_records -= self.parts.pop(self.resumed.pop(at)).n_records
        self.parts[first_record] = part
        self.n_records += part.n_records

    def _end(self, first_record: int) -> int:
        return first_record + self.parts[first_record].n_records

    def written(self) -> list[tuple[str, int]]:
        """Name and size in bytes of what makes its output, in order: what has grown in place, if any, and the parts behind it.

        Raises:
            EngineError: they leave a gap or overlap.
        """
        at = 0
        written: list[tuple[str, int]] = []
        for first, part in sorted(self.parts.items()):
            if first != at:
                raise EngineError(
                    f"parts do not tile their file: one begins at record {first + 1}, not {at + 1}; run the job again"
                )
            if part.grown_to is None:
                written.append((part.name, part.n_bytes))
            else:  # all records up to its own are in the output, those of a part that was written a second time, too
                written = [(growing_name(self.file), part.grown_to)]
            at += part.n_records
        return written


@dataclass
class Figures:
    """What a job did so far; seconds are summed over workers, times are Unix times in seconds."""

    records: int = 0
    requests: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    errors: int = 0
    read_s: float = 0.0
    model_s: float = 0.0
    join_s: float = 0.0
    write_s: float = 0.0
    first_started_at: float | None = None
    first_finished_at: float | None = None
    first_finished_records: int = 0
    last_finished_at: float | None = None
    warnings: set[str] = field(default_factory=set)

    @property
    def steady_s(self) -> float:
        """Seconds from the first finished mini-batch to the last."""
        if self.first_finished_at is None or self.last_finished_at is None:
            return 0.0
        return self.last_finished_at - self.first_finished_at

    @property
    def steady_records(self) -> int:
        """How many records were finished in that time."""
        return self.records - self.first_finished_records


class FileSet:
    """Some of a plan's files, a byte for each file there is: for a million, a set of numbers takes a hundred times that."""

    def __init__(self, n_files: int) -> None:
        self._has = bytearray(n_files)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, file: object) -> bool:
        return isinstance(file, int) and bool(self._has[file])

    def __iter__(self) -> Iterator[int]:
        """Their numbers, in order."""
        return (file for file, is_in in enumerate(self._has) if is_in)

    def add(self, file: int) -> None:
        """Take a file in."""
        self._count += not self._has[file]
        self._has[file] = True

    def update(self, files: Iterable[int]) -> None:
        """Take several in."""
        for file in files:
            self.add(file)


class Tracker:
    """Takes manifest rows in any order, some of them twice; tells which files are complete and which failed."""

    def __init__(self, n_files: int) -> None:
        self.n_files = n_files
        self.figures = Figures()
        self.done = 0
        self.failed = 0
        self._open: dict[int, FileProgress] = {}
        self._closed = FileSet(n_files)

    def take(self, row: Mapping[str, Any]) -> FileProgress | None:
        """Note a row; give its file if the row completed it."""
        self._count(row)
        file = row["file"]
        if file in self._closed:
            return None
        progress = self._open.setdefault(file, FileProgress(file))
        if self.is_new(row):
            progress.add(row["first_record"], Part(row["n_records"], row["part"], row["output_bytes"], row["grown_to"]))
        if row["total_records"] is not None:
            progress.total_records = row["total_records"]
        if not progress.is_complete:
            return None
        self._close(file)
        self.done += 1
        return progress

    def is_new(self, row: Mapping[str, Any]) -> bool:
        """Whether a part's row is the first of its part; a block that ran twice gives it twice."""
        progress = self._open.get(row["file"])
        first = row["first_record"]
        is_there = progress is not None and first in progress.parts and progress.parts[first].name == row["part"]
        known = row["file"] in self._closed or is_there
        return row["part"] is not None and not known

    def resume_done(self, files: Iterable[int]) -> None:
        """These were published by an earlier run."""
        self._closed.update(files)
        self.done = len(self._closed)

    def resume_parts(self, file: int, parts: Mapping[int, Part]) -> None:
        """An earlier run wrote these of a file: first record → part."""
        progress = self._open.setdefault(file, FileProgress(file))
        progress.parts.update(parts)
        progress.n_records += sum(part.n_records for part in parts.values())
        progress.resumed = sorted(progress.parts)

    def resume_complete(self, file: int, total_records: int) -> FileProgress:
        """All records of a file are in parts that an earlier run wrote."""
        progress = self._open.setdefault(file, FileProgress(file))
        progress.total_records = total_records
        self._close(file)
        self.done += 1
        return progress

    def fail(self, file: int) -> FileProgress | None:
        """A file failed; what is known of it, or None if it had failed before."""
        if file in self._closed:
            return None
        progress = self._open.setdefault(file, FileProgress(file))
        progress.failed = True
        self._close(file)
        self.failed += 1
        return progress

    def reopen_as_failed(self) -> None:
        """A file that was complete could not be published."""
        self.done -= 1
        self.failed += 1

    def fail_all(self) -> None:
        """What was complete could not appear."""
        self.failed += self.done
        self.done = 0

    @property
    def unfinished(self) -> Sequence[int]:
        """Files that are neither complete nor failed."""
        return [file for file in range(self.n_files) if file not in self._closed]

    def _close(self, file: int) -> None:
        self._closed.add(file)
        self._open.pop(file, None)

    def _count(self, row: Mapping[str, Any]) -> None:
        figures = self.figures
        figures.requests += row["n_requests"] or 0
        figures.errors += row["error"] is not None
        figures.warnings |= {row["warning"]} - {None}
        for name in ("read_s", "model_s", "join_s", "write_s", "input_bytes", "output_bytes"):
            setattr(figures, name, getattr(figures, name) + (row[name] or 0))
        if row["part"] is None:
            return
        figures.records += row["n_records"]
        if not row["n_requests"]:  # bad records alone, of which the model was asked nothing
            return
        figures.first_started_at = _least(figures.first_started_at, row["started_at"])
        figures.last_finished_at = max(figures.last_finished_at or 0.0, row["finished_at"])
        if figures.first_finished_at is None or row["first_finished_at"] < figures.first_finished_at:
            figures.first_finished_at = row["first_finished_at"]
            figures.first_finished_records = row["first_finished_records"]


def _least(known: float | None, new: float) -> float:
    return new if known is None else min(known, new)
