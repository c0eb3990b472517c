"""``SplitType`` ``TFRecord`` and ``RecordIO``: records in frames that say how long they are.

A TFRecord frame (TensorFlow, "TFRecord and tf.train.Example", "TFRecords format details") is the content's length, a CRC of
the length, the content, and a CRC of the content; both are masked CRC-32C. A RecordIO frame (dmlc-core, ``recordio.h``) is
a magic number, a word of flag and length, and the content, padded to four bytes; content that holds the magic number itself
is cut there, into several frames.

Where a byte range begins in the middle of an object, the next frame is looked for, by the length's CRC or the magic number.
What is found may be a frame within a record's content. So whoever learns where a record begins has to see whether this
splitter's records meet that place, and else start another one there (``aligned``).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from struct import Struct
from typing import Any

import google_crc32c

from rayxform.core.splitting import RECORDS_AT_ONCE, Records
from rayxform.errors import FrameError, RecordError

_WORD = Struct("<I")
_MAGIC = b"\x0a\x23\xd7\xce"
_LENGTH_BITS = 29
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
"""A RecordIO frame's flag: which part of a record it holds."""

_SEARCH_BYTES = 256 * 1024
"""How much is searched for a frame at once, in arrays of so many numbers."""

_MAX_FOUND_BYTES = 8 * 1024 * 1024
"""What is found as the length of a longer record is taken for something else, where nothing else limits a record: it would be
held until it could be told from content. If it was a record, the seam shows that, and the range is read from there."""

_LONG_BYTES = 1024 * 1024
"""A longer frame is put together alone, and its CRC is taken piece by piece, so that it is not in memory several times."""

_CHECKS_PER_BYTE = 4
"""How often a byte may be part of what is checked as a frame's content, on average, while a frame is looked for. Content
that is made of lengths could ask for it at every twelfth byte. What is found then goes unchecked: the seam shows it."""


@dataclass
class _Frames(Records):
    """Records that are found one by one."""

    data: list[bytes] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)


class FrameSplitter(ABC):
    """Cuts what it is fed into framed records; a subclass knows its frames."""

    header_bytes: int

    def __init__(
        self,
        offset: int = 0,
        max_record_bytes: int | None = None,
        *,
        keep_frames: bool = False,
        aligned: bool = False,
        object_bytes: int | None = None,
    ) -> None:
        """Start at a range's first byte.

        Args:
            offset: that byte; if not 0, the first byte that is fed is the one before it.
            max_record_bytes: of a longer record only the size is kept; None keeps every record.
            keep_frames: whether records are given in their frames, or without.
            aligned: whether a record begins at ``offset``; else the first one behind it is looked for.
            object_bytes: the object's size, so that a frame that says to be longer is not waited for; None if not known.
        """
        self._offset = offset
        self._passing = min(offset, 1)
        self._searching = offset > 0 and not aligned
        self._broken = False
        self._max_bytes = max_record_bytes
        self._keep_frames = keep_frames
        self._object_bytes = object_bytes
        self._buffer = BytesIO()  # gives what it holds without a copy
        self._held = 0
        self._needed = self.header_bytes
        self._open_offset: int | None = None
        if offset:
            self._offset -= 1

    @property
    def is_searching(self) -> bool:
        """Whether no frame has been found yet."""
        return self._searching

    def feed(self, chunk: bytes) -> Iterator[Records]:
        """The records that end in this chunk."""
        passed = len(chunk) if self._broken else min(self._passing, len(chunk))
        self._passing -= min(self._passing, passed)
        self._offset += passed
        if passed:
            chunk = chunk[passed:]
        if self._needed > _LONG_BYTES and self._held + len(chunk) > self._needed:
            missing = self._needed - self._held
            self._hold(chunk[:missing])
            yield from self._cut()
            yield from self.feed(chunk[missing:])
            return
        self._hold(chunk)
        if self._held >= self._needed:
            yield from self._cut()

    def _hold(self, chunk: bytes) -> None:
        self._buffer.write(chunk)
        self._held += len(chunk)

    def flush(self) -> Records:
        """The object ends here, which is an error within a record."""
        if self._searching or (not self._held and self._open_offset is None):
            return Records()
        offset = self._offset if self._open_offset is None else self._open_offset
        return Records([b""], [offset], errors={0: _cut_short(self._needed - self._held)})

    def _cut(self) -> Iterator[Records]:
        data = self._buffer.getvalue()
        at = 0
        if self._searching:
            found = self._find(data)
            self._searching = found < 0
            at = found if found >= 0 else len(data) - self.header_bytes + 1
        records = _Frames()
        if not self._searching:
            at = self._take(data, at, records)
        while len(records.data) == RECORDS_AT_ONCE:
            yield records
            records = _Frames()
            at = self._take(data, at, records)
        self._passing = max(at - len(data), 0)
        rest = data[at:] if at else data
        self._offset += len(data) - len(rest)
        self._buffer, self._held = BytesIO(), 0
        self._hold(rest)
        del data  # what a long record has been copied from
        yield records

    def _add(self, records: _Frames, at: int, data: bytes = b"") -> int:
        """Add a record, b"" for one that is lost; gives its index."""
        records.data.append(data)
        records.offsets.append(self._offset + at)
        return len(records.data) - 1

    def _break(self, records: _Frames, at: int, error: FrameError) -> None:
        """Give up on the rest of the object: without the length there is no next frame."""
        records.errors[self._add(records, at)] = error
        self._broken = True
        self._open_offset = None

    def _missing_bytes(self, end: int) -> int:
        """How much longer the object would have to be for a frame to end there."""
        return 0 if self._object_bytes is None else self._offset + end - self._object_bytes

    def _is_too_long(self, content_bytes: int, frame_bytes: int) -> bool:
        return self._max_bytes is not None and (frame_bytes if self._keep_frames else content_bytes) > self._max_bytes

    @abstractmethod
    def _find(self, data: bytes) -> int:
        """Where the first frame of the data begins, or -1."""

    @abstractmethod
    def _take(self, data: bytes, at: int, records: _Frames) -> int:
        """Take frames from ``at`` on, RECORDS_AT_ONCE of them at most, and give where the first one begins that is not taken.

        Sets ``_needed``, how many bytes from there on complete that one.
        """


class TFRecordSplitter(FrameSplitter):
    """``SplitType: TFRecord``: both CRCs of every frame are checked."""

    header_bytes = 12
    _header = Struct("<QI")

    def _find(self, data: bytes) -> int:
        left_bytes = _CHECKS_PER_BYTE * len(data)
        for begin in range(0, len(data) - self.header_bytes + 1, _SEARCH_BYTES):
            for found in _find_lengths(data[begin : begin + _SEARCH_BYTES + self.header_bytes - 1]):
                at = begin + found
                length = self._header.unpack_from(data, at)[0]
                if length > (_MAX_FOUND_BYTES if self._max_bytes is None else self._max_bytes):
                    continue
                left_bytes -= length
                if left_bytes < 0 or self._may_be_frame(data, at, length):
                    return at
        return -1

    def _may_be_frame(self, data: bytes, at: int, length: int) -> bool:
        """Whether what looks like a length is one: eight bytes of content, followed by their CRC, look like that too."""
        end = at + length + 16
        if end > len(data):
            return self._missing_bytes(end) <= 0
        content_crc: int = _WORD.unpack_from(data, end - 4)[0]
        return _mask(google_crc32c.value(data[at + 12 : end - 4])) == content_crc

    def _take(self, data: bytes, at: int, records: _Frames) -> int:
        size = len(data)
        unpack, word, crc32c, keep_frames = self._header.unpack_from, _WORD.unpack_from, google_crc32c.value, self._keep_frames
        max_bytes = size if self._max_bytes is None else self._max_bytes
        self._needed = self.header_bytes
        while size - at >= 12 and len(records.data) < RECORDS_AT_ONCE:
            length, length_crc = unpack(data, at)
            if _mask(crc32c(data[at : at + 8])) != length_crc:
                self._break(records, at, _no_next("the CRC-32C of the record's length is wrong"))
                return size
            end = at + length + 16
            if length + 16 > max_bytes and self._is_too_long(length, length + 16):
                records.oversize[self._add(records, at)] = length + 16 if keep_frames else length
                at = end
                continue
            if end > size:
                if (missing := self._missing_bytes(end)) > 0:
                    self._break(records, at, _cut_short(missing))
                    return size
                self._needed = end - at
                break
            content = data[at + 12 : end - 4] if length < _LONG_BYTES or not keep_frames else b""
            if _mask(crc32c(content) if content else _long_crc(data, at + 12, end - 4)) != word(data, end - 4)[0]:
                reason = f"the CRC-32C of the record's {length} bytes is wrong: the object is damaged, write it again"
                records.errors[self._add(records, at)] = RecordError(reason)
            else:
                records.data.append(data[at:end] if keep_frames else content)
                records.offsets.append(self._offset + at)
            at = end
        return at


def _long_crc(data: bytes, begin: int, end: int) -> int:
    """The CRC-32C of a part of the data, of which no more than a piece is copied."""
    crc = 0
    for at in range(begin, end, _LONG_BYTES):
        crc = google_crc32c.extend(crc, data[at : min(at + _LONG_BYTES, end)])
    return crc


def tfrecord_frame(content: bytes) -> bytes:
    """The content in a TFRecord frame."""
    length = len(content).to_bytes(8, "little")
    crcs = (_WORD.pack(_mask(google_crc32c.value(part))) for part in (length, content))
    return b"".join((length, next(crcs), content, next(crcs)))


def _mask(crc: int) -> int:
    """TFRecord's masked CRC: of data that holds CRCs a bare one would be weak."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _find_lengths(data: bytes) -> list[int]:
    """Where eight bytes are followed by their masked CRC.

    A CRC is linear: that of eight bytes is the exclusive or of one table entry a byte. So all places are tried at once.
    """
    import numpy as np  # noqa: PLC0415 - only a range in the middle of an object needs it

    values = np.frombuffer(data, np.uint8)
    count = len(values) - 11
    if count < 1:
        return []
    tables, constant = _length_tables()
    crc = np.full(count, constant, np.uint32)
    for index in range(8):
        crc ^= tables[index][values[index : index + count]]
    masked = (crc >> np.uint32(15) | crc << np.uint32(17)) + np.uint32(0xA282EAD8)
    stored = np.zeros(count, np.uint32)
    for index in range(4):
        stored |= values[8 + index : 8 + index + count].astype(np.uint32) << np.uint32(8 * index)
    places: list[int] = np.flatnonzero(masked == stored).tolist()
    return places


@functools.cache
def _length_tables() -> tuple[Any, int]:
    """For each of eight bytes and each of its values what it adds to the CRC; and the CRC of eight zeros."""
    import numpy as np  # noqa: PLC0415

    constant: int = google_crc32c.value(bytes(8))
    rows = [
        [google_crc32c.value(bytes(at) + bytes([value]) + bytes(7 - at)) ^ constant for value in range(256)] for at in range(8)
    ]
    return np.array(rows, np.uint32), constant


class RecordIOSplitter(FrameSplitter):
    """``SplitType: RecordIO``: a record that was written in several frames is put together."""

    header_bytes = 8
    _header = Struct("<4sI")

    def _find(self, data: bytes) -> int:
        at = data.find(_MAGIC)
        while 0 <= at <= len(data) - self.header_bytes:
            flag = _WORD.unpack_from(data, at + 4)[0] >> _LENGTH_BITS
            if (self._offset + at) % 4 == 0 and flag in (_WHOLE, _FIRST):
                return at
            at = data.find(_MAGIC, at + 1)
        return -1

    _dropping = False
    """Whether the frames that come next belong to a record that was too long to be kept."""

    _open_bytes = 0
    """How much content the open record has, what is kept of whose frames so far is in ``_open``."""

    def _take(self, data: bytes, at: int, records: _Frames) -> int:
        size = len(data)
        self._needed = self.header_bytes
        while size - at >= self.header_bytes and len(records.data) < RECORDS_AT_ONCE:
            magic, word = self._header.unpack_from(data, at)
            flag, length = word >> _LENGTH_BITS, word & (1 << _LENGTH_BITS) - 1
            begin = at if self._open_offset is None else self._open_offset - self._offset
            is_first, is_last = flag in (_WHOLE, _FIRST), flag in (_WHOLE, _LAST)
            if magic != _MAGIC or is_first != (begin == at and not self._dropping):
                self._break(records, begin, _no_next(_not_a_frame(magic, flag, self._offset + at)))
                return size
            end = at + self.header_bytes + length + -length % 4
            content_bytes = length if is_first else self._open_bytes + len(_MAGIC) + length
            if self._dropping or self._is_too_long(content_bytes, end - begin):
                if not self._dropping:
                    records.oversize[self._add(records, begin)] = end - begin if self._keep_frames else content_bytes
                self._open_offset, self._dropping = None, not is_last
            elif end > size:
                if (missing := self._missing_bytes(end)) > 0:
                    self._break(records, begin, _cut_short(missing))
                    return size
                self._needed = end - at
                break
            else:
                kept = data[at:end] if self._keep_frames else data[at + self.header_bytes : at + self.header_bytes + length]
                self._take_frame(records, begin, kept, content_bytes, flag)
            at = end
        return at

    def _take_frame(self, records: _Frames, begin: int, kept: bytes, content_bytes: int, flag: int) -> None:
        """Take what is kept of a frame: a record, or a part of the open one, from which it is separated by a magic number."""
        if flag == _WHOLE:
            self._add(records, begin, kept)
            return
        if flag == _FIRST:
            self._open, self._open_offset = BytesIO(), self._offset + begin
        elif not self._keep_frames:
            self._open.write(_MAGIC)
        self._open.write(kept)
        self._open_bytes = content_bytes
        if flag == _LAST:
            self._add(records, begin, self._open.getvalue())
            self._open_offset = None


def recordio_frame(content: bytes) -> bytes:
    """The content in RecordIO frames: one, or more if the magic number is in it, at a place where a frame could be."""
    parts, begin = [], 0
    at = content.find(_MAGIC)
    while at >= 0:
        if at % 4 == 0:
            parts.append(content[begin:at])
            begin = at + 4
        at = content.find(_MAGIC, at + (4 if at % 4 == 0 else 1))
    parts.append(content[begin:])
    flags = [_WHOLE] if len(parts) == 1 else [_FIRST, *[_MIDDLE] * (len(parts) - 2), _LAST]
    return b"".join(
        b"".join((_MAGIC, _WORD.pack(flag << _LENGTH_BITS | len(part)), part, bytes(-len(part) % 4)))
        for flag, part in zip(flags, parts, strict=True)
    )


def _not_a_frame(magic: bytes, flag: int, offset: int) -> str:
    if magic != _MAGIC:
        return f"no RecordIO frame begins at byte {offset}: there is {magic.hex()} instead of {_MAGIC.hex()}"
    return f"the RecordIO frame at byte {offset} is out of place: its flag is {flag}"


def _cut_short(missing_bytes: int) -> FrameError:
    return FrameError(f"the object ends {missing_bytes} bytes before the record does; it was cut short, write it again")


def _no_next(reason: str) -> FrameError:
    return FrameError(f"{reason}; the rest of the object cannot be read, write it again")
