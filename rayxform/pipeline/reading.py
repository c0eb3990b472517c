"""A byte range's mini-batches, read from storage.

Ranges of one object are read at once; each first reads, splits and filters some of its own, and only then needs the seam that
the range before it ended with. So the wait is short, and one large object is read by as many readers as there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Protocol

from rayxform.core.batching import MIB, START, Packed, Prepared, Seam, too_large
from rayxform.core.ranges import OBJECT_END, Recipe, meet_seam, pack_range, prepare_chunks
from rayxform.errors import RecordTooLargeError
from rayxform.pipeline.planning import ByteRange
from rayxform.storage.reading import AHEAD_BYTES, CHUNK_BYTES, ObjectReader

HELD_BYTES = 16 * MIB
"""How much memory the records of its own take that a reader has before it knows where its first mini-batch begins."""

_CHUNKS_IN_HAND = 7

RANGE_BUFFER_BYTES = HELD_BYTES + _CHUNKS_IN_HAND * CHUNK_BYTES + AHEAD_BYTES
"""The range buffer: what a reader has in memory beside its requests, whatever bytes an object holds. It is 60 MiB:

- HELD_BYTES, 16 MiB: records that wait for the seam;
- seven times CHUNK_BYTES, 28 MiB: a chunk as it was read, with the rest of the chunk before it, as records, as what is sent
  of them, that in frames, and as what a join keeps of them, which may be longer by a third (base64). Where records are so
  short that they cost more as objects than the bytes that they hold, the splitter's RECORDS_AT_ONCE bound that: 16,384
  records take less than a chunk, and 16,384 errors 16 MiB;
- AHEAD_BYTES, 16 MiB: chunks or small objects that are fetched ahead, but not from a disk.

A reader holds 2 x MaxPayload beside it: the request that is packed, and what is joined to it or is being put together as its
next record. What a join keeps of a request's records counts as a part of that request, though MaxPayload does not limit it.
With MaxPayloadInMB 0 a request is as long as its records, and with an InputFilter, which comes first, a record that is
filtered below the limit may itself be longer; then that record takes MaxPayload's place.
"""

SEAM_WAIT_S = 10.0
"""How long a reader waits for the range before its own until it reads that range itself: its reader may be held up, or lost."""


class Seams(Protocol):
    """Where the ranges of an object tell each other how far they came, and all readers what is settled for the job."""

    def tell(self, one: ByteRange, seam: Seam) -> None:
        """The range after ``one`` begins at ``seam``."""

    def wait(self, one: ByteRange, timeout_s: float) -> Seam | None:
        """Where ``one`` begins, or None if that is not known in time."""

    def settle(self, n_bytes: int) -> int:
        """How small blocks may be: what the first reader said that was asked."""


class NoSeams:
    """For objects of one range, which have nobody to tell."""

    def tell(self, one: ByteRange, seam: Seam) -> None:
        """Nobody asks."""

    def wait(self, one: ByteRange, timeout_s: float) -> Seam | None:
        """Nobody knows."""
        del one, timeout_s
        return None

    def settle(self, n_bytes: int) -> int:
        """What is said."""
        return n_bytes


def read_range(
    one: ByteRange, recipe: Recipe, seams: Seams, *, stop_at_error: bool = True, reader: ObjectReader | None = None
) -> Iterator[Packed | Seam]:
    """The mini-batches that begin in a range, in order.

    Args:
        one: the range.
        recipe: how records become requests.
        seams: where the neighbours are asked and told.
        stop_at_error: whether the first bad record ends its object.
        reader: what reads the object; None for one that knows nothing of others.

    Yields:
        Mini-batches, and an error for each bad record; last, for the range at the object's end, the seam behind its last
        record, which holds their count.

    Raises:
        StorageError: the object cannot be read, or is no longer what was listed.
    """
    if error := _refuse_unread(one, recipe):
        yield error
        return
    reader = reader or ObjectReader()
    seam = START if one.index == 0 else seams.wait(one, timeout_s=0)
    if seam is not None:
        prepared = _prepared_from(seam, one, recipe, reader)
    else:
        held, rest = _read_own(one, recipe, reader)
        known = seams.wait(one, SEAM_WAIT_S)
        if known is None:
            held, rest = [], iter(())  # two ranges are not held at once
            seam = _find_seam(one, recipe, seams, stop_at_error=stop_at_error)
            prepared = _prepared_from(seam, one, recipe, reader)
        else:
            seam, prepared = known, chain(_let_go(held), rest)
            if recipe.is_framed:
                prepared = meet_seam(prepared, known, lambda: _prepared_from(known, one, recipe, reader))
    told: list[Seam] = []

    def tell(after: Seam) -> None:
        told.append(after)
        seams.tell(one, after)

    yield from pack_range(recipe, prepared, seam, one.end, tell=tell, stop_at_error=stop_at_error)
    if one.end is None and not told[0].failed:
        yield told[0]


def _prepared_from(seam: Seam, one: ByteRange, recipe: Recipe, reader: ObjectReader) -> Iterator[Prepared]:
    """The records of a range from the seam on at which it begins; none if no mini-batch begins in it."""
    begin = seam.offset
    if seam.failed or begin >= (OBJECT_END if one.end is None else one.end):
        return iter(())
    return _prepared(one, recipe, reader, begin, aligned=True)


def _prepared(one: ByteRange, recipe: Recipe, reader: ObjectReader, begin: int, *, aligned: bool) -> Iterator[Prepared]:
    chunks = reader.chunks(one.source, max(begin - 1, 0), one.end)
    object_bytes = one.source.size if one.source.compression is None else None
    return prepare_chunks(recipe, chunks, begin, aligned=aligned, end=one.end, object_bytes=object_bytes)


def _refuse_unread(one: ByteRange, recipe: Recipe) -> RecordTooLargeError | None:
    """An object that is one record, and by its size alone over the limit, need not be read to be refused."""
    limit = recipe.max_payload_bytes
    may_fit = recipe.split_type != "None" or not recipe.sends_raw_records or one.source.compression is not None
    if may_fit or limit is None or one.source.size <= limit:
        return None
    return too_large(one.source.size, limit, recipe.limit_name, record=0, offset=0)


def _read_own(one: ByteRange, recipe: Recipe, reader: ObjectReader) -> tuple[list[Prepared], Iterator[Prepared]]:
    """What begins within the range, as far as HELD_BYTES go, and the little that was read with it; and what comes then."""
    prepared = _prepared(one, recipe, reader, one.begin, aligned=False)
    held: list[Prepared] = []
    held_bytes = 0
    for records in prepared:
        held.append(records)
        held_bytes += records.memory_bytes
        is_behind_end = one.end is not None and records.offsets[-1] >= one.end
        if is_behind_end or held_bytes >= HELD_BYTES:
            break
    return held, prepared


def _let_go(held: list[Prepared]) -> Iterator[Prepared]:
    """What was held, which then is kept no longer than its turn takes."""
    held.reverse()
    while held:
        yield held.pop()


def _find_seam(one: ByteRange, recipe: Recipe, seams: Seams, *, stop_at_error: bool) -> Seam:
    """Where a range begins, from the nearest range before it of which that is known."""
    unknown: list[ByteRange] = []
    seam: Seam | None = None
    at = one
    while seam is None:
        at = at.before
        unknown.append(at)
        seam = START if at.index == 0 else seams.wait(at, timeout_s=0)
    for before in reversed(unknown):
        told: list[Seam] = []
        prepared = _prepared_from(seam, before, recipe, ObjectReader())
        for packed in pack_range(recipe, prepared, seam, before.end, tell=told.append, stop_at_error=stop_at_error):
            del packed  # which its own reader gives
        seam = told[0]
        seams.tell(before, seam)
    return seam
