"""Lines that were found but not cut: they stay in the bytes that hold them until somebody asks for one.

Cutting a chunk makes an object and a copy of each line, and what is packed is the same bytes once more. A request is mostly a
stretch of the chunk as it is; so what a line costs here is 16 bytes for where it begins, and no work of Python's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, overload

_PIECE_BYTES: Final = 256 * 1024
"""How much is looked through at a time for short lines: the marks of a piece lie in the processor's cache."""

_LONG_LINE_BYTES: Final = 800
"""Lines that are longer are found faster one by one."""

_LONG_LINES_AT_ONCE: Final = 512
"""After so many it is looked again whether they are long."""


class Lines(Sequence[bytes]):
    r"""Consecutive lines of one text, none of them empty and each ended by a single ``\n``, which does not belong to it."""

    __slots__ = ("_data", "starts")

    def __init__(self, data: bytes, starts: memoryview) -> None:
        r"""Take lines that were found.

        Args:
            data: the text.
            starts: int64, where each line begins in it, and behind them one more: the place behind the last line's ``\n``.
        """
        self._data = data
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        return self._data[self.starts[at] : self.starts[at + 1] - 1]

    def views(self) -> Iterator[memoryview]:
        """Each line where it lies."""
        whole = memoryview(self._data)
        return (whole[begin : end - 1] for begin, end in pairwise(self.starts))

    def stretch(self, begin: int, end: int) -> memoryview:
        r"""The lines from one to another with the ``\n`` between them, where they lie."""
        return memoryview(self._data)[self.starts[begin] : self.starts[end] - 1]

    @property
    def n_bytes(self) -> int:
        r"""How many bytes they take, each with its ``\n``."""
        n_bytes: int = self.starts[-1] - self.starts[0]
        return n_bytes

    @property
    def is_utf8(self) -> bool:
        """Whether all of them are text in UTF-8, which is much cheaper to ask of all than of each."""
        return is_utf8(self.stretch(0, len(self)))


def is_utf8(text: bytes | memoryview) -> bool:
    """Whether bytes are text in UTF-8."""
    if isinstance(text, bytes) and text.isascii():
        return True
    try:
        return str(text, "utf-8") is not None
    except UnicodeDecodeError:
        return False


def find_lines(data: bytes, begin: int, at_once: int) -> Iterator[memoryview]:
    r"""Where lines begin, by portions: the ``starts`` of a Lines each.

    Args:
        data: a text.
        begin: where its first line begins; what is behind its last ``\n`` is no line.
        at_once: how many lines a portion has at the most.
    """
    import numpy as np  # noqa: PLC0415 - a reader has it; a bare import of rayxform does without

    values = np.frombuffer(data, np.uint8)
    at = begin
    while at < len(data):
        if data.find(b"\n", at, at + _LONG_LINE_BYTES) < 0:
            ends: Any = _find_long(data, at, _LONG_LINES_AT_ONCE)
            at = ends[-1] if ends else len(data)
        else:
            ends = np.flatnonzero(values[at : at + _PIECE_BYTES] == ord("\n")) + (at + 1)
            at += _PIECE_BYTES
        for first in range(0, len(ends), at_once):
            starts: Any = np.concatenate(([begin], ends[first : first + at_once]))
            begin = int(starts[-1])
            yield memoryview(starts)


def _find_long(data: bytes, at: int, most: int) -> list[int]:
    """Where the next lines end, and the next one begins, one by one."""
    ends: list[int] = []
    while len(ends) < most and (at := data.find(b"\n", at) + 1):
        ends.append(at)
    return ends


def line_lengths(starts: memoryview) -> list[int]:
    r"""How long each of these lines is without its ``\n``."""
    import numpy as np  # noqa: PLC0415

    lengths: list[int] = (np.diff(np.asarray(starts)) - 1).tolist()
    return lengths


def has_empty(starts: memoryview) -> bool:
    """Whether one of these lines has nothing in it."""
    import numpy as np  # noqa: PLC0415

    return bool((np.diff(np.asarray(starts)) == 1).any())


def offsets_of(starts: memoryview, offset: int) -> memoryview:
    """Where these lines begin when their text begins at an offset: int64."""
    import numpy as np  # noqa: PLC0415

    moved: Any = np.asarray(starts)[:-1] + offset
    return memoryview(moved)
