"""One byte range of an object → its mini-batches: where splitting, filtering and packing meet.

A mini-batch belongs to the range that holds its first byte, as a record does. Where the first mini-batch of a range begins
depends on all ranges before it; that much, a ``Seam``, is all that one range tells the next. So ranges can be read, split and
filtered by many readers at once, and still every request is the same as if one reader had read the whole object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from rayxform.core.batching import Batcher, MiniBatch, Packed, Prepared, Seam, too_large
from rayxform.core.framing import FrameSplitter, RecordIOSplitter, TFRecordSplitter, recordio_frame, tfrecord_frame
from rayxform.core.joining import Processing
from rayxform.core.splitting import LineSplitter, Records, Splitter, WholeSplitter
from rayxform.errors import FrameError, RecordError

_FRAMES: dict[str, tuple[type[FrameSplitter], Callable[[bytes], bytes]]] = {
    "TFRecord": (TFRecordSplitter, tfrecord_frame),
    "RecordIO": (RecordIOSplitter, recordio_frame),
}
"""SplitType → how frames are cut, and how content is framed."""

OBJECT_END = 2**63 - 1
"""The offset of the seam behind an object's last record."""


@dataclass(frozen=True)
class Recipe:
    """How the objects of a job become requests.

    Attributes:
        split_type: AWS's SplitType.
        multi_record: whether a mini-batch may hold more than one record (BatchStrategy).
        max_payload_bytes: the longest request body, in bytes, inclusive; None for no limit.
        max_records: the most records of one request; None for no limit.
        processing: InputFilter and join.
        limit_name: how the payload limit is called in an error ("MaxPayloadInMB 6").
    """

    split_type: str
    multi_record: bool
    max_payload_bytes: int | None
    max_records: int | None
    processing: Processing
    limit_name: str = ""

    @property
    def is_splittable(self) -> bool:
        """Whether an object may be read in ranges: not if it is one record, nor if it becomes a single request."""
        bounded = not self.multi_record or self.max_payload_bytes is not None or self.max_records is not None
        return self.split_type != "None" and bounded

    @property
    def is_framed(self) -> bool:
        """Whether records are in frames, so that a splitter has to begin where one begins."""
        return self.split_type in _FRAMES

    @property
    def keeps_frames(self) -> bool:
        """Whether records go through in their frames: AWS removes them for SingleRecord, and a filter looks into them."""
        return self.is_framed and self.multi_record and not self.processing.reads_records

    @property
    def sends_raw_records(self) -> bool:
        """Whether what is sent of a record is the record itself."""
        return self.processing.sends_raw_records

    @property
    def separator(self) -> bytes:
        """What stands between the records of one request."""
        return b"\n" if self.split_type == "Line" else b""

    def splitter(self, begin: int, *, aligned: bool, object_bytes: int | None = None) -> Splitter:
        """A splitter for the range that begins at a byte.

        Args:
            begin: that byte.
            aligned: whether a record begins there, which is known of a seam.
            object_bytes: the object's size, where that is known.
        """
        # What is filtered may shrink below the limit, so only unfiltered records can be judged by their raw length.
        max_bytes = self.max_payload_bytes if self.sends_raw_records else None
        if self.is_framed:
            make, keeps_frames = _FRAMES[self.split_type][0], self.keeps_frames
            return make(begin, max_bytes, keep_frames=keeps_frames, aligned=aligned, object_bytes=object_bytes)
        return LineSplitter(begin, max_bytes) if self.split_type == "Line" else WholeSplitter(begin, max_bytes)

    def batcher(self, seam: Seam) -> Batcher:
        """A batcher that begins at a seam."""
        return Batcher(
            seam,
            max_payload_bytes=self.max_payload_bytes,
            max_records=self.max_records if self.multi_record else 1,
            separator=self.separator,
            limit_name=self.limit_name,
        )

    def cut_payload(self, payload: bytes) -> list[bytes]:
        """A request's body as the bodies that its records would have one by one."""
        if self.split_type == "Line":
            return payload.split(self.separator)
        if self.is_framed and self.multi_record:
            portions = _FRAMES[self.split_type][0](keep_frames=True).feed(payload)
            return [record for records in portions for record in records.data]
        return [payload]

    def prepare(self, records: Records) -> Prepared:
        """Filter records, mark those that were lost, and frame again what goes to the model as frames."""
        prepared = self.processing.prepare(records)
        for index, size in records.oversize.items():
            limit = self.max_payload_bytes or 0
            prepared.errors[index] = too_large(size, limit, self.limit_name, record=0, offset=records.offsets[index])
        prepared.errors.update(records.errors)
        if self.is_framed and self.multi_record and not self.keeps_frames:
            frame = _FRAMES[self.split_type][1]
            prepared.sent = [b"" if index in prepared.errors else frame(sent) for index, sent in enumerate(prepared.sent)]
        return prepared


def prepare_chunks(
    recipe: Recipe,
    chunks: Iterable[bytes],
    begin: int = 0,
    *,
    aligned: bool = False,
    end: int | None = None,
    object_bytes: int | None = None,
) -> Iterator[Prepared]:
    """Split and filter what is read of an object, as far as it is asked for.

    Args:
        recipe: how.
        chunks: the object's bytes from ``max(begin - 1, 0)`` to the object's end.
        begin: the range's first byte.
        aligned: whether a record begins there, which is known of a seam.
        end: where to give up looking for the range's first record; None for the object's end.
        object_bytes: the object's size, where that is known: a record that says to be longer is not waited for.
    """
    splitter = recipe.splitter(begin, aligned=aligned, object_bytes=object_bytes)
    at = max(begin - 1, 0)
    for chunk in chunks:
        # Neither map nor filter keeps what it has given, as a loop's variable would while the next is read.
        yield from filter(_holds_records, map(recipe.prepare, splitter.feed(chunk)))
        at += len(chunk)
        if end is not None and at >= end and splitter.is_searching:
            return
    yield from filter(_holds_records, map(recipe.prepare, [splitter.flush()]))


def _holds_records(prepared: Prepared) -> bool:
    return bool(prepared.sent)


def meet_seam(prepared: Iterable[Prepared], seam: Seam, again: Callable[[], Iterable[Prepared]]) -> Iterator[Prepared]:
    """Records from a seam on, whose splitter looked for frames by itself: had it found others, they are read again.

    Args:
        prepared: what it found.
        seam: where a record begins.
        again: gives the records from the seam on, read anew.
    """
    found = iter(prepared)
    for records in found:
        if records.offsets[-1] < seam.offset:
            continue
        if seam.offset in records.offsets:
            yield records
            del records
            yield from found
            return
        break
    yield from again()


def pack_range(
    recipe: Recipe,
    prepared: Iterable[Prepared],
    seam: Seam,
    end: int | None,
    *,
    tell: Callable[[Seam], None] = lambda _: None,
    stop_at_error: bool = True,
) -> Iterator[Packed]:
    """The mini-batches that begin in a range, and an error for each record of it that cannot be sent.

    Args:
        recipe: how.
        prepared: the records from the range's beginning on; taken past its end until the last mini-batch is complete.
        seam: where the first mini-batch begins.
        end: the first byte after the range; None if the object ends with it.
        tell: called once, with the seam at which the next range begins; its record is the object's count at the end.
        stop_at_error: whether the first bad record fails the object, so that nothing after it is sent.
    """
    batcher = recipe.batcher(seam)
    limit = OBJECT_END if end is None else end
    if seam.failed or seam.offset >= limit:
        tell(seam)
        return
    for records in prepared:
        for packed in batcher.feed(records):
            place = packed.seam if isinstance(packed, MiniBatch) else Seam(packed.offset or 0, packed.record)
            if place.offset >= limit:
                tell(place)
                return
            is_last = isinstance(packed, FrameError) or (isinstance(packed, RecordError) and stop_at_error)
            yield packed
            del packed  # while the next is packed, only who took it holds it
            if is_last:
                tell(replace(place, failed=True))
                return
        del records  # before the next are read
        if batcher.open_seam is not None and batcher.open_seam.offset >= limit:
            tell(batcher.open_seam)
            return
    yield from batcher.flush()
    tell(Seam(OBJECT_END, batcher.next_record))
