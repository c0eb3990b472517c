"""BatchStrategy and MaxPayloadInMB: records in, mini-batches out.

Packing is greedy: a mini-batch takes the next record as long as the request's body stays within the limit. So no request is
over the limit, none could have taken one more record, and the result depends on the object's bytes and the job alone.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count
from operator import add

from rayxform.core.lines import Lines
from rayxform.errors import RecordError, RecordTooLargeError

MIB = 1024 * 1024

RECORD_BYTES = 100
"""What Python takes for a record beside its bytes: two objects and their places in lists. Half of it for a source."""

FOUND_LINE_BYTES = 16
"""What is kept of a line that was found and not cut: where it begins in its chunk, and in the object."""

ERROR_BYTES = 1000
"""What it takes for an error, most of all for its words."""

_SHORT_RECORD_BYTES = 512
"""Shorter records are joined as they come, for as objects they would take a multiple of what they hold; longer ones once,
which is faster."""


@dataclass(frozen=True)
class Seam:
    """Where one mini-batch ends and the next begins; what a range must know of the ranges before it.

    Attributes:
        offset: the first byte of the first record after the seam.
        record: that record's number in the object, from 0.
        failed: whether the object failed before this place, so that nothing after it is sent.
    """

    offset: int
    record: int
    failed: bool = False


START = Seam(0, 0)


@dataclass(frozen=True)
class MiniBatch:
    """The records of one request.

    Attributes:
        seam: where it begins.
        n_records: how many records it holds.
        payload: the request's body; where it is a stretch of the chunk that it was read with, there, without a copy.
        source: what the join needs of each record, one JSON value a line, or None without a join.
    """

    seam: Seam
    n_records: int
    payload: bytes | memoryview
    source: bytes | None


@dataclass
class Prepared:
    """Records that went through InputFilter, all of one object and in order.

    Attributes:
        sent: what is sent of each record (of one in ``errors``, anything).
        sources: what the join needs of each record; None without a join.
        offsets: each record's first byte in the object.
        errors: index in ``sent`` → why that record cannot be sent.
    """

    sent: Sequence[bytes] = field(default_factory=list)
    sources: list[bytes] | None = None
    offsets: Sequence[int] = field(default_factory=list)
    errors: dict[int, RecordError] = field(default_factory=dict)

    @property
    def memory_bytes(self) -> int:
        """How much memory they take, about."""
        sources = self.sources or []
        objects_bytes = RECORD_BYTES // 2 * len(sources) + ERROR_BYTES * len(self.errors) + sum(map(len, sources))
        if isinstance(self.sent, Lines):
            return objects_bytes + self.sent.n_bytes + FOUND_LINE_BYTES * len(self.sent)
        return objects_bytes + RECORD_BYTES * len(self.sent) + sum(map(len, self.sent))


Packed = MiniBatch | RecordError


class Batcher:
    """Packs the records of one object, from a seam on, into mini-batches."""

    def __init__(
        self,
        seam: Seam,
        *,
        max_payload_bytes: int | None,
        max_records: int | None,
        separator: bytes,
        limit_name: str = "",
    ) -> None:
        """Start at a seam.

        Args:
            seam: where the first mini-batch begins; records before it are passed over.
            max_payload_bytes: the longest body, inclusive; None for no limit.
            max_records: the most records of one mini-batch (1 for SingleRecord); None for no limit.
            separator: what stands between the records of a body.
            limit_name: how the limit is called in an error ("MaxPayloadInMB 6").
        """
        self._max_bytes = max_payload_bytes
        self._max_records = max_records
        self._separator = separator
        self._limit_name = limit_name
        self._from_offset = seam.offset
        self._record = seam.record
        self._start_open(seam)

    @property
    def open_seam(self) -> Seam | None:
        """Where the mini-batch begins that is still open, or None where none is."""
        return self._open_seam if self._open_records else None

    @property
    def next_record(self) -> int:
        """The number, from 0, of the next record to be fed."""
        return self._record

    def feed(self, records: Prepared) -> Iterator[Packed]:
        """Take the next records; give the mini-batches that they complete, and an error for each bad record, in order."""
        begin = bisect_left(records.offsets, self._from_offset)
        for index in (*(i for i in sorted(records.errors) if i >= begin), len(records.sent)):
            yield from self._pack(records, begin, index)
            if index < len(records.sent):
                yield from self.flush()
                yield self._placed(records.errors[index], records.offsets[index])
                self._record += 1
            begin = index + 1

    def flush(self) -> Iterator[MiniBatch]:
        """Give the mini-batch that is still open."""
        if self._open_records:
            payload = _joined(self._separator, self._open_sent)
            self._open_sent.clear()
            source = b"\n".join(self._open_sources) if self._open_sources else None
            batch = MiniBatch(self._open_seam, self._open_records, payload, source)
            del payload, source  # the next is packed while this generator still has its names
            self._start_open(self._open_seam)
            yield batch

    def _pack(self, records: Prepared, begin: int, end: int) -> Iterator[Packed]:
        gap = len(self._separator)
        ends = _ends(records.sent, begin, end, gap)
        size = len(ends) - 1
        at = 0
        while at < size:
            stop = self._last_that_fits(ends, at, gap)
            if stop > at:
                self._open(records, begin + at, begin + stop, ends[stop] - ends[at])
                at = stop
            elif self._open_records:
                yield from self.flush()
            else:
                yield self._too_large(len(records.sent[begin + at]), records.offsets[begin + at])
                self._record += 1
                at += 1
            if self._is_full():
                yield from self.flush()

    def _last_that_fits(self, ends: Sequence[int], at: int, gap: int) -> int:
        stop = len(ends) - 1
        if self._max_bytes is not None:
            # ends counts a separator after every record; the last one of a body has none.
            stop = bisect_right(ends, ends[at] + self._max_bytes - self._open_bytes + gap, at) - 1
        if self._max_records is not None:
            stop = min(stop, at + self._max_records - self._open_records)
        return min(stop, len(ends) - 1)

    def _is_full(self) -> bool:
        return self._max_records is not None and self._open_records >= self._max_records

    def _open(self, records: Prepared, begin: int, end: int, n_bytes: int) -> None:
        if not self._open_records:
            self._open_seam = Seam(records.offsets[begin], self._record)
        self._open_sent += _compact(self._separator, records.sent, begin, end)
        if records.sources is not None:
            self._open_sources += _compact(b"\n", records.sources, begin, end)
        self._open_bytes += n_bytes
        self._open_records += end - begin
        self._record += end - begin

    def _start_open(self, seam: Seam) -> None:
        self._open_seam = seam
        self._open_sent: list[bytes | memoryview] = []
        self._open_sources: list[bytes | memoryview] = []
        self._open_bytes: int = 0
        self._open_records: int = 0

    def _too_large(self, n_bytes: int, offset: int) -> RecordTooLargeError:
        return too_large(n_bytes, self._max_bytes or 0, self._limit_name, record=self._record, offset=offset)

    def _placed(self, error: RecordError, offset: int) -> RecordError:
        return type(error)(error.reason, self._record, offset)


def _joined(separator: bytes, pieces: Sequence[bytes | memoryview]) -> bytes | memoryview:
    """Pieces as one; a single stretch of lines as it is."""
    return pieces[0] if len(pieces) == 1 and isinstance(pieces[0], memoryview) else separator.join(pieces)


def _ends(records: Sequence[bytes], begin: int, end: int, gap: int) -> Sequence[int]:
    """Where each of some records begins in a body of all of them, and where one more would; counted from anywhere."""
    if isinstance(records, Lines):
        return records.starts[begin : end + 1]
    return list(map(add, accumulate(map(len, records[begin:end]), initial=0), count(0, gap)))


def _compact(separator: bytes, records: Sequence[bytes], begin: int, end: int) -> Sequence[bytes | memoryview]:
    """Some records, or if they are short all of them joined."""
    if isinstance(records, Lines):
        return [records.stretch(begin, end)]
    some = records[begin:end]
    return some if sum(map(len, some)) >= _SHORT_RECORD_BYTES * len(some) else [separator.join(some)]


def too_large(n_bytes: int, max_bytes: int, limit_name: str, *, record: int, offset: int) -> RecordTooLargeError:
    """The error for a record that alone is over the limit."""
    needed = -(-n_bytes // MIB)
    remedy = f"raise MaxPayloadInMB to {needed}" if needed <= 100 else "split the record; AWS allows at most 100"
    limit = f"{limit_name} = {max_bytes} bytes" if limit_name else f"{max_bytes} bytes"
    return RecordTooLargeError(f"the record is {n_bytes} bytes, over the limit of {limit}; {remedy}", record, offset)
