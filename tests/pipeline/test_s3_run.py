"""Whole jobs from S3 to S3, over HTTP, beside the same jobs on a disk."""

import io
import json
import tarfile

import pytest

from rayxform.pipeline.run import run_plan
from tests.conftest import MODELS
from tests.test_cli import rayxform

SMALL = 40
LINES = {
    "a.jsonl": b"".join(b'{"id":%d,"text":"%s"}\n' % (number, b"x" * 900) for number in range(4000)),
    "deep/b.jsonl": b'{"id":1}\n{"id":2}',
    "empty.jsonl": b"",
    "bad.jsonl": b'{"id":1}\nno json\n',
    **{f"small/{number:03d}.jsonl": b'{"id":%d}\n' % number for number in range(SMALL)},
}


def on_s3(bucket):
    return {
        "TransformInput__DataSource__S3DataSource__S3Uri": f"{bucket.url}/in/",
        "TransformOutput__S3OutputPath": f"{bucket.url}/out",
    }


@pytest.mark.parametrize("changes", [{}, {"DataProcessing__JoinSource": "Input"}], ids=["plain", "join"])
def test_a_job_on_s3_gives_what_it_gives_on_disk(workspace, ray_address, bucket, changes):
    for key, data in LINES.items():
        workspace.write(key, data)
        bucket.put(f"in/{key}", data)
    on_disk = run_plan(workspace.plan(**changes), workers=1)
    sent = sorted(workspace.sent())
    bucket.proxy.reset()
    result = run_plan(workspace.plan(range_bytes=500_000, **changes, **on_s3(bucket)), workers=1)
    assert (result.status, result.files, result.failed_files) == (on_disk.status, on_disk.files, on_disk.failed_files)
    assert sorted(workspace.sent()) == sent
    outputs = {key.removeprefix("out/"): bucket.get(key) for key in bucket.keys("out/") if key.endswith(".out")}
    assert outputs == workspace.outputs()
    left = {key.removeprefix("out/.rayxform/job/") for key in bucket.keys("out/") if not key.endswith(".out")}
    if changes:
        (error,) = map(json.loads, bucket.get("out/.rayxform/job/errors.jsonl").splitlines())
        assert (error["Object"], error["Record"], error["Offset"]) == ("bad.jsonl", 2, 9)
        assert "plan.json" in left  # the same command would go on
    else:
        assert {name.partition("-")[0] for name in left} == {"events"}
    # An object costs one request to be read, and one each for its part and its output.
    assert bucket.proxy.count(r"GET /.*/in/small/") == SMALL
    assert bucket.proxy.count(r"PUT /.*/parts/") == bucket.proxy.count(r"PUT /.*\.part")
    assert bucket.proxy.count(r"PUT /.*/out/small/") == SMALL
    assert bucket.proxy.count(r"HEAD ") <= 30  # one a second asks whether to stop
    assert bucket.proxy.most_at_once > 4


def test_a_job_file_and_a_model_come_from_s3(workspace, ray_address, bucket):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(MODELS / "counting" / "inference.py", "code/inference.py")
    bucket.put("models/model.tar.gz", archive.getvalue())
    bucket.put("in/a.jsonl", b'{"id":1}\n{"id":2}\n')
    bucket.put("in2/a.jsonl", b'{"id":3}\n')
    job = workspace.members(
        Model={"ModelDataUrl": "models/model.tar.gz"}, Model__Environment={"ECHO": "1", "REQUESTS": str(workspace.requests)}
    )
    job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] = "in"
    job["TransformOutput"]["S3OutputPath"] = "out"
    url = bucket.put("job.json", json.dumps(job).encode())
    ran = rayxform("run", url, "--json")
    assert ran.returncode == 0, ran.stderr
    assert bucket.get("out/a.jsonl.out") == b'{"SageMakerOutput":{"id":1}}\n{"SageMakerOutput":{"id":2}}\n'
    assert bucket.get("out/in2/a.jsonl.out") == b'{"SageMakerOutput":{"id":3}}\n'
    assert "takes in 1 objects outside of the folder" in " ".join(ran.stderr.split())


def test_an_output_that_cannot_be_written_fails_its_file_and_says_why(workspace, ray_address, bucket):
    for key in ("a", "b"):
        bucket.put(f"in/{key}", b'{"id":1}\n')
    bucket.proxy.reset(lambda method, path: 403 if method == "PUT" and path.endswith("/out/a.out") else None)
    result = run_plan(workspace.plan(**on_s3(bucket)), workers=1)
    assert (result.status, result.failed_files, result.done_files) == ("Failed", 1, 1)
    assert f"cannot publish {bucket.url}/out/a.out" in result.failure_reason
    assert [key for key in bucket.keys("out/") if key.endswith(".out")] == ["out/b.out"]


def test_a_partitioned_data_set_on_s3_is_the_one_on_disk_and_encrypted(workspace, ray_address, bucket):
    lines = b"".join(b'{"id":%d,"day":"2022/01/0%d"}\n' % (number, number % 3) for number in range(300))
    workspace.write("deep/a.jsonl", lines)
    bucket.put("in/deep/a.jsonl", lines)
    changes = {
        "DataProcessing__JoinSource": "Input",
        "Rayxform__Partition": {"By": ["$.day"], "Format": "parquet"},
        "DataCaptureConfig": {"DestinationS3Uri": f"{bucket.url}/capture"},
    }
    assert run_plan(workspace.plan(**changes), workers=1).status == "Completed"
    root = workspace.folder / "output"
    expected = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.parquet")}
    assert len(expected) == 3
    for _ in range(2):  # again: it replaces
        result = run_plan(workspace.plan(**changes, **on_s3(bucket), TransformOutput__KmsKeyId="alias/k"), workers=1)
        assert result.status == "Completed", result.failure_reason
        written = [key for key in bucket.keys("out/") if ".rayxform" not in key]
        assert {key.removeprefix("out/"): bucket.get(key) for key in written} == expected
        assert bucket.client.head_object(Bucket=bucket.name, Key=written[0])["SSEKMSKeyId"] == "alias/k"
    (captured, *_) = [json.loads(bucket.get(key)) for key in bucket.keys("capture/output/") if b"s3://" in bucket.get(key)]
    assert sorted(captured[0]["prefix"] + name for name in captured[1:]) == [f"{bucket.url}/{key}" for key in written]
