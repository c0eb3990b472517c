"""The Arrow tables that travel between the stages: one row is one mini-batch, one block is several.

Ray may slice, bundle or fuse blocks but never splits a row, so whatever it does, a request stays what it was packed to be.
A row whose ``error`` is set, or that marks the end of its object, passes the model by.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa

from rayxform.core.batching import MiniBatch, Seam
from rayxform.errors import ModelError, RayxformError, RecordError

BATCH_SCHEMA = pa.schema(
    [
        ("file", pa.int32()),
        ("object", pa.string()),
        ("first_record", pa.int64()),
        ("n_records", pa.int32()),
        ("offset", pa.int64()),
        ("payload", pa.large_binary()),
        ("source", pa.large_binary()),
        ("error", pa.string()),
        ("read_s", pa.float64()),
    ]
)
"""What a reader gives. A row with neither payload nor error is the end of its object; first_record is then the count."""

RESPONSE_SCHEMA = pa.schema(
    [
        *(column for column in BATCH_SCHEMA if column.name != "payload"),
        ("payload_bytes", pa.int64()),
        ("response", pa.large_binary()),
        ("model_s", pa.float64()),
        ("started_at", pa.float64()),
        ("finished_at", pa.float64()),
        ("worker", pa.string()),
    ]
)
"""What a model worker gives: response in place of payload, and when (Unix time in seconds) it ran."""

MANIFEST_SCHEMA = pa.schema(
    [
        ("file", pa.int32()),
        ("first_record", pa.int64()),
        ("n_records", pa.int64()),
        ("n_requests", pa.int64()),
        ("input_bytes", pa.int64()),
        ("output_bytes", pa.int64()),
        ("part", pa.string()),
        ("error", pa.string()),
        ("total_records", pa.int64()),
        ("read_s", pa.float64()),
        ("model_s", pa.float64()),
        ("join_s", pa.float64()),
        ("write_s", pa.float64()),
        ("started_at", pa.float64()),
        ("finished_at", pa.float64()),
        ("first_finished_at", pa.float64()),
        ("first_finished_records", pa.int64()),
        ("worker", pa.string()),
    ]
)
"""What a writer gives, a row a part: small enough that the driver sees every one of them."""


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
    """

    kind: str
    message: str
    object: str | None = None
    record: int | None = None
    n_records: int = 1
    offset: int | None = None
    traceback: str = ""
    is_fatal: bool = False

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


def decode_error(text: str) -> ErrorEntry:
    """An entry from a row."""
    return msgspec.json.decode(text, type=ErrorEntry)


@dataclass
class BlockBuilder:
    """Gathers rows until they make a block.

    Attributes:
        schema: the rows' schema.
        block_bytes: how large a block should be at least.
    """

    schema: pa.Schema
    block_bytes: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    n_bytes: int = 0

    def add(self, row: dict[str, Any], n_bytes: int) -> Iterator[pa.Table]:
        """Take a row of ``n_bytes``; give a block if that fills one."""
        self.rows.append(row)
        self.n_bytes += n_bytes
        if self.n_bytes >= self.block_bytes:
            yield from self.flush()

    def flush(self) -> Iterator[pa.Table]:
        """Give what is left."""
        if self.rows:
            yield to_table(self.rows, self.schema)
        self.rows, self.n_bytes = [], 0


def to_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of one chunk; a column that a row lacks is null."""
    return pa.Table.from_pydict({name: [row.get(name) for row in rows] for name in schema.names}, schema=schema)


def batch_row(file: int, key: str, packed: MiniBatch | RecordError | Seam, read_s: float) -> dict[str, Any]:
    """A reader's result as a row."""
    row: dict[str, Any] = {"file": file, "object": key, "read_s": read_s, "n_records": 0}
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
        row |= {"first_record": packed.record, "error": encode_error(error_entry(packed, key=key))}
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
