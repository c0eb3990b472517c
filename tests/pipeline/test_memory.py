"""Whatever bytes an object holds, a reader has two requests and its range buffer in memory, and no more."""

import gzip
import struct
import tracemalloc

import pytest

from rayxform.core.batching import MIB, MiniBatch, Seam
from rayxform.core.examples import write_example
from rayxform.core.framing import recordio_frame, tfrecord_frame
from rayxform.core.ranges import OBJECT_END
from rayxform.errors import FrameError, RecordTooLargeError
from rayxform.pipeline.planning import ByteRange
from rayxform.pipeline.reading import RANGE_BUFFER_BYTES, NoSeams, read_range
from rayxform.storage.reading import AHEAD_BYTES, CHUNK_BYTES, ObjectReader
from tests.random_strings import MAGIC, tfrecord_header

BUFFER_BYTES = RANGE_BUFFER_BYTES - AHEAD_BYTES
"""From a disk nothing is fetched ahead."""


def peak_of(batches):
    """The most memory, in bytes, while the mini-batches are taken one by one; how many there are; and the last error."""
    count, error = 0, None
    tracemalloc.start()
    for packed in batches:
        count += isinstance(packed, MiniBatch)
        error = packed if isinstance(packed, Exception) else error
        del packed  # what a reader gave is no longer the reader's
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, count, error


FRAME = MAGIC + struct.pack("<I", 2 << 29 | 4) + b"abcd"
LIARS = {
    "a line without an end": ("Line", b"good\n", 64 * MIB, 64 * MIB - 5),
    "a frame of a terabyte": ("TFRecord", tfrecord_frame(b"good") + tfrecord_header(2**40), 64 * MIB, 2**40 + 16),
    "the largest length": ("TFRecord", tfrecord_frame(b"good") + tfrecord_header(2**64 - 1), 64 * MIB, 2**64 + 15),
    "half a gigabyte": ("RecordIO", recordio_frame(b"good") + MAGIC + struct.pack("<I", 2**29 - 1), 64 * MIB, 2**29 + 8),
    "a record of frames without an end": (
        "RecordIO",
        recordio_frame(b"good") + FRAME[:7] + b"\x20abcd" + FRAME * 100_000,
        0,
        MIB + 8,
    ),
    "an object that is one record": ("None", gzip.compress(bytes(64 * MIB), 1), 0, 64 * MIB),
    "a bomb": ("Line", gzip.compress(b"good\n" + bytes(64 * MIB), 1), 0, 64 * MIB),
}


def types(split_type, content_type="application/octet-stream"):
    """A job for objects of a SplitType."""
    return {"TransformInput__SplitType": split_type, "TransformInput__ContentType": content_type}


def write_with_hole(workspace, begin, size):
    """An object of a size that ends in zeros which take no room on the disk."""
    path = workspace.write("a", begin)
    with path.open("r+b") as file:
        file.truncate(max(size, len(begin)))


def whole(plan):
    return ByteRange(0, plan.inputs[0], 0, 0, None)


@pytest.mark.parametrize("what", LIARS)
def test_of_a_record_that_is_too_long_no_more_is_held_than_of_one_that_fits(workspace, what):
    split_type, begin, size, found_bytes = LIARS[what]
    write_with_hole(workspace, begin, size)
    changes = types(split_type) | {
        "TransformInput__CompressionType": "Gzip" if begin.startswith(b"\x1f\x8b") else "None",
        "BatchStrategy": "SingleRecord" if split_type == "None" else "MultiRecord",
    }
    plan = workspace.plan(**changes)
    peak, count, error = peak_of(read_range(whole(plan), plan.recipe, NoSeams()))
    assert (count, type(error)) == (0 if split_type == "None" else 1, RecordTooLargeError)
    assert f"the record is {found_bytes} bytes, over the limit of MaxPayloadInMB 1" in error.reason
    assert peak < 2 * MIB + BUFFER_BYTES / 4


FILTERED = {"DataProcessing__InputFilter": "$.id"}


@pytest.mark.parametrize("changes", [{"MaxPayloadInMB": 0}, FILTERED], ids=str)
@pytest.mark.parametrize(
    ("split_type", "frame", "lie", "missing_bytes"),
    [
        ("TFRecord", tfrecord_frame, tfrecord_header(2**40), 2**40 + 16 - (64 * MIB - 24)),
        ("RecordIO", recordio_frame, MAGIC + struct.pack("<I", 2**29 - 4), 2**29 + 4 - (64 * MIB - 16)),
    ],
    ids=["TFRecord", "RecordIO"],
)
def test_a_frame_that_says_to_be_longer_than_its_object_is_not_waited_for(
    workspace, split_type, frame, lie, missing_bytes, changes
):
    """Neither of these jobs limits how long a record may be."""
    write_with_hole(workspace, frame(b'{"id":1}') + lie, 64 * MIB)
    plan = workspace.plan(**types(split_type, "application/jsonlines") | changes)
    peak, count, error = peak_of(read_range(whole(plan), plan.recipe, NoSeams()))
    assert (count, type(error)) == (1, FrameError)
    assert error.reason == f"the object ends {missing_bytes} bytes before the record does; it was cut short, write it again"
    assert peak < 3 * CHUNK_BYTES


class Seams:
    """Whether a reader is told of where its range begins: at once ("told"), while it waits ("late"), or not at all ("lost")."""

    def __init__(self, when):
        self.when = when
        self.seam = None

    def tell(self, one, seam):
        self.seam = self.seam or seam

    def wait(self, one, timeout_s):
        return self.seam if self.when == "told" or (self.when == "late" and timeout_s) else None


def read_second(plan, when):
    """Take the mini-batches of an object's second range, as ``peak_of`` does."""
    seams, ranges = Seams(when), plan.ranges()
    stop = plan.job.stops_at_bad_record
    for _ in read_range(ranges[0], plan.recipe, seams, stop_at_error=stop):
        pass
    return peak_of(read_range(ranges[1], plan.recipe, seams, stop_at_error=stop))


JOIN = {"DataProcessing__JoinSource": "Input"}
SKIP = {"Rayxform__OnRecordError": "skip"}
CSV = types("Line", "text/csv")
EXAMPLES = JOIN | types("TFRecord", None) | {"TransformOutput__Accept": "application/jsonlines"}
FRAMED = tfrecord_frame(b"r" * 3000)


def quotes(n_bytes):
    return b'"' + b'""' * (n_bytes // 2 - 2) + b'"\n'


FEW = {"Rayxform__MaxRecordsPerBatch": 10_000}
ALL_WAYS, LATE = ("told", "late", "lost"), ("late",)
OBJECTS = {
    "lines of 3 bytes": (ALL_WAYS, FEW, b"12\n" * (MIB // 2), MIB // 2),
    "lines of 3 bytes, joined": (LATE, FEW | JOIN, b"12\n" * (MIB // 2), MIB // 2),
    "lines of 10 bytes": (LATE, FEW, b"123456789\n" * (4 * MIB // 10), 3 * MIB // 2),
    "empty lines": (LATE, FEW, b"\n" * MIB + b"12\n" * (MIB // 4), MIB),
    "lines that are not JSON": (LATE, JOIN | SKIP, b"{1\n" * (MIB // 6), MIB // 10),
    "empty TFRecords": (LATE, FEW | types("TFRecord"), tfrecord_frame(b"") * (MIB // 8), MIB),
    "empty RecordIO records": (LATE, FEW | types("RecordIO"), recordio_frame(b"") * (MIB // 4), MIB // 2),
    "a record of many frames": (
        LATE,
        types("RecordIO") | {"Rayxform__MaxRecordsPerBatch": 1},
        recordio_frame(MAGIC * 30_000) * 4,
        MIB // 2,
    ),
    "lines joined whole": (ALL_WAYS, JOIN, b'{"id": 1, "x": "%s"}\n' % (b"y" * 2980) * (64 * MIB // 3000), 24 * MIB),
    "examples joined whole": (LATE, EXAMPLES, tfrecord_frame(write_example({"image": [b"i" * 2900]})) * 20_000, 24 * MIB),
    "a CSV field of quotes": (ALL_WAYS, CSV | JOIN, quotes(MIB) * 6, 3 * MIB),
    "a CSV field of quotes, filtered": (LATE, CSV | {"DataProcessing__InputFilter": "$[0]"}, quotes(MIB) * 6, 3 * MIB),
    "a record of many attributes": (LATE, JOIN, (b"{%s}\n" % b",".join(b'"%06d":1' % n for n in range(90_000))) * 4, MIB),
} | {
    f"{what}, {changes}": (LATE, types("TFRecord") | changes, content, 4 * MIB)
    for changes in ({}, {"MaxPayloadInMB": 0, "Rayxform__MaxRecordsPerBatch": 3})
    for what, content in {
        "plain frames": FRAMED * 8000,
        "lengths of 0.3 MiB": tfrecord_frame(tfrecord_header(300_000) * 80_000) * 20,
        "lengths of 7 MiB": tfrecord_frame(tfrecord_header(7 * MIB) * 250) * 8000,
        "lengths of 40 MiB": tfrecord_frame(tfrecord_header(40 * MIB) * 250) * 8000,
    }.items()
}


@pytest.mark.parametrize(("what", "when"), [(what, when) for what, (ways, *_) in OBJECTS.items() for when in ways])
def test_a_reader_of_a_range_has_its_buffer_in_memory_whatever_is_in_it_and_whoever_knows_where_it_begins(
    workspace, what, when
):
    _, changes, content, range_bytes = OBJECTS[what]
    workspace.write("a", content)
    plan = workspace.plan(range_bytes=range_bytes, **changes)
    peak, count, error = read_second(plan, when)
    assert count > 0 or error is not None
    assert peak < 2 * MIB + BUFFER_BYTES


LONG = 32 * MIB
LONG_RECORDS = {
    "lines": (types("Line"), b"x" * LONG + b"\n"),
    "lines in pairs": (types("Line"), (b"x" * (LONG // 2 - 1) + b"\n") * 2),
    "TFRecord": (types("TFRecord"), tfrecord_frame(b"x" * (LONG - 16))),
    "RecordIO": (types("RecordIO"), recordio_frame(b"x" * (LONG - 8))),
}


@pytest.mark.parametrize("strategy", ["MultiRecord", "SingleRecord"])
@pytest.mark.parametrize("what", LONG_RECORDS)
def test_of_long_requests_two_are_in_memory(workspace, what, strategy):
    """A buffer of half the size is enough here, so the third would be seen."""
    changes, content = LONG_RECORDS[what]
    workspace.write("a", content * 3)
    plan = workspace.plan(MaxPayloadInMB=32, BatchStrategy=strategy, **changes)
    peak, count, error = peak_of(read_range(whole(plan), plan.recipe, NoSeams()))
    assert (count, error) == (6 if (what, strategy) == ("lines in pairs", "SingleRecord") else 3, None)
    assert peak < 2 * LONG + BUFFER_BYTES / 2


def test_what_a_join_keeps_of_a_request_counts_as_part_of_it(workspace):
    workspace.write("a", (b'"' + b"x" * (LONG - 2) + b'"\n') * 3)
    plan = workspace.plan(MaxPayloadInMB=32, **JOIN)
    peak, count, error = peak_of(read_range(whole(plan), plan.recipe, NoSeams()))
    assert (count, error) == (3, None)
    assert peak < 2 * (LONG + LONG) + BUFFER_BYTES / 2


@pytest.mark.parametrize("split_type", ["Line", "TFRecord"])
def test_a_range_without_a_record_of_its_own_is_not_read_to_the_end_of_the_object(workspace, split_type):
    """One line without an end was once read by the readers of all ranges behind its first byte."""
    write_with_hole(workspace, b"", 32 * MIB)
    plan = workspace.plan(range_bytes=CHUNK_BYTES, **types(split_type))
    read = []

    class CountingReader(ObjectReader):
        def chunks(self, *arguments):
            for chunk in super().chunks(*arguments):
                read.append(len(chunk))
                yield chunk

    seams = Seams("late")
    seams.seam = Seam(OBJECT_END, 1)
    assert [*read_range(plan.ranges()[2], plan.recipe, seams, reader=CountingReader())] == []
    assert sum(read) <= 2 * CHUNK_BYTES
