"""TFRecord and RecordIO frames: every cut, every damage, and frames within frames."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayxform.core.framing import RecordIOSplitter, TFRecordSplitter, recordio_frame, tfrecord_frame
from rayxform.errors import FrameError
from tests.support import cases

KINDS = {"TFRecord": (TFRecordSplitter, tfrecord_frame), "RecordIO": (RecordIOSplitter, recordio_frame)}
MAGIC = b"\x0a\x23\xd7\xce"

# Contents with magic numbers at places where a frame could be and where none could, and with frames of their own.
contents = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.lists(st.sampled_from([MAGIC, b"a", b"bcd", b"\0" * 4]), max_size=6).map(b"".join),
        st.binary(max_size=20).map(tfrecord_frame),
        st.binary(max_size=20).map(recordio_frame),
    ),
    max_size=12,
)
kinds = st.sampled_from(sorted(KINDS))


def split(kind, pieces, offset=0, limit=None, **options):
    splitter = KINDS[kind][0](offset, limit, **options)
    parts = [part for piece in pieces for part in splitter.feed(piece)] + [splitter.flush()]
    return [
        (part.offsets[index], part.oversize.get(index) or part.errors.get(index) or part.data[index])
        for part in parts
        for index in range(len(part.data))
    ]


@pytest.mark.parametrize("case", cases("frames"), ids=lambda case: case["source"])
def test_the_bytes_that_the_formats_prescribe(case):
    splitter, frame = KINDS[case["SplitType"]]
    content, framed = bytes.fromhex(case["content"]), bytes.fromhex(case["frame"])
    assert frame(content) == framed
    assert next(splitter().feed(framed)).data == [content]
    assert next(splitter(keep_frames=True).feed(framed)).data == [framed]


@given(kinds, contents, st.booleans(), st.data())
def test_records_are_the_same_at_every_cut(kind, records, keep_frames, data):
    frames = [KINDS[kind][1](record) for record in records]
    text = b"".join(frames)
    begins = [len(b"".join(frames[:index])) for index in range(len(frames))]
    expected = list(zip(begins, frames if keep_frames else records))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    for pieces in (
        [text],
        [text[i : i + 1] for i in range(len(text))],
        [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)])],
    ):
        found = split(kind, pieces, keep_frames=keep_frames)
        assert [(at, bytes(record) if isinstance(record, bytes) else record) for at, record in found] == expected


@given(kinds, contents, st.booleans(), st.data())
def test_a_splitter_begins_where_it_is_told_that_a_record_does(kind, records, keep_frames, data):
    frames = [KINDS[kind][1](record) for record in records]
    text = b"".join(frames)
    index = data.draw(st.integers(0, len(frames)))
    begin = len(b"".join(frames[:index]))
    found = split(kind, [text[max(begin - 1, 0) :]], begin, aligned=True, keep_frames=keep_frames)
    assert found == split(kind, [text], keep_frames=keep_frames)[index:]


# Eight bytes and their CRC look like a length and its CRC; where nothing shows that they are not, the seam does.
plain_contents = st.binary(max_size=40).filter(lambda record: MAGIC not in record and len(record) != 8)


@given(kinds, st.lists(plain_contents, max_size=10), st.data())
def test_in_the_middle_of_an_object_the_next_frame_is_found(kind, records, data):
    text = b"".join(map(KINDS[kind][1], records))
    begin = data.draw(st.integers(1, len(text) + 1))
    chunk = data.draw(st.integers(1, 50))
    rest = text[begin - 1 :]
    found = split(kind, [rest[i : i + chunk] for i in range(0, len(rest), chunk)], begin)
    assert found == [one for one in split(kind, [text]) if one[0] >= begin]


@pytest.mark.parametrize("content", [b"8 bytes.", bytes(8), b"\3" + bytes(7), b"\xff" * 8])
@pytest.mark.parametrize("limit", [None, 50])
def test_eight_bytes_of_content_are_not_taken_for_a_length(content, limit):
    text = tfrecord_frame(content) * 2 + tfrecord_frame(b"next")
    assert split("TFRecord", [text[5:]], 6, limit) == split("TFRecord", [text], 0, limit)[1:]


def test_the_next_frame_is_found_in_much_that_is_none():
    text = tfrecord_frame(bytes(range(256)) * 5000) + tfrecord_frame(b"next")
    assert split("TFRecord", [text[99:]], 100) == [(len(text) - 20, b"next")]


@pytest.mark.parametrize("keep_frames", [False, True])
def test_flipping_any_byte_of_a_tfrecord_object_is_noticed_and_named(keep_frames):
    records = [b"first", b"", b"a record of some length", b"last"]
    frames = [tfrecord_frame(record) for record in records]
    text = b"".join(frames)
    begins = [len(b"".join(frames[:index])) for index in range(len(frames))]
    good = split("TFRecord", [text], keep_frames=keep_frames)
    for at in range(len(text)):
        number = max(index for index, begin in enumerate(begins) if begin <= at)
        found = split("TFRecord", [text[:at] + bytes([text[at] ^ 1 << at % 8]) + text[at + 1 :]], keep_frames=keep_frames)
        assert found[:number] == good[:number]
        offset, error = found[number]
        assert offset == begins[number]
        assert "CRC-32C" in error.reason
        in_header = at - begins[number] < 12
        assert isinstance(error, FrameError) == in_header
        assert found[number + 1 :] == ([] if in_header else good[number + 1 :])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_object_that_was_cut_short_is_an_error_at_its_last_record(kind):
    frame = KINDS[kind][1]
    text = frame(b"first") + frame(b"the second record")
    begin = len(frame(b"first"))
    for size in range(begin + 1, len(text)):
        first, (offset, error) = split(kind, [text[:size]])
        assert first == (0, b"first")
        assert (offset, type(error)) == (begin, FrameError)
        assert "cut short" in error.reason


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("keep_frames", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_of_a_record_over_the_limit_only_the_size_is_kept(kind, keep_frames, chunk):
    frame = KINDS[kind][1]
    longest = b"x" * (36 if keep_frames else 48)
    size = len(frame(longest)) if keep_frames else 48
    text = frame(longest) + frame(longest + b"1234") + frame(b"after")
    pieces = [text[i : i + chunk] for i in range(0, len(text), chunk)]
    found = [record for _, record in split(kind, pieces, limit=size, keep_frames=keep_frames)]
    assert found == [frame(longest) if keep_frames else longest, size + 4, frame(b"after") if keep_frames else b"after"]


@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_a_record_over_the_limit_in_several_frames_is_passed_over_whole(chunk):
    text = recordio_frame(b"ab") + recordio_frame((b"x" * 40 + MAGIC) * 3 + b"end.") + recordio_frame(b"after")
    found = split("RecordIO", [text[i : i + chunk] for i in range(0, len(text), chunk)], limit=50)
    assert [record for _, record in found] == [b"ab", 84, b"after"]


def test_a_record_of_many_frames_takes_a_time_that_grows_with_their_number_alone():
    """It once grew with its square."""
    content = MAGIC * 300_000
    text = recordio_frame(content) + recordio_frame(b"after")
    assert split("RecordIO", [text]) == [(0, content), (len(text) - 16, b"after")]
    assert split("RecordIO", [text], limit=len(content) - 1) == [(0, len(content)), (len(text) - 16, b"after")]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: b"\1" + text[1:], "there is 0123d7ce instead of 0a23d7ce"),
        (lambda text: text[:4] + struct.pack("<I", 3 << 29 | 5) + text[8:], "out of place: its flag is 3"),
        (lambda text: text[:4] + struct.pack("<I", 1 << 29 | 5) + text[8:], "out of place: its flag is 0"),
    ],
)
def test_what_is_no_recordio_frame_ends_the_object(damage, reason):
    ((_, error),) = split("RecordIO", [damage(recordio_frame(b"first") + recordio_frame(b"second"))])
    assert isinstance(error, FrameError)
    assert reason in error.reason


@given(kinds, st.binary(max_size=300), st.integers(0, 9), st.booleans(), st.integers(1, 60), st.none() | st.integers(0, 50))
@settings(max_examples=500)
def test_any_bytes_give_records_or_errors_of_ours(kind, text, offset, aligned, chunk, limit):
    begin = b"" if offset else KINDS[kind][1](b"one")
    text = begin + text
    found = split(kind, [text[i : i + chunk] for i in range(0, len(text), chunk)], offset, limit, aligned=aligned)
    assert all(isinstance(record, bytes | int | FrameError) or "CRC" in record.reason for _, record in found)
    assert [at for at, _ in found] == sorted({at for at, _ in found})
