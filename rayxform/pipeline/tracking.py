"""How far a job is: which files are complete, and what was counted. Pure: manifest rows in, decisions and figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rayxform.errors import EngineError


@dataclass
class FileProgress:
    """What is known of one input.

    Attributes:
        parts: first record → count, name and size in bytes of a written part.
        total_records: how many records it holds, once its end was read.
        failed: whether an error ended it.
    """

    parts: dict[int, tuple[int, str, int]] = field(default_factory=dict)
    n_records: int = 0
    total_records: int | None = None
    failed: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every record is in a part."""
        return not self.failed and self.n_records == self.total_records

    def written(self) -> list[tuple[str, int]]:
        """Name and size in bytes of each of its parts, in the order of their records.

        Raises:
            EngineError: they leave a gap or overlap.
        """
        at = 0
        written = []
        for first, (count, name, n_bytes) in sorted(self.parts.items()):
            if first != at:
                raise EngineError(
                    f"parts do not tile their file: one begins at record {first + 1}, not {at + 1}; run the job again"
                )
            written.append((name, n_bytes))
            at += count
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


class Tracker:
    """Takes manifest rows in any order, some of them twice; tells which files are complete and which failed."""

    def __init__(self, n_files: int) -> None:
        self.n_files = n_files
        self.figures = Figures()
        self.done = 0
        self.failed = 0
        self._open: dict[int, FileProgress] = {}
        self._closed: set[int] = set()

    def take(self, row: Mapping[str, Any]) -> FileProgress | None:
        """Note a row; give its file if the row completed it."""
        self._count(row)
        file = row["file"]
        if file in self._closed:
            return None
        progress = self._open.setdefault(file, FileProgress())
        if self.is_new(row):
            progress.parts[row["first_record"]] = (row["n_records"], row["part"], row["output_bytes"])
            progress.n_records += row["n_records"]
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
        known = row["file"] in self._closed or (progress is not None and row["first_record"] in progress.parts)
        return row["part"] is not None and not known

    def fail(self, file: int) -> FileProgress | None:
        """A file failed; what is known of it, or None if it had failed before."""
        if file in self._closed:
            return None
        progress = self._open.setdefault(file, FileProgress())
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
