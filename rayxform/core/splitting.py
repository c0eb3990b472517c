"""SplitType: bytes in, records out.

A splitter is fed an object, or one byte range of it, in chunks of any size, and gives back the records that are complete:
``feed(chunk)``, then ``flush()`` at the end. Records are found on bytes and nothing is decoded. As a record of two bytes
costs a hundred as an object, it gives them by portions of RECORDS_AT_ONCE.

A record belongs to the range that holds its first byte. A splitter for a range that begins at ``offset > 0`` is therefore fed
from byte ``offset - 1`` on: whatever ends before or at that byte belongs to the range before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import accumulate, count
from operator import add
from typing import Protocol

from rayxform.core.lines import Lines, find_lines, has_empty, offsets_of
from rayxform.errors import RecordError

RECORDS_AT_ONCE = 16 * 1024
"""The most records that a splitter gives together, however short they are."""


@dataclass
class Records:
    """Consecutive records of one object.

    Attributes:
        data: each record's bytes, without what separates it from the next.
        offsets: each record's first byte in the object.
        oversize: index in ``data`` → size in bytes, for records so long that they were not kept (``data`` holds b"" there).
        errors: index in ``data`` → what is wrong with that record's frame (``data`` holds b"" there).
    """

    data: Sequence[bytes] = field(default_factory=list)
    offsets: Sequence[int] = field(default_factory=list)
    oversize: dict[int, int] = field(default_factory=dict)
    errors: dict[int, RecordError] = field(default_factory=dict)

    def is_lost(self, index: int) -> bool:
        """Whether a record's bytes are not there."""
        return index in self.oversize or index in self.errors


class Splitter(Protocol):
    """Cuts what it is fed into records.

    Attributes:
        is_searching: whether the range's first record has not been found yet.
    """

    @property
    def is_searching(self) -> bool: ...  # noqa: D102 - described above

    def feed(self, chunk: bytes) -> Iterator[Records]:
        """Take the next bytes, while the records that they complete are taken, by portions of RECORDS_AT_ONCE at most."""

    def flush(self) -> Records:
        """The object ends here: give the last record, if there is one."""


class WholeSplitter:
    """``SplitType: None``: the object is one record; an empty object is none."""

    def __init__(self, offset: int = 0, max_record_bytes: int | None = None) -> None:
        if offset:
            raise ValueError(f"an object that is one record has no range at byte {offset}")
        self._tail = _Tail(max_record_bytes)

    is_searching = False

    def feed(self, chunk: bytes) -> Iterator[Records]:
        """Hold the bytes until the object ends."""
        self._tail.append(chunk)
        return iter(())

    def flush(self) -> Records:
        """The whole object as one record."""
        return _single(self._tail, 0)


class LineSplitter:
    r"""``SplitType: Line``: ``\n`` ends a line, a ``\r`` before it is stripped, and an empty line is no record."""

    def __init__(self, offset: int = 0, max_record_bytes: int | None = None) -> None:
        """Start at a range's first byte.

        Args:
            offset: the range's first byte; if not 0, the first byte that is fed is the one before it.
            max_record_bytes: a longer line is not kept in memory, only its size is; None keeps every line.
        """
        self._before_range = offset > 0
        self._offset = offset - 1 if offset else 0
        # One byte more, for the \r that does not count.
        self._tail = _Tail(None if max_record_bytes is None else max_record_bytes + 1)

    @property
    def is_searching(self) -> bool:
        """Whether the line that the range begins in has not ended yet."""
        return self._before_range

    def feed(self, chunk: bytes) -> Iterator[Records]:
        """The lines that end in this chunk."""
        if self._before_range:
            chunk = self._skip_to_first_line(chunk)
        begin = 0
        if self._tail.size and (begin := chunk.find(b"\n") + 1):
            yield self._cut(chunk[: begin - 1])
        has_returns = b"\r" in chunk
        for starts in find_lines(chunk, begin, RECORDS_AT_ONCE):
            begin = starts[-1]
            if has_returns or has_empty(starts):
                yield self._cut(chunk[starts[0] : begin - 1])
            else:
                yield Records(Lines(chunk, starts), offsets_of(starts, self._offset - starts[0]))
                self._offset += begin - starts[0]
        self._tail.append(chunk[begin:])

    def _cut(self, text: bytes) -> Records:
        """Whole lines, the first of which may have begun in an earlier chunk, the last without its end."""
        lines = text.split(b"\n")
        self._tail.append(lines[0])
        sizes = [self._tail.size, *map(len, lines[1:])]
        oversize = {0: self._tail.size} if self._tail.dropped else {}
        lines[0] = self._tail.take()
        offsets = list(map(add, accumulate(sizes, initial=self._offset), count()))
        self._offset = offsets.pop()
        return _without_empty(_strip_returns(lines), offsets, oversize)

    def flush(self) -> Records:
        """The last line, which needs no newline."""
        return Records() if self._before_range else _single(self._tail, self._offset)

    def _skip_to_first_line(self, chunk: bytes) -> bytes:
        end = chunk.find(b"\n") + 1
        self._offset += end or len(chunk)
        self._before_range = not end
        return chunk[end:] if end else b""


class _Tail:
    """The beginning of a record whose end has not come yet; once over the limit, only its size."""

    def __init__(self, max_bytes: int | None) -> None:
        self._max_bytes = max_bytes
        self._kept = BytesIO()  # gives what it holds without a copy
        self.size = 0
        self.dropped = False

    def append(self, piece: bytes) -> None:
        self.size += len(piece)
        if self._max_bytes is not None and self.size > self._max_bytes:
            self.dropped = True
            self._kept = BytesIO()
        else:
            self._kept.write(piece)

    def take(self) -> bytes:
        whole = self._kept.getvalue()
        self._kept = BytesIO()
        self.size, self.dropped = 0, False
        return whole


def _single(tail: _Tail, offset: int) -> Records:
    if not tail.size:
        return Records()
    oversize = {0: tail.size} if tail.dropped else {}
    return Records([tail.take()], [offset], oversize)


def _strip_returns(lines: list[bytes]) -> list[bytes]:
    return [line[:-1] if line.endswith(b"\r") else line for line in lines]


def _without_empty(lines: list[bytes], offsets: list[int], oversize: dict[int, int]) -> Records:
    if b"" not in lines:
        return Records(lines, offsets, oversize)
    kept = [index for index, line in enumerate(lines) if line or index in oversize]
    return Records([lines[i] for i in kept], [offsets[i] for i in kept], oversize)
