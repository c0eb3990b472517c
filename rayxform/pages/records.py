"""One record of an input as a person can read it: found by its offset, its JSON laid out, images in it shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import msgspec

from rayxform.core.examples import attributes_of
from rayxform.core.joining import PassThrough
from rayxform.core.media import media_type
from rayxform.core.ranges import Recipe
from rayxform.core.splitting import Records
from rayxform.errors import RecordError
from rayxform.pages.pictures import Budget, Picture, picture_of, pictures_in
from rayxform.pipeline.planning import make_recipe
from rayxform.spec import TransformJob
from rayxform.storage.objects import InputObject
from rayxform.storage.reading import read_chunks

TEXT_CHARACTERS = 4096
"""The most of a record that is shown."""
LONGEST_TEXT = 160
"""The most of one text in a JSON record that is shown."""
RECORD_BYTES = 512 * 1024
"""The longest record that is looked into; room for an image in base64."""
DECOMPRESSED_BYTES = 64 * 1024 * 1024
"""How far a compressed object is read to find a record: it has no ranges."""
PICTURES = 4
"""The most images of one record."""
_CHUNK_BYTES = 64 * 1024
_LONG_ONES = 8
_DUMP_BYTES = 256

# A JSON text, or an array of what is none: the first are cut, the second put on one line.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\[[^\[\]{}"]*\]')
_CONTROLS = {number: chr(0x2400 + number) for number in range(0x20) if number not in (0x09, 0x0A)} | {0x7F: "\u2421"}
_TURNS = {number: f"<U+{number:04X}>" for number in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}


@dataclass(frozen=True)
class RecordView:
    """A record as it is shown.

    Attributes:
        text: what it says; bytes that are no text as hexadecimal numbers.
        pictures: the images in it.
        note: what is left out, or why nothing is shown; "" if there is nothing to say.
    """

    text: str = ""
    pictures: tuple[Picture, ...] = ()
    note: str = ""


class RecordBudget(Budget):
    """A budget of images for records."""

    def limit(self, view: RecordView) -> RecordView:
        """A record with those of its images that the page has room for."""
        return replace(view, pictures=self.take(view.pictures))


def visible(text: str) -> str:
    """A text without what a reader would not see: control characters, and those that turn the direction of what follows."""
    return text.translate(_CONTROLS | _TURNS)


class RecordReader:
    """Reads records of a job's inputs, each without its frame."""

    def __init__(self, job: TransformJob) -> None:
        """Prepare for a job's SplitType and ContentType."""
        self._job = job
        self._recipe: Recipe = replace(
            make_recipe(job), multi_record=False, max_payload_bytes=RECORD_BYTES, processing=PassThrough()
        )

    def at(self, source: InputObject, offset: int) -> RecordView:
        """The record at a byte of an object.

        Raises:
            StorageError: it cannot be read.
        """
        if self._job.split_type == "None" and source.compression is None:
            return self._whole(source)
        if source.compression is not None and offset > DECOMPRESSED_BYTES:
            return RecordView(note=f"not shown: it is behind the first {DECOMPRESSED_BYTES:,} bytes of a compressed object")
        for record, lost in self._records(source, offset, 1):
            return RecordView(note=f"not shown: {lost}") if lost else self.view(record)
        is_long = source.size - offset > RECORD_BYTES or source.compression is not None
        gone = "no record begins there any more: the input has changed"
        return RecordView(note=f"not shown: it has more than {RECORD_BYTES:,} bytes" if is_long else gone)

    def first(self, source: InputObject, count: int) -> list[RecordView]:
        """The first records of an object.

        Raises:
            StorageError: it cannot be read.
        """
        if self._job.split_type == "None" and source.compression is None:
            return [self._whole(source)] if source.size else []
        found: list[RecordView] = []
        for record, lost in self._records(source, 0, count):
            found.append(RecordView(note=f"not shown: {lost}") if lost else self.view(record))
        return found

    def view(self, record: bytes) -> RecordView:
        """A record's bytes as they are shown."""
        if self._job.holds_examples:
            try:
                record = msgspec.json.encode(attributes_of(record, None))
            except RecordError:
                return RecordView(_dump(record), note=f"{len(record):,} bytes, which are not a tf.train.Example")
        return view_of(record)

    def _whole(self, source: InputObject) -> RecordView:
        data = b"".join(_first_bytes(read_chunks(source, 0, RECORD_BYTES, _CHUNK_BYTES), RECORD_BYTES))
        if media_type(self._job.content_type).startswith("image/") or len(data) == source.size:
            picture = picture_of(data, "", source.size)
            if picture is not None:
                return RecordView(pictures=(picture,))
        view = view_of(data)
        more = f"the first {len(data):,} of {source.size:,} bytes" if len(data) < source.size else ""
        return replace(view, note=more or view.note)

    def _records(self, source: InputObject, offset: int, count: int) -> Iterator[tuple[bytes, str]]:
        """The first records from an offset on, each with why it is lost, or ""; fewer where they are too far."""
        return islice(self._all_records(source, offset, min(count, _LONG_ONES) * RECORD_BYTES), count)

    def _all_records(self, source: InputObject, offset: int, max_bytes: int) -> Iterator[tuple[bytes, str]]:
        is_compressed = source.compression is not None
        begin = 0 if is_compressed else offset
        end = offset + max_bytes + _CHUNK_BYTES
        splitter = self._recipe.splitter(begin, aligned=True, object_bytes=None if is_compressed else source.size)
        at = max(begin - 1, 0)
        for chunk in read_chunks(source, at, None if is_compressed else begin + _CHUNK_BYTES, _CHUNK_BYTES):
            for records in splitter.feed(chunk):
                yield from _from(records, offset)
            at += len(chunk)
            if at > end:
                return
        yield from _from(splitter.flush(), offset)


def view_of(record: bytes) -> RecordView:
    """Some bytes as they are shown: JSON laid out, with its images; other text as it is; bytes as hexadecimal numbers."""
    picture = picture_of(record)
    if picture is not None:
        return RecordView(pictures=(picture,))
    try:
        value = msgspec.json.decode(record)
        text = _laid_out(record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _text_view(record)
    shown, note = _cut(text)
    return RecordView(shown, tuple(islice(pictures_in(value), PICTURES)), note)


def _text_view(record: bytes) -> RecordView:
    try:
        text = record.decode()
    except UnicodeDecodeError:
        if sum(byte < 0x20 and byte not in b"\t\r\n" for byte in record[:1024]) * 20 > len(record[:1024]):
            return RecordView(_dump(record), note=f"{len(record):,} bytes that are no text")
        text = record.decode("utf-8", "replace")
    shown, note = _cut(text)
    return RecordView(shown, note=note)


def _laid_out(record: bytes) -> str:
    """JSON on lines of its own, every number as it was written; long texts are cut, arrays of numbers stay on one line."""
    lines = msgspec.json.format(record, indent=2).decode("utf-8", "replace")
    return _TOKEN.sub(_shorter, lines)


def _shorter(found: re.Match[str]) -> str:
    token = found[0]
    if token[0] == "[":
        token = "[" + " ".join(token[1:-1].split()) + "]"
        return token if len(token) <= LONGEST_TEXT else f"{token[:LONGEST_TEXT]} … ({token.count(',') + 1:,} elements)]"
    return token if len(token) <= LONGEST_TEXT + 2 else f'{token[: LONGEST_TEXT // 2]}…" ({len(token) - 2:,} characters)'


def _cut(text: str) -> tuple[str, str]:
    is_long = len(text) > TEXT_CHARACTERS
    note = f"the first {TEXT_CHARACTERS:,} of {len(text):,} characters" if is_long else ""
    return visible(text[:TEXT_CHARACTERS]), note


def _dump(data: bytes) -> str:
    shown = data[:_DUMP_BYTES]
    return "\n".join(f"{at:06x}  {shown[at : at + 16].hex(' ')}" for at in range(0, len(shown), 16))


def _from(records: Records, offset: int) -> Iterator[tuple[bytes, str]]:
    for index, (data, at) in enumerate(zip(records.data, records.offsets, strict=True)):
        if at >= offset:
            size, error = records.oversize.get(index), records.errors.get(index)
            lost = f"it has {size:,} bytes, more than {RECORD_BYTES:,}" if size else error.reason if error else ""
            yield data, lost


def _first_bytes(chunks: Iterator[bytes], n_bytes: int) -> Iterator[bytes]:
    """Chunks until there are so many bytes."""
    for chunk in chunks:
        yield chunk[:n_bytes]
        n_bytes -= len(chunk)
        if n_bytes <= 0:
            return
