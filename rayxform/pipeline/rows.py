"""The Arrow tables that travel: mini-batches from readers to workers, and what became of them from workers to the driver.

Ray may slice, bundle or fuse blocks but never splits a row. So a block is one row that holds all that a task takes or gives:
a request stays what it was packed to be, a worker gets exactly the work that the reader measured out for it, and what it
says of a thousand small objects comes back at once (Ray Data takes some 20 ms for a block).
A mini-batch whose ``error`` is set, or that marks the end of its object, passes the model by.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import msgspec
import pyarrow as pa

from rayxform.core.batching import MiniBatch, Seam
from rayxform.errors import FrameError, ModelError, RayxformError, RecordError

BATCH_SCHEMA = pa.schema(
    [
        ("file", pa.int32()),
        ("object", pa.string()),
        ("input", pa.string()),
        ("first_record", pa.int64()),
        ("n_records", pa.int32()),
        ("offset", pa.int64()),
        ("payload", pa.large_binary()),
        ("source", pa.large_binary()),
        ("error", pa.string()),
        ("read_s", pa.float64()),
    ]
)
"""A mini-batch; ``input`` is its object, encoded, which is looked into only after an error. One with neither payload nor
error is the end of its object; first_record is then the count. One with an error and a record is a bad record that
OnRecordError lets pass; one with an error and none ends its object."""

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
        ("record_errors", pa.list_(pa.string())),
        ("total_records", pa.int64()),
        ("read_s", pa.float64()),
        ("model_s", pa.float64()),
        ("join_s", pa.float64()),
        ("write_s", pa.float64()),
        ("started_at", pa.float64()),
        ("finished_at", pa.float64()),
        ("first_finished_at", pa.float64()),
        ("first_finished_records", pa.int64()),
        ("warning", pa.string()),
        ("events", pa.list_(pa.string())),
    ]
)
"""What a worker gives, a row a part: small enough that the driver sees every one of them. An ``error`` ends its file;
``record_errors`` are those of records that OnRecordError lets pass, ``events`` what happened in the block besides."""


def block_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of a block that packs rows of a schema."""
    return pa.schema([("rows", pa.large_list(pa.struct(list(schema))))])


BLOCK_SCHEMA = block_schema(BATCH_SCHEMA)
"""What a reader gives: one row, the mini-batches of one task."""


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


def decode_error(text: str) -> ErrorEntry:
    """An entry from a row."""
    return msgspec.json.decode(text, type=ErrorEntry)


def pack_block(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a block: a table of one row."""
    table = to_table(rows, schema)
    values = pa.StructArray.from_arrays([column.chunk(0) for column in table.columns], fields=list(schema))
    return pa.Table.from_arrays([pa.LargeListArray.from_arrays([0, len(rows)], values)], schema=block_schema(schema))


def unpack_block(block: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows of a block, without a copy."""
    values = block.column("rows").chunk(0).flatten()
    return pa.Table.from_arrays(values.flatten(), schema=schema)


def payload_views(table: pa.Table) -> list[memoryview | None]:
    """The payloads of a table's rows, which stay where they are; Arrow's own scalars hold a copy each."""
    (array,) = table.column("payload").chunks
    _, offsets, data = array.buffers()
    ends = memoryview(offsets).cast("q")[array.offset : array.offset + len(array) + 1]
    whole = memoryview(data) if data is not None else memoryview(b"")
    return [
        whole[begin:end] if is_valid else None
        for begin, end, is_valid in zip(ends[:-1], ends[1:], array.is_valid().to_pylist(), strict=True)
    ]


def to_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of one chunk; a column that a row lacks is null."""
    columns = [_column([row.get(field.name) for row in rows], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind != pa.large_binary():
        return pa.array(values, kind)
    # pa.array grows its buffer while it copies, which for payloads takes several times as long as copying them once.
    data = values[0] if len(values) == 1 and values[0] is not None else b"".join(value or b"" for value in values)
    ends = pa.array(accumulate((len(value or b"") for value in values), initial=0), pa.int64())
    present = pa.array([value is not None for value in values])
    return pa.Array.from_buffers(kind, len(values), [present.buffers()[1], ends.buffers()[1], pa.py_buffer(data)])


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
