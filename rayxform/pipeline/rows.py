"""What is known of a mini-batch on its way, and of what goes wrong with it: the reader's row, and the entry in errors.jsonl."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from typing import Any

import msgspec

from rayxform.core.batching import MiniBatch, Seam
from rayxform.errors import FrameError, ModelError, RayxformError, RecordError


class ErrorEntry(msgspec.Struct, rename="pascal", omit_defaults=True):
    """One line of errors.jsonl.

    Attributes:
        kind: the exception's class.
        message: value, limit and remedy.
        object: the input's key.
        record: the record's number, from 1; for a request its first record's.
        n_records: how many records the failed request held.
        offset: the record's first byte, from 0.
        traceback: the user's own, for a model error.
        is_fatal: whether no request can succeed, so that the job ends here.
        log: the host and the file with what the worker and its model printed; "" if there is none.
    """

    kind: str
    message: str
    object: str | None = None
    record: int | None = None
    n_records: int = 1
    offset: int | None = None
    traceback: str = ""
    is_fatal: bool = False
    log: str = ""

    def __str__(self) -> str:
        place = [] if self.object is None else [self.object]
        if self.record is not None:
            last = self.record + self.n_records - 1
            numbers = f"record {self.record}" if self.n_records == 1 else f"records {self.record} to {last}"
            place.append(numbers + ("" if self.offset is None else f" (byte {self.offset})"))
        return ": ".join([*place, self.message])


def error_entry(error: BaseException, *, key: str | None = None, seam: Seam | None = None, n_records: int = 1) -> ErrorEntry:
    """What errors.jsonl says of an exception.

    Args:
        error: the exception; one that is not rayxform's own is a defect of rayxform, and keeps its traceback.
        key: the input's key.
        seam: where the failed request begins; a RecordError knows its place better.
        n_records: how many records the request held.
    """
    entry = ErrorEntry(type(error).__name__, str(error), key)
    if seam is not None:
        entry.record, entry.offset, entry.n_records = seam.record + 1, seam.offset, n_records
    if isinstance(error, RecordError):
        entry.message, entry.record, entry.offset, entry.n_records = error.reason, error.record + 1, error.offset, 1
    elif isinstance(error, ModelError):
        entry.message, entry.traceback = error.message, error.user_traceback
    elif not isinstance(error, RayxformError):
        entry.message = f"rayxform itself failed: {type(error).__name__}: {error}"
        entry.traceback = "".join(traceback.format_exception(error))
    return entry


def encode_error(entry: ErrorEntry) -> str:
    """An entry as it travels in a row."""
    return msgspec.json.encode(entry).decode()


def fatal_entry(error: RayxformError) -> str:
    """The encoded entry of an error after which no request can succeed."""
    entry = error_entry(error)
    entry.is_fatal = True
    return encode_error(entry)


def decode_error(text: str) -> ErrorEntry:
    """An entry from a row."""
    return msgspec.json.decode(text, type=ErrorEntry)


def batch_row(
    place: Mapping[str, Any], packed: MiniBatch | RecordError | Seam, read_s: float, *, stop_at_error: bool
) -> dict[str, Any]:
    """A reader's result as a row.

    Args:
        place: the columns ``file``, ``object`` and ``input``.
        packed: the result.
        read_s: how long it took, in seconds.
        stop_at_error: whether a bad record ends its object.
    """
    row: dict[str, Any] = {**place, "read_s": read_s, "n_records": 0}
    if isinstance(packed, MiniBatch):
        row |= {
            "first_record": packed.seam.record,
            "n_records": packed.n_records,
            "offset": packed.seam.offset,
            "payload": packed.payload,
            "source": packed.source,
        }
    elif isinstance(packed, Seam):
        row["first_record"] = packed.record
    else:
        row |= {"first_record": packed.record, "error": encode_error(error_entry(packed, key=place["object"]))}
        row["n_records"] = 0 if stop_at_error or isinstance(packed, FrameError) else 1
    return row


class Stopwatch:
    """Seconds since it was last asked."""

    def __init__(self) -> None:
        self._at = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the lap before."""
        now = time.perf_counter()
        seconds, self._at = now - self._at, now
        return seconds
