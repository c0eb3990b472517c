"""However an object is cut into ranges and whoever reads them first, its requests are those of one reader."""

import gzip
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayxform.core.batching import MIB, START, MiniBatch, Seam
from rayxform.core.framing import recordio_frame, tfrecord_frame
from rayxform.core.joining import PassThrough, json_processing
from rayxform.core.ranges import OBJECT_END, Recipe, pack_range, prepare_chunks
from rayxform.core.splitting import LineSplitter
from rayxform.errors import RecordError
from rayxform.pipeline.inspecting import plan_requests
from rayxform.pipeline.reading import read_range


class BoardInMemory:
    """Seams of one process; ``forgets`` of them, as a lost reader would."""

    def __init__(self, forgets=()):
        self.seams = {}
        self.forgets = forgets

    def tell(self, one, seam):
        if one.index not in self.forgets:
            self.seams[one.file, one.index + 1] = seam

    def wait(self, one, timeout_s):
        return self.seams.get((one.file, one.index))


def requests_by_range(plan, order, board):
    found = {one.index: [*read_range(one, plan.recipe, board)] for one in order(plan.ranges())}
    return [packed for index in sorted(found) for packed in found[index]]


def simplified(packed):
    return [
        (one.seam.record, one.n_records, one.seam.offset, one.payload) if isinstance(one, MiniBatch) else one for one in packed
    ]


def shown(packed):
    """All of it as text, with a payload's bytes and not where they lie."""
    return repr(replace(packed, payload=bytes(packed.payload)) if isinstance(packed, MiniBatch) else packed)


LINES = b"".join(b'{"id": %d, "x": "%s"}\n' % (i, b"y" * (i * 37 % 700)) for i in range(400))


@pytest.mark.parametrize(
    "order", [list, lambda ranges: ranges[::-1], lambda ranges: random.Random(3).sample(ranges, len(ranges))]
)
@pytest.mark.parametrize("range_bytes", [1, 7, 1000, 4096, 10**9])
def test_requests_do_not_depend_on_ranges_nor_on_who_reads_first(workspace, order, range_bytes):
    workspace.write("a.jsonl", LINES if range_bytes > 7 else LINES[:600])
    changes = {"Rayxform__MaxRecordsPerBatch": 7}
    whole = simplified(requests_by_range(workspace.plan(**changes), list, BoardInMemory()))
    cut = workspace.plan(range_bytes=range_bytes, **changes)
    assert simplified(requests_by_range(cut, order, BoardInMemory())) == whole
    assert isinstance(whole[-1], Seam)


def test_a_range_whose_neighbours_are_lost_finds_its_beginning_itself(workspace, monkeypatch):
    workspace.write("a.jsonl", LINES)
    monkeypatch.setattr("rayxform.pipeline.reading.SEAM_WAIT_S", 0)
    whole = simplified(requests_by_range(workspace.plan(), list, BoardInMemory()))
    cut = workspace.plan(range_bytes=999)
    assert simplified(requests_by_range(cut, list, BoardInMemory(forgets=range(1000)))) == whole


def test_a_range_that_finds_its_beginning_itself_passes_over_the_bad_records_that_the_job_lets_pass(workspace):
    workspace.write("a.jsonl", b'{"id":1}\n{"broken\n' * 300)
    changes = {"DataProcessing__JoinSource": "Input", "Rayxform__OnRecordError": "skip", "Rayxform__MaxRecordsPerBatch": 4}
    plans = [workspace.plan(**changes), workspace.plan(range_bytes=999, **changes)]
    whole, cut = (
        [
            packed
            for one in plan.ranges()
            for packed in read_range(one, plan.recipe, BoardInMemory(range(99)), stop_at_error=False)
        ]
        for plan in plans
    )
    assert [one.payload for one in cut if isinstance(one, MiniBatch)] == [b'{"id":1}'] * 300
    assert list(map(shown, cut)) == list(map(shown, whole))


FRAMES = {"TFRecord": tfrecord_frame, "RecordIO": recordio_frame}


@pytest.mark.parametrize("order", [list, lambda ranges: ranges[::-1]])
@pytest.mark.parametrize("range_bytes", [16, 100, 1000, 10**9])
@pytest.mark.parametrize("kind", sorted(FRAMES))
@pytest.mark.parametrize("strategy", ["MultiRecord", "SingleRecord"])
@pytest.mark.parametrize("forgets", [(), range(1000)])
def test_frames_within_frames_are_not_taken_for_records_in_any_range(
    workspace, monkeypatch, order, range_bytes, kind, strategy, forgets
):
    monkeypatch.setattr("rayxform.pipeline.reading.SEAM_WAIT_S", 0)
    frame = FRAMES[kind]
    # The inner frames look like records to whoever begins to read among them.
    count = 60 if range_bytes > 16 else 24
    records = [b"".join(frame(b"inner %d" % i) for i in range(number % 9)) + b"outer" * (number % 3) for number in range(count)]
    workspace.write("a.bin", b"".join(map(frame, records)))
    changes = {"TransformInput__SplitType": kind, "BatchStrategy": strategy, "Rayxform__MaxRecordsPerBatch": 4}
    cut = workspace.plan(range_bytes=range_bytes, **changes)
    packed = requests_by_range(cut, order, BoardInMemory(forgets))
    bodies = [one.payload for one in packed if isinstance(one, MiniBatch)]
    if strategy == "SingleRecord":
        assert bodies == records
    else:
        assert bodies == [b"".join(map(frame, records[at : at + 4])) for at in range(0, count, 4)]
    assert packed[-1].record == count


SEPARATED = {"TFRecord": tfrecord_frame, "RecordIO": recordio_frame, "Line": lambda line: line + b"\n"}
JSON = {"TransformInput__ContentType": "application/jsonlines", "DataProcessing__JoinSource": "Input"}


@pytest.mark.parametrize(("range_bytes", "n_records"), [(1024, 250), (MIB, 4000), (64 * MIB, 4000)])
@pytest.mark.parametrize(
    ("split_type", "changes"),
    [
        ("None", {"BatchStrategy": "SingleRecord", "MaxPayloadInMB": 100}),
        ("Line", {}),
        ("Line", {"BatchStrategy": "SingleRecord"} | JSON),
        ("Line", {"DataProcessing__InputFilter": "$.id"} | JSON),
        ("TFRecord", {}),
        ("TFRecord", {"DataProcessing__InputFilter": "$.id", "TransformInput__ContentType": "application/jsonlines"}),
        ("TFRecord", {"BatchStrategy": "SingleRecord"}),
        ("RecordIO", {}),
        ("RecordIO", {"BatchStrategy": "SingleRecord"}),
    ],
    ids=str,
)
def test_requests_are_the_same_bytes_however_the_input_is_stored_and_cut(
    workspace, split_type, changes, range_bytes, n_records
):
    """Contract §3: packing is a function of the object's bytes and the job alone."""
    rng = random.Random(5)
    records = [b'{"id":%d,"x":"%s"}' % (number, b"y" * rng.randrange(1200)) for number in range(n_records)]
    text = b"".join(map(SEPARATED.get(split_type, bytes), records))
    members = {
        "TransformInput__SplitType": split_type,
        "TransformInput__ContentType": "application/octet-stream",
        "Rayxform__MaxRecordsPerBatch": 700,
    }
    workspace.write("a", text)
    whole = requests_by_range(workspace.plan(range_bytes=10**12, **members | changes), list, BoardInMemory())
    cut = workspace.plan(range_bytes=range_bytes, **members | changes)
    assert len(cut.ranges()) == (1 if split_type == "None" else -(-len(text) // range_bytes))
    assert requests_by_range(cut, list, BoardInMemory()) == whole
    workspace.write("a", gzip.compress(text[:1000], 1) + gzip.compress(text[1000:], 1))
    compressed = workspace.plan(range_bytes=range_bytes, TransformInput__CompressionType="Gzip", **members | changes)
    assert requests_by_range(compressed, list, BoardInMemory()) == whole
    assert whole[-1] == Seam(OBJECT_END, 1 if split_type == "None" else n_records)


def test_nothing_is_sent_after_a_bad_record_in_an_earlier_range(workspace):
    workspace.write("a.jsonl", LINES[:5000].rpartition(b"\n")[0] + b'\n{"broken\n' + LINES)
    cut = workspace.plan(range_bytes=2000, DataProcessing__JoinSource="Input", Rayxform__MaxRecordsPerBatch=2)
    packed = requests_by_range(cut, list, BoardInMemory())
    assert isinstance(packed[-1], RecordError)
    assert packed[-1].offset == LINES[:5000].rpartition(b"\n")[0].__len__() + 1
    assert sum(isinstance(one, RecordError) for one in packed) == 1


lines = st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line and not line.endswith(b"\r")), max_size=20)


@given(lines, st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.data())
def test_lines_are_the_same_at_every_cut(records, ending, ends_with_newline, data):
    text = ending.join(records) + (ending if ends_with_newline and records else b"")
    expected = [record for record in records if record]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    for pieces in (
        [text],
        [text[i : i + 1] for i in range(len(text))],
        [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)])],
    ):
        splitter = LineSplitter()
        parts = [part for piece in pieces for part in splitter.feed(piece)] + [splitter.flush()]
        found = [record for part in parts for record in part.data]
        offsets = [offset for part in parts for offset in part.offsets]
        assert found == expected
        assert [text[offset : offset + len(record)] for record, offset in zip(found, offsets)] == found


@given(lines, st.integers(1, 40))
def test_a_line_belongs_to_the_range_that_holds_its_first_byte(records, range_bytes):
    text = b"\n".join(records)
    found = []
    for begin in range(0, len(text), range_bytes):
        splitter = LineSplitter(begin)
        parts = [*splitter.feed(text[max(begin - 1, 0) :]), splitter.flush()]
        found += [
            record for part in parts for record, offset in zip(part.data, part.offsets) if begin <= offset < begin + range_bytes
        ]
    assert found == [record for record in records if record]


@given(
    st.lists(st.integers(1, 60), max_size=40),
    st.integers(1, 70),
    st.none() | st.integers(1, 5),
    st.booleans(),
    st.integers(1, 50),
)
@settings(max_examples=300)
def test_no_request_is_over_the_limit_and_none_could_have_taken_one_more(sizes, limit, max_records, multi, chunk):
    recipe = Recipe("Line", multi, limit, max_records, PassThrough(), "limit")
    text = b"\n".join(b"x" * size for size in sizes)
    chunks = [text[i : i + chunk] for i in range(0, len(text), chunk)]
    packed = [*pack_range(recipe, prepare_chunks(recipe, chunks), START, None, stop_at_error=False)]
    most = (max_records or 10**9) if multi else 1
    at = 0
    for index, one in enumerate(packed):
        if isinstance(one, RecordError):
            assert sizes[one.record] > limit
            assert one.record == at
            at += 1
            continue
        assert one.seam.record == at
        assert one.payload == b"\n".join(b"x" * size for size in sizes[at : at + one.n_records])
        assert len(one.payload) <= limit
        assert one.n_records <= most
        at += one.n_records
        if at < len(sizes) and sizes[at] <= limit and isinstance(packed[index + 1], MiniBatch):
            assert one.n_records == most or len(one.payload) + 1 + sizes[at] > limit
    assert at == len(sizes)


def test_twenty_thousand_records_up_to_beyond_the_limit(workspace):
    rng = random.Random(7)
    limit = 1024 * 1024
    sizes = [int(10 ** rng.uniform(0, 3.2)) for _ in range(19_990)] + [limit, limit - 1, limit // 2, limit + 1]
    sizes += [limit, 1, limit - 2, 1, limit - 1, 1]
    rng.shuffle(sizes)
    workspace.write("a.jsonl", b"".join(b"x" * size + b"\n" for size in sizes))
    (file,) = plan_requests(workspace.plan()).files
    assert file.n_records == 20_000
    too_large = sizes.index(limit + 1)
    assert f"record {too_large + 1} " in file.errors[0]
    assert (
        f"is {limit + 1} bytes, over the limit of MaxPayloadInMB 1 = {limit} bytes; raise MaxPayloadInMB to 2" in file.errors[0]
    )
    at = 0
    for n_records in file.records_per_request:
        body = sum(sizes[at : at + n_records]) + n_records - 1
        assert body <= limit
        at += n_records
        assert at == too_large or body + 1 + sizes[at] > limit
    assert at == too_large


def test_a_record_that_is_filtered_below_the_limit_is_sent(workspace):
    record = b'{"id":1,"inputs":"%s"}' % (b"x" * (2 * 1024 * 1024))
    workspace.write("a.jsonl", record + b"\n" + record)
    (file,) = plan_requests(workspace.plan(DataProcessing__InputFilter="$.id")).files
    assert (file.records_per_request, file.errors) == ((2,), ())
    assert json_processing("$.id", "$", join=False, envelope=True).sends_raw_records is False


@pytest.mark.parametrize("changes", [{"MaxPayloadInMB": 0}, {"MaxPayloadInMB": 100}])
def test_without_a_limit_an_object_is_one_request(workspace, changes):
    workspace.write("a.jsonl", LINES)
    (file,) = plan_requests(workspace.plan(range_bytes=100, **changes)).files
    assert file.records_per_request == (400,)


def test_the_replaced_range_size_is_what_is_read(workspace):
    workspace.write("a.jsonl", LINES)
    plan = replace(workspace.plan(), range_bytes=1000)
    assert sum(one.n_bytes for one in plan.ranges()) == len(LINES)
    assert len(plan.ranges()) == -(-len(LINES) // 1000)
