"""What lies about its length, or is too long, is not held: at most two requests and a reader's buffer are in memory."""

import gzip
import struct
import tracemalloc

import pytest

from rayxform.core.batching import MIB, MiniBatch, Seam
from rayxform.core.framing import recordio_frame, tfrecord_frame
from rayxform.errors import RecordTooLargeError
from rayxform.pipeline.planning import ByteRange
from rayxform.pipeline.reading import HELD_BYTES, NoSeams, read_range
from rayxform.storage.reading import CHUNK_BYTES
from tests.random_strings import MAGIC, tfrecord_header

PAYLOADS_BYTES = 2 * MIB  # every job here has MaxPayloadInMB 1
CHUNKS_BYTES = 2 * CHUNK_BYTES + MIB  # a chunk as it is read, and as records; and what was left of the one before


def peak_of(batches):
    """The most memory, in bytes, while the mini-batches are taken one by one; how many there are; and the last error."""
    count, error = 0, None
    tracemalloc.start()
    for packed in batches:
        count += isinstance(packed, MiniBatch)
        error = packed if isinstance(packed, Exception) else error
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


@pytest.mark.parametrize("what", LIARS)
def test_of_a_record_that_is_too_long_no_more_is_held_than_of_one_that_fits(workspace, what):
    split_type, begin, size, found_bytes = LIARS[what]
    path = workspace.write("a", begin)
    with path.open("r+b") as file:
        file.truncate(max(size, len(begin)))  # a hole: no bytes on the disk
    changes = {
        "TransformInput__ContentType": "application/octet-stream",
        "TransformInput__SplitType": split_type,
        "TransformInput__CompressionType": "Gzip" if begin.startswith(b"\x1f\x8b") else "None",
        "BatchStrategy": "SingleRecord" if split_type == "None" else "MultiRecord",
    }
    plan = workspace.plan(**changes)
    peak, count, error = peak_of(read_range(ByteRange(0, plan.inputs[0], 0, 0, None), plan.recipe, NoSeams()))
    assert (count, type(error)) == (0 if split_type == "None" else 1, RecordTooLargeError)
    assert f"the record is {found_bytes} bytes, over the limit of MaxPayloadInMB 1" in error.reason
    assert peak < PAYLOADS_BYTES + CHUNKS_BYTES


class LateSeams:
    """Seams that are known only after a reader has read some of its own."""

    def __init__(self, seam):
        self.seam = seam

    def tell(self, one, seam):
        pass

    def wait(self, one, timeout_s):
        return self.seam if timeout_s else None


@pytest.mark.parametrize("changes", [{}, {"MaxPayloadInMB": 0, "Rayxform__MaxRecordsPerBatch": 100}], ids=str)
@pytest.mark.parametrize("lie_bytes", [None, 7 * MIB, 40 * MIB])
def test_a_reader_that_waits_holds_its_buffer_whatever_looks_like_a_frame(workspace, changes, lie_bytes):
    record = b"r" * 3000 if lie_bytes is None else tfrecord_header(lie_bytes) * 250
    frame = tfrecord_frame(record)
    workspace.write("a", frame * (80 * MIB // len(frame)))
    types = {"TransformInput__SplitType": "TFRecord", "TransformInput__ContentType": "application/octet-stream"}
    plan = workspace.plan(range_bytes=32 * MIB, **types, **changes)
    one = plan.ranges()[1]
    number = -(-one.begin // len(frame))
    seam = Seam(number * len(frame), number)
    peak, count, error = peak_of(read_range(one, plan.recipe, LateSeams(seam)))
    assert error is None
    assert count > 30
    assert peak < PAYLOADS_BYTES + HELD_BYTES + 2 * CHUNKS_BYTES
