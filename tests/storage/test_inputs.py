"""Which objects a job reads, and what is in them: manifests and compressed objects, whole and damaged."""

import bz2
import gzip
import json

import pyarrow as pa
import pytest

from rayxform.errors import InputNotFoundError, StorageError
from rayxform.pipeline.reading import NoSeams, read_range
from rayxform.storage.listing import InputFinder, list_inputs
from rayxform.storage.reading import read_chunks
from tests.support import cases

TEXT = b"".join(b'{"id": %d, "x": "%s"}\n' % (number, b"y" * (number % 50)) for number in range(2000))
COMPRESSED = {
    "a.gz": gzip.compress(TEXT),
    "several members.gz": gzip.compress(TEXT[:1000]) + gzip.compress(b"") + gzip.compress(TEXT[1000:]),
    "no extension": gzip.compress(TEXT, 1),
    "a.bz2": bz2.compress(TEXT[:5000]) + bz2.compress(TEXT[5000:]),
    "a.zst": pa.compress(TEXT, "zstd", asbytes=True),
}


def read(folder, **options):
    return [b"".join(read_chunks(source, chunk_bytes=999)) for source in list_inputs(str(folder), "/nowhere", **options).inputs]


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_compressed_object_is_read_as_what_is_in_it(tmp_path, name):
    (tmp_path / name).write_bytes(COMPRESSED[name])
    assert read(tmp_path, compressed=True) == [TEXT]
    assert read(tmp_path) == [COMPRESSED[name]]


@pytest.mark.parametrize("name", COMPRESSED)
def test_damage_in_a_compressed_object_is_an_error_and_never_an_end(tmp_path, name):
    data = COMPRESSED[name]
    for damaged in (data[:-1], data[: len(data) // 2], data[:20], b"not compressed at all", data + b"not compressed"):
        (tmp_path / name).write_bytes(damaged)
        try:
            assert read(tmp_path, compressed=True) == [TEXT]
        except StorageError as error:
            assert f"cannot decompress file://{tmp_path / name}" in str(error)
            continue
        assert damaged.endswith(b"not compressed")  # bzip2 tells what follows the stream from another one, and leaves it
        assert name.endswith("bz2")


def test_a_bomb_is_read_in_chunks(tmp_path):
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(50_000_000)))
    (source,) = list_inputs(str(tmp_path), "/nowhere", compressed=True).inputs
    sizes = [len(chunk) for chunk in read_chunks(source, chunk_bytes=1_000_000)]
    assert (max(sizes), sum(sizes)) == (1_000_000, 50_000_000)


@pytest.mark.parametrize("case", cases("inputs"), ids=lambda case: case["source"])
def test_case(tmp_path, case):
    for name in case.get("files", ["in/a.jsonl", "in/x/b.jsonl", "in/x/y/c.jsonl", "other/d.jsonl"]):
        path = tmp_path / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(name.encode())
    place = case["uri"].replace("PLACE", str(tmp_path))
    uri = place if "://" in place else f"{tmp_path}/{place}"
    if "error" in case:
        with pytest.raises(InputNotFoundError, match=case["error"]):
            list_inputs(uri, "/nowhere")
        return
    found = list_inputs(uri, f"{tmp_path}/{case.get('output', 'out')}").inputs
    assert [one.key for one in found] == case["keys"]
    assert all(b"".join(read_chunks(one)).decode().endswith(one.key) for one in found)
    finder = InputFinder(uri)
    assert [finder.find(one.key) for one in found] == found
    assert (finder.find("nowhere"), finder.find("../a"), finder.find("")) == (None, None, None)


def manifest(folder, elements, name="manifest"):
    path = folder / name
    path.write_text(elements if isinstance(elements, str) else json.dumps(elements))
    return str(path)


def test_a_manifest_gives_what_it_names_in_its_order(tmp_path):
    for key in ("x/b.jsonl", "x/y/a.jsonl", "x/other.jsonl"):
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_text(key)
    uri = manifest(tmp_path, [{"prefix": f"{tmp_path}/x/"}, "y/a.jsonl", "b.jsonl"])
    assert [found.key for found in list_inputs(uri, "/nowhere", manifest=True).inputs] == ["y/a.jsonl", "b.jsonl"]
    assert read(uri, manifest=True) == [b"x/y/a.jsonl", b"x/b.jsonl"]
    found = list_inputs(uri, "/nowhere", manifest=True).inputs
    assert [InputFinder(uri, manifest=True).find(one.key) for one in found] == found
    # The prefix is one of characters, as on S3.
    uri = manifest(tmp_path, [{"prefix": f"{tmp_path}/x/oth"}, "er.jsonl"])
    assert read(uri, manifest=True) == [b"x/other.jsonl"]


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ("{", "it is not JSON"),
        ("{}", "not an array"),
        ("[]", "not an array with elements"),
        ('["a"]', 'its first element is "a", which names no prefix'),
        ('[{"prefix": 3}, "a"]', "names no prefix"),
        ('[{"prefix": "p/"}]', "it names no object"),
        ('[{"prefix": "p/"}, "a", 7]', "its element 3 is 7, which is no name"),
        ('[{"prefix": "p/"}, "a", "b", "a"]', "its elements 2 and 4 are both 'a'"),
        ('[{"prefix": "PLACE/"}, "missing"]', "missing', but no object is there"),
        ('[{"prefix": "PLACE/"}, "../manifest"]', "leads out of the prefix"),
    ],
)
def test_what_is_no_manifest_is_refused_in_words(tmp_path, elements, words):
    uri = manifest(tmp_path, elements.replace("PLACE", str(tmp_path)))
    with pytest.raises(InputNotFoundError) as caught:
        list_inputs(uri, "/nowhere", manifest=True)
    assert words in str(caught.value)


def requests(plan):
    (one,) = plan.ranges()
    return [*read_range(one, plan.recipe, NoSeams())]


@pytest.mark.parametrize("name", COMPRESSED)
def test_requests_are_the_same_bytes_whether_the_input_is_compressed_or_not(workspace, name):
    changes = {"Rayxform__MaxRecordsPerBatch": 70, "TransformInput__CompressionType": "Gzip"}
    workspace.write("a", TEXT)
    plain = requests(workspace.plan(**changes | {"TransformInput__CompressionType": "None"}))
    (workspace.folder / "input" / "a").unlink()
    workspace.write(name, COMPRESSED[name])
    assert requests(workspace.plan(range_bytes=100, **changes)) == plain
    assert len(plain) == 30
