"""What the driver writes down: events, as they happen, and what went wrong."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from rayxform.errors import StorageError
from rayxform.pipeline.planning import Plan
from rayxform.pipeline.rows import ErrorEntry
from rayxform.storage.error_list import ErrorList
from rayxform.storage.event_log import Event, EventLog


class Journal:
    """``events.jsonl`` and ``errors.jsonl`` of one run.

    An event that cannot be written is no reason to fail: a job that is cut short then does again what it does not know to be
    done. A bad record that OnRecordError lets pass would be lost if it were not listed, so that is an error.

    Attributes:
        first_error: the first that was noted, or None.
        bad_records: how many were let pass.
        warnings: why events are missing; at most one.
    """

    def __init__(self, plan: Plan) -> None:
        self.first_error: ErrorEntry | None = None
        self.bad_records = 0
        self.warnings: list[str] = []
        self._inputs = plan.inputs
        self._is_open = False
        self._events = EventLog(plan.output.state_url, plan.output.encryption)
        self._errors = ErrorList(plan.output.errors_url)

    def open(self, kept: Sequence[bytes]) -> None:
        """Begin to write.

        Args:
            kept: lines of the list of errors of an earlier run that still hold: bad records of files that are done.

        Raises:
            StorageError: it cannot be written.
        """
        self._events.open()
        self._errors.begin(kept)
        self.bad_records = len(kept)
        self._is_open = True

    def write(self, event: str, **members: Any) -> None:
        """Note what happened; ``Event`` has the members."""
        self._append(Event(event, time.time(), **members))

    def _append(self, event: Event) -> None:
        try:
            self._events.append(event)
        except StorageError as error:
            self.warn(f"{error}; if the job is cut short, it may do again what it has done")

    def start(self, workers: int, done: int) -> None:
        """The run begins."""
        self.write("Start", files=done, workers=workers, host=socket.gethostname(), pid=os.getpid())

    def tell(self, warnings: Iterable[str]) -> None:
        """What a user should know, though the job runs; a sentence each."""
        for warning in warnings:
            self.write("Warning", message=warning)

    def part(self, row: dict[str, Any]) -> None:
        """A part is in: its manifest row."""
        self.write(
            "Part",
            file=row["file"],
            object=self._inputs[row["file"]].key,
            first_record=row["first_record"],
            records=row["n_records"],
            requests=row["n_requests"] or 0,
            input_bytes=row["input_bytes"] or 0,
            output_bytes=row["output_bytes"] or 0,
            reading_s=round(row["read_s"] or 0.0, 6),
            model_s=round(row["model_s"] or 0.0, 6),
            joining_s=round(row["join_s"] or 0.0, 6),
            writing_s=round(row["write_s"] or 0.0, 6),
        )

    def worker(self, events: Iterable[str]) -> None:
        """What workers tell, encoded."""
        for event in events:
            self._append(msgspec.json.decode(event, type=Event))

    def file(self, event: str, file: int, **members: Any) -> None:
        """Something happened to an input."""
        self.write(event, file=file, object=self._inputs[file].key, **members)

    def pass_over(self, entries: Sequence[ErrorEntry]) -> None:
        """List bad records that OnRecordError lets pass.

        Raises:
            StorageError: they cannot be listed.
        """
        for entry in entries:
            self._errors.append(entry)
            self._write_error(entry)
        self.bad_records += len(entries)

    def note(self, entry: ErrorEntry) -> None:
        """List an error that fails its file, or the job."""
        if self.first_error is None:
            self.first_error = entry
        self._write_error(entry)
        try:
            self._errors.append(entry)
        except StorageError as error:
            # The device that took no output takes no list of errors either; the reason still says both.
            self.first_error.message += f" (and {error})" if self.first_error is entry else ""

    def warn(self, message: str) -> None:
        """Something could not be written that the job can do without; told once."""
        self.warnings = self.warnings or [message]

    def flush_events(self) -> None:
        """Write the events that wait."""
        try:
            self._events.flush()
        except StorageError as error:
            self.warn(str(error))

    def flush(self) -> None:
        """Write what waits of both.

        Raises:
            StorageError: the list of errors cannot be written.
        """
        self.flush_events()
        self._errors.flush()

    def close(self, status: str, message: str | None) -> None:
        """The run ends; what was noted since the list of errors was flushed is that it cannot be written."""
        if not self._is_open:  # it was refused
            return
        self.write("End", status=status, message=message)
        try:
            self._events.close()
        except StorageError as error:
            self.warn(str(error))

    def _write_error(self, entry: ErrorEntry) -> None:
        first = 0 if entry.record is None else entry.record - 1
        self.write(
            "Error", object=entry.object, first_record=first, records=entry.n_records, kind=entry.kind, message=entry.message
        )
