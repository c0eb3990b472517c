"""The Arrow tables that travel: mini-batches from readers to workers, and what became of them from workers to the driver.

Ray may slice, bundle or fuse blocks but never splits a row. So a block is one row that holds all that a task takes or gives:
a request stays what it was packed to be, a worker gets exactly the work that the reader measured out for it, and what it
says of a thousand small objects comes back at once.

The row is bytes: MessagePack of what is known of each mini-batch, and behind one another the bodies. As Arrow columns, ten or
twenty of them nested, the same took Ray 5 ms to pickle and unpickle for each block; a worker on a fast model did little else.
A mini-batch whose ``error`` is set, or that marks the end of its object, passes the model by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec
import pyarrow as pa

_BATCH: Final = dict.fromkeys(
    ("file", "object", "input", "first_record", "n_records", "offset", "source", "staged", "error", "read_s")
)
"""A mini-batch; ``input`` is its object, encoded, which is looked into only after an error. One with neither payload nor
error is the end of its object; first_record is then the count. One with an error and a record is a bad record that
OnRecordError lets pass; one with an error and none ends its object. ``staged`` is what input_fn made of the payload."""

_MANIFEST: Final = dict.fromkeys(
    (
        "file",
        "first_record",
        "n_records",
        "n_requests",
        "input_bytes",
        "output_bytes",
        "part",
        "grown_to",
        "error",
        "record_errors",
        "total_records",
        "read_s",
        "model_s",
        "join_s",
        "write_s",
        "started_at",
        "finished_at",
        "first_finished_at",
        "first_finished_records",
        "warning",
        "events",
    )
)
"""What a worker gives, a row a part: small enough that the driver sees every one of them. An ``error`` ends its file;
``grown_to`` is how long the file's output was when the part had been appended to it, None where the part is a file of its own;
``record_errors`` are those of records that OnRecordError lets pass, ``events`` what happened in the block besides."""

BATCHES_SCHEMA: Final = pa.schema([("rows", pa.large_binary()), ("bodies", pa.large_binary())])
"""What a reader gives: one row, the mini-batches of one task."""

MANIFEST_SCHEMA: Final = pa.schema([("rows", pa.large_binary())])
"""What a worker gives: one row, what became of them."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[dict[str, Any]]).decode
_BODIES: Final = ("payload", "source", "staged")


def pack_batches(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Mini-batches as a block: a table of one row. A row's ``payload``, ``source`` and ``staged`` are bytes or None."""
    bodies = [body for row in rows for name in _BODIES if (body := row.get(name))]
    sizes = [row | {name: None if row.get(name) is None else len(row[name]) for name in _BODIES} for row in rows]
    return _table(BATCHES_SCHEMA, _encode(sizes), bodies[0] if len(bodies) == 1 else b"".join(bodies))


def unpack_batches(block: pa.Table) -> list[tuple[dict[str, Any], memoryview | None]]:
    """The mini-batches of a block and their payloads, which stay where they are, as what is staged does."""
    ((rows, bodies),) = zip(_values(block, "rows"), _values(block, "bodies"), strict=True)
    batches = []
    at = 0
    for row in _decode(rows):
        views: list[memoryview | None] = []
        for size in (row.pop(name) for name in _BODIES):
            views.append(None if size is None else bodies[at : at + size])
            at += size or 0
        payload, source, staged = views
        batches.append((_BATCH | row | {"source": None if source is None else bytes(source), "staged": staged}, payload))
    return batches


def pack_manifest(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Manifest rows as a block."""
    return _table(MANIFEST_SCHEMA, _encode(rows))


def unpack_manifest(block: pa.Table) -> Iterator[dict[str, Any]]:
    """The manifest rows of blocks that Ray may have put together; what a row does not say is None."""
    for rows in _values(block, "rows"):
        yield from (_MANIFEST | row for row in _decode(rows))


def _table(schema: pa.Schema, *values: bytes) -> pa.Table:
    """A table of one row. ``pa.array`` would copy the values, and grow its buffer while it does."""
    columns = []
    for value in values:
        ends = pa.py_buffer(b"".join(end.to_bytes(8, "little") for end in (0, len(value))))
        columns.append(pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(value)]))
    return pa.Table.from_arrays(columns, schema=schema)


def _values(block: pa.Table, name: str) -> Iterator[memoryview]:
    """Each row's bytes where they lie; Arrow's own scalars hold a copy."""
    for array in block.column(name).chunks:
        _, offsets, data = array.buffers()
        ends = memoryview(offsets).cast("q")[array.offset : array.offset + len(array) + 1]
        whole = memoryview(data if data is not None else b"")
        yield from (whole[begin:end] for begin, end in pairwise(ends))
