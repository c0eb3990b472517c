"""DataCaptureConfig: ids in the results, and lists of what was transformed that are manifests of a next job."""

import json
import re
import uuid
from datetime import datetime, timezone

import pytest

from rayxform.pipeline.run import run_plan

pytestmark = pytest.mark.usefixtures("ray_address")


def lists(root, side):
    return {path.relative_to(root).as_posix(): json.loads(path.read_bytes()) for path in (root / side).rglob("*.json")}


def test_ids_and_lists(workspace):
    for key, data in {"a.jsonl": b'{"id":1}\n{"id":2}\n', "deep/b.jsonl": b'{"id":3}\n', "bad.jsonl": b"no json\n"}.items():
        workspace.write(key, data)
    capture = workspace.folder / "capture"
    changes = {
        "DataCaptureConfig": {"DestinationS3Uri": str(capture), "GenerateInferenceId": True},
        "DataProcessing__JoinSource": "Input",
    }
    began = datetime.now(timezone.utc)
    result = run_plan(workspace.plan(**changes), workers=2)
    assert (result.status, result.failed_files) == ("Failed", 1)
    rows = [json.loads(line) for output in workspace.outputs().values() for line in output.splitlines()]
    assert [row["id"] for row in rows] == [1, 2, 3]
    assert len({uuid.UUID(row["SageMakerInferenceId"]) for row in rows}) == 3
    (time,) = {row["SageMakerInferenceTime"] for row in rows}
    assert began.timestamp() - 1 <= datetime.strptime(time, "%Y-%m-%dT%H:%M:%S%z").timestamp() <= began.timestamp() + 60
    # What failed is in neither list.
    for side, prefix, names in (
        ("input", f"file://{workspace.folder}/input/", ["a.jsonl", "deep/b.jsonl"]),
        ("output", f"{workspace.folder}/output/", ["a.jsonl.out", "deep/b.jsonl.out"]),
    ):
        ((path, content),) = lists(capture, side).items()
        assert re.fullmatch(rf"{side}/\d{{4}}/\d\d/\d\d/\d\d/[0-9a-f-]{{36}}\.json", path)
        assert content == [{"prefix": prefix}, *names]
    source = {"S3DataType": "ManifestFile", "S3Uri": str(capture / path)}
    output = str(workspace.folder / "next")
    following = workspace.plan(TransformInput__DataSource__S3DataSource=source, TransformOutput__S3OutputPath=output)
    assert run_plan(following, workers=1).records == 3


def test_capture_on_s3_and_a_list_that_cannot_be_written_fails_the_job(workspace, bucket):
    bucket.put("in/a.jsonl", b'{"id":1}\n')
    changes = {
        "TransformInput__DataSource__S3DataSource__S3Uri": f"{bucket.url}/in",
        "TransformOutput__S3OutputPath": f"{bucket.url}/out",
        "DataCaptureConfig": {"DestinationS3Uri": f"{bucket.url}/capture", "KmsKeyId": "alias/k"},
    }
    assert run_plan(workspace.plan(**changes), workers=1).status == "Completed"
    listed = sorted(bucket.keys("capture/"))
    contents = [[{"prefix": f"{bucket.url}/in/"}, "a.jsonl"], [{"prefix": f"{bucket.url}/out/"}, "a.jsonl.out"]]
    assert [json.loads(bucket.get(key)) for key in listed] == contents
    assert bucket.client.head_object(Bucket=bucket.name, Key=listed[0])["SSEKMSKeyId"] == "alias/k"
    bucket.proxy.reset(lambda method, path: 403 if method == "PUT" and "/capture/" in path else None)
    result = run_plan(workspace.plan(**changes), workers=1)
    assert (result.status, result.done_files) == ("Failed", 1)
    assert f"cannot write {bucket.url}/capture/input/" in result.failure_reason
