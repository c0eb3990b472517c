"""Whole jobs on stores that fail, through a real Ray, beside undisturbed ones."""

import json
import re

import pytest

from rayxform.pipeline.run import run_plan
from tests.faulty_fs import Faults
from tests.pipeline.test_s3_run import on_s3

pytestmark = pytest.mark.usefixtures("ray_address")

LINES = {
    "a.jsonl": b"".join(b'{"id":%d,"day":"%d","text":"%s"}\n' % (number, number % 3, b"x" * 900) for number in range(3000)),
    "deep/b.jsonl": b'{"id":1,"day":"1"}\n{"id":2,"day":"0"}',
    "empty.jsonl": b"",
    **{f"small/{number:02d}.jsonl": b'{"id":%d,"day":"2"}\n' % number for number in range(12)},
}

PASSING = [
    {"operation": "list", "path": "input", "kind": "EIO", "calls": [1, 3]},
    {"operation": "info", "path": "input", "kind": "ESTALE", "calls": [2, 5, 9]},
    {"operation": "read", "path": "a.jsonl", "kind": "short", "calls": [1, 3]},
    {"operation": "read", "path": "a.jsonl", "kind": "reset", "calls": [1, 2]},
    {"operation": "read", "path": "input/small", "kind": "delay"},
    {"operation": "write", "path": "output", "kind": "EIO", "calls": [1, 4]},
    {"operation": "close", "path": "output", "kind": "lost EIO", "calls": [2]},
    {"operation": "move", "path": "output", "kind": "lost timeout", "calls": [1, 2, 5]},
    {"operation": "move", "path": "output", "kind": "EBUSY", "calls": [2, 3]},
    {"operation": "copy", "path": "output", "kind": "lost EIO", "calls": [1, 2]},
    {"operation": "remove", "path": r"\.part$", "kind": "lost EIO", "calls": [1]},
]


def faulty(workspace):
    """Input and output of a workspace on the file system that fails, and the failures."""
    changes = {
        "TransformInput__DataSource__S3DataSource__S3Uri": f"faulty://{workspace.folder}/input",
        "TransformOutput__S3OutputPath": f"faulty://{workspace.folder}/output",
    }
    return changes, Faults(workspace.folder)


def written(workspace):
    """Every file of the output, after which there is none."""
    root = workspace.folder / "output"
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for name in found:
        (root / name).unlink()
    kept = re.compile(r"\.rayxform/job/(events|plan|inputs|parts)")
    return {name: data for name, data in found.items() if not kept.match(name)}


@pytest.mark.parametrize(
    "changes",
    [{"DataProcessing__JoinSource": "Input"}, {"Rayxform__Partition": {"By": ["$.day"], "Format": "jsonlines"}}],
    ids=["outputs", "data set"],
)
def test_errors_that_pass_change_nothing(workspace, changes):
    for key, data in LINES.items():
        workspace.write(key, data)
    changes = changes | ({"DataProcessing__JoinSource": "Input"} if "Rayxform__Partition" in changes else {})
    assert run_plan(workspace.plan(**changes), workers=1).status == "Completed"
    expected = written(workspace)
    on_faulty, faults = faulty(workspace)
    faults.set(*PASSING)
    result = run_plan(workspace.plan(range_bytes=500_000, **changes, **on_faulty), workers=2)
    assert (result.status, result.failure_reason) == ("Completed", None)
    injected = {tuple(line.partition(" /")[0].split(" ", 1)) for line in faults.injected()}
    assert len(injected) >= 9
    found = written(workspace)
    if "Rayxform__Partition" in changes:
        for files in (found, expected):
            files.pop(".rayxform/job/dataset.json")
    assert found == expected


def test_errors_that_stay_fail_their_files_alone(workspace):
    for key, data in LINES.items():
        workspace.write(key, data)
    assert run_plan(workspace.plan(), workers=1).status == "Completed"
    expected = written(workspace)
    (workspace.folder / "output" / "small").mkdir(parents=True, exist_ok=True)
    (workspace.folder / "output" / "small" / "03.jsonl.out").write_bytes(b"of an earlier run")
    on_faulty, faults = faulty(workspace)
    faults.set(
        {"operation": "open", "path": "input/deep/b.jsonl", "kind": "EACCES"},
        {"operation": "move", "path": r"small/03.jsonl.out$", "kind": "EROFS"},
        {"operation": "write", "path": r"parts/00000000/", "kind": "ENOSPC"},
    )
    result = run_plan(workspace.plan(**on_faulty), workers=1)
    assert (result.status, result.failed_files, result.files) == ("Failed", 3, len(LINES))
    found = written(workspace)
    errors = [json.loads(line) for line in found.pop(".rayxform/job/errors.jsonl").splitlines()]
    said = {error["Object"]: error["Message"] for error in errors}
    for key, words in {
        "a.jsonl": "cannot write .*No space left on device; free space on the device or choose another S3OutputPath",
        "deep/b.jsonl": "cannot read .*Permission denied; give this user the right to it",
        "small/03.jsonl": "cannot publish .*Read-only file system; choose a path on a device that can be written",
    }.items():
        assert re.search(words, said.pop(key))
        del expected[f"{key}.out"]
    assert (said, found) == ({}, expected)
    assert len(faults.injected()) >= 3


def test_credentials_that_end_midway_fail_what_is_not_published_and_keep_what_is(workspace, bucket):
    for key, data in LINES.items():
        workspace.write(key, data)
        bucket.put(f"in/{key}", data)
    assert run_plan(workspace.plan(), workers=1).status == "Completed"
    expected = written(workspace)

    def expire(method, path):
        # From the second small output on nothing is allowed any more.
        ended = sum(bool(re.search("/out/small/", path)) for method, path in bucket.proxy.seen) > 1
        return (400, "ExpiredToken") if ended else None

    plan = workspace.plan(**on_s3(bucket))
    bucket.proxy.reset(expire)
    result = run_plan(plan, workers=1)
    bucket.proxy.reset()
    reason = result.failure_reason
    assert result.status == "Failed"
    assert "ExpiredToken, says the proxy; these credentials have ended: get new ones" in reason
    found = {key.removeprefix("out/"): bucket.get(key) for key in bucket.keys("out/") if key.endswith(".out")}
    # What was being put together can't be called off without credentials either.
    for one in bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", ()):
        bucket.client.abort_multipart_upload(Bucket=bucket.name, Key=one["Key"], UploadId=one["UploadId"])
    assert 0 < len(found) < len(expected)
    assert found.items() <= expected.items()
