"""S3 over HTTP, on a real server: listing, reading by range, putting objects together, and what goes wrong."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayxform.errors import InputNotFoundError, OutputRefusedError, StorageError
from rayxform.pipeline.inspecting import plan_requests
from rayxform.pipeline.reading import NoSeams, read_range
from rayxform.storage import s3
from rayxform.storage.edge import open_filesystem
from rayxform.storage.listing import InputFinder, list_inputs
from rayxform.storage.publishing import OutputFolder
from rayxform.storage.reading import ObjectReader, local_copy, read_chunks
from rayxform.storage.state import StateFolder

MIB = 1024 * 1024
LINES = b"".join(b'{"id": %d, "x": "%s"}\n' % (number, b"y" * (number % 90)) for number in range(60_000))


def keys(listing):
    return [one.key for one in listing.inputs]


def put_all(bucket, keys, data=b"1\n"):
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: bucket.put(key, data), keys))


def test_more_than_a_page_of_keys_is_listed(bucket):
    names = [f"many/{number:05d}.jsonl" for number in range(1105)]
    put_all(bucket, names)
    assert keys(list_inputs(f"{bucket.url}/many/", "/nowhere")) == [name.removeprefix("many/") for name in names]
    assert bucket.proxy.count("list-type=2") == 2


PREFIXES = [
    # S3Uri, what it takes in, words of the warning
    ("data/in/", ["a.jsonl", "deep/b.jsonl"], None),
    ("data/in", ["a.jsonl", "deep/b.jsonl", "in2/c.jsonl", "input.jsonl"], "takes in 2 objects outside of the folder"),
    ("data/in/a.jsonl", ["a.jsonl"], None),
    ("data/inp", ["input.jsonl"], None),
    ("data/in/de", ["deep/b.jsonl"], None),
    ("data/*/*.jsonl", ["in/a.jsonl", "in2/c.jsonl"], None),
    ("data/", ["in/a.jsonl", "in/deep/b.jsonl", "in2/c.jsonl", "input.jsonl"], "the 1 objects of the output were left out"),
]


@pytest.mark.parametrize(("uri", "expected", "words"), PREFIXES)
def test_s3uri_is_a_string_prefix_and_says_so_where_that_may_surprise(bucket, uri, expected, words):
    for key in ("in/", "in/a.jsonl", "in/deep/b.jsonl", "in2/c.jsonl", "input.jsonl", "out/old.out"):
        bucket.put(f"data/{key}", b"1\n" if not key.endswith("/") else b"")
    listing = list_inputs(f"{bucket.url}/{uri}", f"{bucket.url}/data/out")
    finder = InputFinder(f"{bucket.url}/{uri}")
    assert [finder.find(one.key) for one in listing.inputs] == listing.inputs
    assert keys(listing) == expected
    assert [words in warning for warning in listing.warnings] == ([True] if words else [])


def test_two_keys_of_one_name_are_refused(bucket):
    bucket.put("data/in/in2/a", b"1")
    bucket.put("data/in2/a", b"1")
    with pytest.raises(InputNotFoundError, match="both called 'in2/a'.*end S3Uri with a slash"):
        list_inputs(f"{bucket.url}/data/in", "/nowhere")


def test_a_manifest_names_objects_on_s3(bucket):
    put_all(bucket, [f"x/{number}" for number in range(40)])
    uri = bucket.put("manifest", json.dumps([{"prefix": f"{bucket.url}/x/"}, *map(str, range(40))]).encode())
    bucket.proxy.reset(lambda method, path: 0.05)
    assert keys(list_inputs(uri, "/nowhere", manifest=True)) == [*map(str, range(40))]
    assert bucket.proxy.most_at_once > 10
    bucket.client.delete_object(Bucket=bucket.name, Key="x/7")
    with pytest.raises(InputNotFoundError, match="x/7', but no object is there"):
        list_inputs(uri, "/nowhere", manifest=True)


@pytest.mark.parametrize(("begin", "end"), [(0, None), (0, 3 * MIB), (1000, 1001), (MIB, MIB), (12 * MIB - 1, None)])
def test_a_range_is_read_with_several_requests_at_once(bucket, begin, end):
    data = (bytes(range(256)) * 4096 * 12)[: 12 * MIB]
    bucket.put("big", data)
    (source,) = list_inputs(f"{bucket.url}/big", "/nowhere").inputs
    bucket.proxy.reset(lambda method, path: 0.02)
    assert b"".join(read_chunks(source, begin, end, chunk_bytes=MIB)) == data[begin:]
    assert bucket.proxy.count("GET .*/big") >= (12 if end is None and begin == 0 else 1)
    assert bucket.proxy.most_at_once <= 4
    assert bucket.proxy.most_at_once > 1 or end == 1001 or end == MIB or begin > MIB


def test_what_is_asked_for_behind_the_end_is_fetched_little_by_little(bucket):
    bucket.put("big", bytes(8 * MIB))
    (source,) = list_inputs(f"{bucket.url}/big", "/nowhere").inputs
    chunks = read_chunks(source, 0, MIB)
    assert [len(next(chunks)), len(next(chunks))] == [MIB, MIB // 4]
    assert bucket.proxy.count("GET .*/big") == 2


def test_an_object_that_was_replaced_or_removed_is_not_read(bucket):
    bucket.put("a", b"1\n2\n")
    (source,) = list_inputs(f"{bucket.url}/a", "/nowhere").inputs
    bucket.put("a", b"3\n4\n")
    with pytest.raises(StorageError, match=f"{bucket.url}/a changed after the job had begun"):
        list(read_chunks(source))
    bucket.client.delete_object(Bucket=bucket.name, Key="a")
    with pytest.raises(StorageError, match=f"cannot read {bucket.url}/a.*removed while the job ran"):
        list(read_chunks(source))


def test_an_answer_that_breaks_off_is_asked_for_again(bucket):
    bucket.put("a", LINES)
    (source,) = list_inputs(f"{bucket.url}/a", "/nowhere").inputs
    broken = iter(["truncate", 503, "drop", "truncate"])
    bucket.proxy.reset(lambda method, path: next(broken, None) if method == "GET" else None)
    assert b"".join(read_chunks(source, chunk_bytes=4 * MIB)) == LINES
    assert next(broken, "none left") == "none left"


def test_small_objects_are_fetched_ahead_and_in_order(bucket):
    contents = {f"small/{number:03d}": b"%d\n" % number * 50 for number in range(120)}
    for key, data in contents.items():
        bucket.put(key, data)
    inputs = list_inputs(f"{bucket.url}/small/", "/nowhere").inputs
    bucket.proxy.reset(lambda method, path: 0.03)
    reader = ObjectReader(inputs)
    passed_over = {5, 6, 119}
    read = [b"".join(reader.chunks(one)) for number, one in enumerate(inputs) if number not in passed_over]
    assert read == [data for number, data in enumerate(contents.values()) if number not in passed_over]
    assert bucket.proxy.most_at_once > 8
    assert bucket.proxy.count("GET ") == 120
    assert bucket.proxy.count("HEAD ") == 0


@pytest.mark.parametrize("range_bytes", [1000, MIB, 64 * MIB])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_requests_are_the_same_bytes_on_s3_and_on_disk(workspace, bucket, name, range_bytes):
    lines = LINES if range_bytes > 1000 else LINES[:60_000]
    workspace.write("a.jsonl", lines)
    (one,) = workspace.plan().ranges()
    expected = [*read_range(one, workspace.plan().recipe, NoSeams())]
    bucket.put(name, gzip.compress(lines, 1) if name.endswith("gz") else lines)
    plan = workspace.plan(
        range_bytes=range_bytes,
        TransformInput__DataSource__S3DataSource__S3Uri=bucket.url,
        TransformInput__CompressionType="Gzip" if name.endswith("gz") else "None",
    )
    told = {}

    class Told:
        def tell(self, one, seam):
            told[one.index + 1] = seam

        def wait(self, one, timeout_s):
            return told[one.index]

    found = [packed for one in plan.ranges() for packed in read_range(one, plan.recipe, Told())]
    assert found == expected
    assert sum(file.n_records for file in plan_requests(plan).files) == len(lines.splitlines())


sizes = st.lists(st.integers(0, 12 * MIB) | st.integers(5 * MIB - 2, 5 * MIB + 2) | st.integers(0, 9), max_size=30)


@given(sizes)
def test_segments_tile_their_sources_and_are_long_enough(sizes):
    sources = [s3.Stored(str(number), 0, size) for number, size in enumerate(sizes)]
    segments = s3.plan_segments([one for one in sources if one.n_bytes])
    ends = {}
    for one in (piece for segment in segments for piece in segment):
        assert one.begin == ends.get(one.path, 0) < one.end
        ends[one.path] = one.end
    assert ends == {one.path: one.end for one in sources if one.n_bytes}
    assert [one.path for segment in segments for one in segment] == sorted(
        [one.path for segment in segments for one in segment], key=int
    )
    lengths = [sum(one.n_bytes for one in segment) for segment in segments]
    assert all(length >= s3.MIN_PART_BYTES for length in lengths[:-1])
    # What is long is copied: only what fills up something short passes through here.
    moved = sum(sum(one.n_bytes for one in segment) for segment in segments if len(segment) > 1)
    assert moved <= sum(2 * s3.MIN_PART_BYTES for size in sizes if 0 < size < 2 * s3.MIN_PART_BYTES) + s3.MIN_PART_BYTES


def test_what_is_larger_than_one_copy_is_copied_in_pieces():
    size = 2 * s3.MAX_COPY_BYTES + 7
    segments = s3.plan_segments([s3.Stored("a", 0, size)])
    lengths = [one.n_bytes for (one,) in segments]
    assert sum(lengths) == size
    assert all(s3.MIN_PART_BYTES <= length <= s3.MAX_COPY_BYTES for length in lengths)


PARTS = {
    "none": [],
    "empty": [b""],
    "one": [b"a" * 10],
    "small ones": [b"a" * 10, b"", b"b" * 20],
    "long ones": [b"a" * (6 * MIB), b"b" * (5 * MIB), b"c" * 3],
    "short between long": [b"a" * MIB, b"b" * (12 * MIB), b"c" * 5, b"d" * (7 * MIB), b"e" * (2 * MIB)],
}


@pytest.mark.parametrize("name", PARTS)
def test_an_output_is_put_together_on_the_servers_side(bucket, name):
    output = OutputFolder(f"{bucket.url}/out", "job")
    StateFolder(output).begin(b"{}", [])
    parts = [(f"00000000/{number:03d}", [data[:3], data[3:]]) for number, data in enumerate(PARTS[name])]
    assert output.write_parts(parts) == [None] * len(parts)
    bucket.proxy.reset()
    output.publish("a/b.jsonl", [(part, sum(map(len, pieces))) for part, pieces in parts])
    assert bucket.get("out/a/b.jsonl.out") == b"".join(PARTS[name])
    copied = bucket.proxy.count("partNumber") if "long" in name else 0
    fetched = bucket.proxy.count("GET ")
    assert (copied, fetched) == {"long ones": (3, 1), "short between long": (4, 6)}.get(
        name, (0, {"small ones": 2}.get(name, 0))
    )
    StateFolder(output).end()
    assert bucket.keys() == ["out/a/b.jsonl.out"]


def test_more_segments_than_an_upload_takes_go_in_steps(bucket, monkeypatch):
    monkeypatch.setattr(s3, "MAX_PARTS", 2)
    filesystem, root = open_filesystem(bucket.url)
    pieces = [bytes([65 + number]) * (5 * MIB + number) for number in range(5)]
    sources = []
    for number, data in enumerate(pieces):
        bucket.put(f"p/{number}", data)
        sources.append(s3.Stored(f"{root}/p/{number}", 0, len(data)))
    s3.compose(filesystem, sources, f"{root}/whole", f"{root}/p/scratch", {})
    assert bucket.get("whole") == b"".join(pieces)


def test_an_upload_that_fails_is_aborted_and_nothing_appears(bucket):
    output = OutputFolder(f"{bucket.url}/out", "job")
    data = [b"a" * (6 * MIB)] * 3
    parts = [(f"00000000/{number}", [piece]) for number, piece in enumerate(data)]
    output.write_parts(parts)
    sizes = [(name, 6 * MIB) for name, _ in parts]
    bucket.proxy.reset(lambda method, path: 403 if "partNumber=2" in path else None)
    with pytest.raises(StorageError, match=f"cannot publish {bucket.url}/out/a.out: .*; give this user the right"):
        output.publish("a", sizes)
    assert bucket.uploads() == []
    assert not [key for key in bucket.keys() if key.endswith(".out")]
    bucket.proxy.reset(lambda method, path: 403 if method == "PUT" else None)
    assert [str(error).partition(":")[0] for error in output.write_parts(parts)] == ["cannot write s3"] * 3
    bucket.proxy.reset()
    output.publish("a", sizes)
    assert bucket.get("out/a.out") == b"".join(data)


def test_what_is_written_is_encrypted_with_the_key(bucket):
    output = OutputFolder(f"{bucket.url}/out", "job", kms_key_id="alias/my-key")
    parts = [(f"00000000/{number}", [b"a" * 6 * MIB]) for number in range(2)]
    output.write_parts(parts)
    output.publish("several", [(name, 6 * MIB) for name, _ in parts])
    output.publish("one", [(parts[0][0], 6 * MIB)])
    output.publish("none", [])
    for key in bucket.keys():
        head = bucket.client.head_object(Bucket=bucket.name, Key=key)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/my-key"), key


def test_a_bucket_that_is_not_there_refuses_the_job(bucket):
    with pytest.raises(OutputRefusedError, match="there is no bucket no-such-bucket; check the path"):
        OutputFolder("s3://no-such-bucket/out", "job").check()
    OutputFolder(f"{bucket.url}/out", "job").check()
    with pytest.raises(StorageError, match="cannot list s3://no-such-bucket/in/: The specified bucket does not exist; check"):
        list_inputs("s3://no-such-bucket/in/", "/nowhere")
    with pytest.raises(InputNotFoundError, match="no object is there"):
        list_inputs(f"{bucket.url}/in/", "/nowhere")
    bucket.proxy.reset(lambda method, path: 403)
    with pytest.raises(StorageError, match=f"cannot list {bucket.url}/in/: .*; give this user the right to it"):
        list_inputs(f"{bucket.url}/in/", "/nowhere")


def test_a_model_is_fetched_once_for_each_of_its_versions(bucket, tmp_path):
    bucket.put("model/code/inference.py", b"one")
    bucket.put("model/weights", b"w")
    first = local_copy(f"{bucket.url}/model", tmp_path)
    assert ((first / "code/inference.py").read_bytes(), (first / "weights").read_bytes()) == (b"one", b"w")
    bucket.proxy.reset()
    assert local_copy(f"{bucket.url}/model/", tmp_path) == first
    assert bucket.proxy.count("GET .*weights") == 0
    bucket.put("model/code/inference.py", b"two")
    assert (local_copy(f"{bucket.url}/model", tmp_path) / "code/inference.py").read_bytes() == b"two"
    archive = local_copy(bucket.put("model.tar.gz", b"archive"), tmp_path)
    assert (archive.name, archive.read_bytes()) == ("model.tar.gz", b"archive")
    assert local_copy(f"{bucket.url}/nothing", tmp_path) is None
