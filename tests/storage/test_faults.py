"""Stores that fail: every operation with errors that pass gives what an undisturbed one does, and others say what to do."""

import json
import re
import threading

import pytest

from rayxform.errors import StorageError
from rayxform.storage import retrying, s3
from rayxform.storage.capture import CaptureFolder
from rayxform.storage.datasets import DatasetFolder
from rayxform.storage.error_list import ErrorList
from rayxform.storage.listing import list_inputs
from rayxform.storage.publishing import OutputFolder
from rayxform.storage.reading import local_copy, read_chunks, read_text
from rayxform.storage.state import StateFolder
from tests.faulty_fs import Faults
from tests.support import cases

MIB = 1024 * 1024
BIG = bytes(range(256)) * 4096 * 2
PARTS = [("00000000/0.part", [b"a" * 1000, b"b"]), ("00000000/1.part", [b"c" * 10]), ("00000000/2.part", [b"\n"])]
SIZES = [(name, sum(map(len, pieces))) for name, pieces in PARTS]


class Place:
    """A folder with inputs and what earlier runs left, seen through faulty://."""

    def __init__(self, folder):
        self.folder = folder
        self.url = f"faulty://{folder}"
        self.output = OutputFolder(f"{self.url}/out", "job")
        for name, data in {"a.jsonl": b"1\n", "deep/b.jsonl": b"2\n", "deep/er/c.jsonl": b"3\n", "big": BIG}.items():
            self.write(f"in/{name}", data)
        names = [{"prefix": f"{self.url}/in/"}, "a.jsonl", "deep/b.jsonl"]
        self.write("manifest", json.dumps(names).encode())
        self.write("model/code/inference.py", b"x = 1\n" * 100)
        self.write("model/weights", BIG)
        self.write("out/old.out", b"of an earlier run")
        self.write("out/.rayxform/job/parts/dataset/new", b"new")
        self.write("out/.rayxform/job/parts/dataset/more", b"more")
        self.write("out/day=1/old", b"old")
        self.write("out/.rayxform/job/dataset.json", b'{"Files":["day=1/old"]}')

    def write(self, name, data):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def files(self):
        """Everything that is there, without what a test does it with."""
        paths = [path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith(".faults")]
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in paths}

    def listed(self, name, **how):
        found = list_inputs(f"{self.url}/{name}", f"{self.url}/nowhere", **how).inputs
        return [(one.key, one.size) for one in found]

    def big(self):
        (source,) = [one for one in list_inputs(f"{self.url}/in", f"{self.url}/nowhere").inputs if one.key == "big"]
        return source


def write_parts(place):
    errors = [error for error in place.output.write_parts(PARTS[:2]) if error]
    if errors:
        raise errors[0]


def publish(place, sizes):
    place.output.publish("x/a", sizes)


def list_errors(place):
    errors = ErrorList(place.output.errors_url)
    errors.append({"Object": "a"})
    errors.append({"Object": "b"})
    errors.flush()


ACTIONS = {
    # What is there before, undisturbed; what is done.
    "list a folder": (None, lambda place: place.listed("in")),
    "list a pattern": (None, lambda place: place.listed("in/**/*.jsonl")),
    "list a prefix": (None, lambda place: place.listed("in/d")),
    "list a file": (None, lambda place: place.listed("in/a.jsonl")),
    "list a manifest": (None, lambda place: place.listed("manifest", manifest=True)),
    "read": (Place.big, lambda place, big: b"".join(read_chunks(big, 17, chunk_bytes=MIB // 2))),
    "read a text": (None, lambda place: read_text(f"{place.url}/manifest").count("jsonl")),
    "fetch a model": (None, lambda place: bool(local_copy(f"{place.url}/model", place.folder / "fetched"))),
    "write parts": (None, write_parts),
    "publish of one part": (lambda place: place.output.write_parts(PARTS[:1]), lambda place, _: publish(place, SIZES[:1])),
    "publish of several parts": (lambda place: place.output.write_parts(PARTS), lambda place, _: publish(place, SIZES)),
    "withdraw": (None, lambda place: place.output.withdraw("old")),
    "list errors": (None, list_errors),
    "list for Model Monitor": (
        None,
        lambda place: CaptureFolder(f"{place.url}/capture", None, 0.0).write("input", ["x/a", "x/b"])[-54:-41],
    ),
    "commit a data set again": (
        None,
        lambda place: DatasetFolder(place.output).commit({"day=2/new": "new", "day=3/more": "more"}),
    ),
}


def act(folder, action, *rules):
    """What an action gave and what was there afterwards, and the failures on the way."""
    place = Place(folder)
    prepare, do = ACTIONS[action]
    prepared = [] if prepare is None else [prepare(place)]
    faults = Faults(folder)
    before = place.files()
    faults.set(*rules)
    try:
        gave = do(place, *prepared)
    except StorageError as error:
        return str(error), before, place.files(), faults.injected()
    return gave, before, place.files(), faults.injected()


def comparable(files, leaves):
    """What two runs have in common: all but random names, the folder in a manifest, and what a failure may leave."""
    random = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|(?<=fetched/)[.]?[0-9a-f]{32}")
    return {random.sub("*", name): data for name, data in files.items() if not name.endswith(("manifest", leaves))}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(retrying, "LONGEST_PAUSE_S", 0.01)


@pytest.mark.parametrize("case", cases("storage_faults"), ids=lambda case: case["source"])
def test_an_operation_on_a_store_that_fails(tmp_path, case):
    gave, before, after, injected = act(tmp_path / "faulty", case["action"], case["rule"])
    leaves = case.get("leaves", "manifest")
    if "error" in case:
        assert re.search(case["error"], str(gave))
        assert len(injected) == case.get("injected", 1), "what does not pass is not asked for again"
        assert comparable(after, leaves) == comparable(before, leaves), "of what failed nothing is left"
        return
    assert len(injected) == case.get("injected", len(case["rule"].get("calls", injected))) > 0
    expected, _, expected_after, none = act(tmp_path / "whole", case["action"])
    assert (none, gave) == ([], expected)
    assert comparable(after, leaves) == comparable(expected_after, leaves)


def test_an_error_that_stays_ends_after_some_attempts(tmp_path):
    gave, before, after, injected = act(tmp_path, "write parts", {"operation": "write", "path": "/0.part", "kind": "EIO"})
    assert "cannot write" in gave
    assert "Input/output error" in gave
    assert len(injected) == retrying.ATTEMPTS
    assert set(after) - set(before) == {"out/.rayxform/job/parts/00000000/1.part"}


def test_an_object_that_always_ends_early_is_an_error_that_says_so(tmp_path):
    gave, _, _, injected = act(tmp_path, "read", {"operation": "read", "path": "big", "kind": "early"})
    assert f"cannot read faulty://{tmp_path}/in/big: the answer ended {len(BIG) - 17} bytes early" in gave
    assert len(injected) == retrying.ATTEMPTS


def test_an_object_that_changes_while_it_is_asked_for_again_is_not_mixed(tmp_path):
    place = Place(tmp_path)
    big = place.big()
    chunks = read_chunks(big, chunk_bytes=MIB)
    assert next(chunks) == BIG[:MIB]
    place.write("in/big", BIG[:-1] + b"!!")
    Faults(tmp_path).set({"operation": "read", "path": "big", "kind": "EIO", "calls": [1]})
    with pytest.raises(StorageError, match="in/big changed after the job had begun"):
        list(chunks)


def test_a_full_disk_fails_what_does_not_fit_and_keeps_what_did(small_disk):
    output = OutputFolder(str(small_disk / "out"), "job")
    StateFolder(output).begin(b"{}", [])
    parts = [("00000000/0", [b"a" * 300_000]), ("00000001/0", [b"b" * 900_000]), ("00000002/0", [b"c" * 300_000])]
    outcomes = output.write_parts(parts)
    assert [outcome is None for outcome in outcomes] == [True, False, True]
    assert "No space left on device; free space on the device or choose another S3OutputPath" in str(outcomes[1])
    output.publish("one", [("00000000/0", 300_000)])
    with pytest.raises(StorageError, match="cannot publish .*two.out: No space left on device; free space"):
        output.publish("two", [("00000002/0", 300_000)] * 3)
    errors = ErrorList(output.errors_url)
    errors.append({"Object": "fits"})
    fill(small_disk / "rest")
    with pytest.raises(StorageError, match="cannot write .*errors.jsonl: No space left"):
        errors.append({"Object": "x" * 5000})
    (small_disk / "rest").unlink()
    errors.append({"Object": "after"})
    lines = (small_disk / "out/.rayxform/job/errors.jsonl").read_text().splitlines()
    assert [json.loads(line)["Object"] for line in lines] == ["fits", "after"]
    output.publish("two", [("00000002/0", 300_000)])
    StateFolder(output).end()
    assert {path.name: path.stat().st_size for path in (small_disk / "out").glob("*.out")} == {
        "one.out": 300_000,
        "two.out": 300_000,
    }


def fill(path):
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(512))
            except OSError:
                return


LOST = {
    # What is asked for when the answer is lost; how many parts of which size are published.
    "PUT .*/parts/": 1,
    "PUT .*/out/a.out$": 1,
    "PUT .*partNumber=2": 2,
    "POST .*uploadId": 2,
    "DELETE .*/out/a.out$": 1,
    "GET .*list-type": 1,
}


@pytest.mark.parametrize("kms", [None, "alias/k"])
@pytest.mark.parametrize("request_", LOST, ids=str)
def test_an_answer_of_s3_that_is_lost_changes_nothing(bucket, request_, kms):
    output = OutputFolder(f"{bucket.url}/out", "job", kms)
    once = iter(["lose"])
    bucket.proxy.reset(lambda method, path: next(once, None) if re.search(request_, f"{method} {path}") else None)
    parts = [(f"00000000/{number}", [bytes([65 + number]) * (5 * MIB)]) for number in range(LOST[request_])]
    assert output.write_parts(parts) == [None] * len(parts)
    output.publish("a", [(name, 5 * MIB) for name, _ in parts])
    assert [one.size for one in list_inputs(f"{bucket.url}/out/a", "/nowhere").inputs] == [5 * MIB * len(parts)]
    assert bucket.get("out/a.out") == b"".join(piece for _, (piece,) in parts)
    output.withdraw("a")
    assert not [key for key in bucket.keys() if key.endswith(".out")]
    assert next(once, "none left") == "none left"


def test_an_upload_that_somebody_aborted_is_an_error_although_an_output_of_that_size_is_there(bucket):
    output = OutputFolder(f"{bucket.url}/out", "job")
    parts = [(f"00000000/{number}", [bytes([65 + number]) * (5 * MIB)]) for number in range(2)]
    output.write_parts(parts)
    bucket.put("out/a.out", b"x" * (10 * MIB))
    bucket.proxy.reset(lambda method, path: (404, "NoSuchUpload") if method == "POST" and "uploadId" in path else None)
    with pytest.raises(StorageError, match="cannot publish .*a.out: NoSuchUpload"):
        output.publish("a", [(name, 5 * MIB) for name, _ in parts])
    assert bucket.get("out/a.out") == b"x" * (10 * MIB)


PASSING = [503, "drop", (400, "RequestTimeout"), "truncate", 0.01]


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_a_request_that_fails_is_asked_for_again(bucket, fault):
    bucket.put("in/a", b"1\n" * 1000)
    every_second = [0]
    lock = threading.Lock()

    def failing(method, path):
        with lock:
            every_second[0] += 1
            return fault if every_second[0] % 2 and (fault != "truncate" or method == "GET") else None

    bucket.proxy.reset(failing)
    (source,) = list_inputs(f"{bucket.url}/in/", "/nowhere").inputs
    assert b"".join(read_chunks(source)) == b"1\n" * 1000
    output = OutputFolder(f"{bucket.url}/out", "job")
    assert output.write_parts([("0", [b"x"])]) == [None]
    output.publish("a", [("0", 1)])
    bucket.proxy.reset()
    assert bucket.get("out/a.out") == b"x"
    assert every_second[0] >= 4


STAYING = [
    # A request's answer, what is said and what to do.
    ((400, "ExpiredToken"), "ExpiredToken, says the proxy; these credentials have ended: get new ones"),
    ((403, "InvalidAccessKeyId"), "S3 does not know AWS_ACCESS_KEY_ID: check it"),
    ((403, "AccessDenied"), "give this user the right to it, or choose another path; see the IAM policy"),
    ((403, "SignatureDoesNotMatch"), "check AWS_SECRET_ACCESS_KEY"),
    ((403, "RequestTimeTooSkewed"), "set this machine's clock"),
    ((404, "NoSuchKey"), "check the path; it may have been removed while the job ran"),
    ((412, "PreconditionFailed"), "changed after the job had begun"),
]


@pytest.mark.parametrize(("answer", "words"), STAYING, ids=lambda value: str(value)[:30])
def test_an_answer_that_will_not_change_is_asked_for_once(bucket, answer, words):
    bucket.put("in/a", b"1\n")
    (source,) = list_inputs(f"{bucket.url}/in/", "/nowhere").inputs
    bucket.proxy.reset(lambda method, path: answer)
    with pytest.raises(StorageError, match=re.escape(words)):
        list(read_chunks(source))
    assert bucket.proxy.count("GET ") == 1


@pytest.mark.parametrize("answer", [503, 500, (503, "SlowDown"), (400, "RequestTimeout"), "drop"], ids=str)
def test_attempts_at_a_request_are_botocores_alone(bucket, monkeypatch, answer):
    retries = {"retries": {"mode": "legacy", "total_max_attempts": 2}}
    monkeypatch.setitem(s3.OPTIONS, "config_kwargs", s3.OPTIONS["config_kwargs"] | retries)
    bucket.put("in/a", b"1\n")
    (source,) = list_inputs(f"{bucket.url}/in/", "/nowhere").inputs
    bucket.proxy.reset(lambda method, path: answer)
    words = {(503, "SlowDown"): "fewer workers", "drop": "Connection was closed"}.get(answer, "")
    with pytest.raises(StorageError, match=f"cannot read {bucket.url}/in/a: .*{words}"):
        list(read_chunks(source))
    # aiohttp asks once more by itself where a connection that it had kept is closed.
    assert bucket.proxy.count("GET ") == 2 * (1 + (answer == "drop"))
