"""Stock clients against the endpoint: nothing but endpoint_url is changed."""

import json

from tests.server.conftest import wait_for


def test_boto3_creates_runs_waits_and_reads(sagemaker, world):
    lines = [json.dumps({"id": number, "text": "ä" * number}) for number in range(50)]
    world.put_model()
    world.bucket.put("input/a.jsonl", "\n".join(lines).encode())
    world.bucket.put("input/sub/b.jsonl", lines[0].encode())
    sagemaker.create_model(**world.model())
    arn = sagemaker.create_transform_job(**world.job())["TransformJobArn"]
    assert arn == f"arn:aws:sagemaker:us-east-1:000000000000:transform-job/{world.name}-job"
    waiter = sagemaker.get_waiter("transform_job_completed_or_stopped")
    waiter.wait(TransformJobName=f"{world.name}-job", WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    described = sagemaker.describe_transform_job(TransformJobName=f"{world.name}-job")
    assert described["TransformJobStatus"] == "Completed"
    assert described["CreationTime"] <= described["TransformStartTime"] <= described["TransformEndTime"]
    outputs = world.outputs()
    assert sorted(outputs) == ["a.jsonl.out", "sub/b.jsonl.out"]
    assert outputs["a.jsonl.out"].count(b"\n") == 50
