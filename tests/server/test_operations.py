"""What each operation answers: members, defaults, errors in AWS's codes and words, lists in order and pages."""

import http.client
import json
import time
from datetime import datetime, timezone

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from tests.server.conftest import wait_for
from tests.support import cases


def call(server, operation, body, *, headers=()):
    """A call without a client that checks it first; the status, and what the answer says."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"X-Amz-Target": f"SageMaker.{operation}", "Content-Type": "application/x-amz-json-1.1", **dict(headers)}
    connection.request("POST", "/", data, named)
    answer = connection.getresponse()
    assert answer.headers["x-amzn-RequestId"]
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text else None


@pytest.mark.parametrize("case", cases("endpoint"), ids=lambda case: case["name"])
def test_what_is_wrong_is_said_as_aws_says_it(server, case):
    status, answer = call(server, case["operation"], case["members"])
    assert (status, answer["__type"]) == (400, case["code"])
    assert case["message"] in answer["message"]


@pytest.mark.parametrize("case", cases("endpoint_jobs"), ids=lambda case: case["name"])
def test_a_job_that_is_wrong_is_refused_and_not_there(server, world, case):
    model = world.model()
    call(server, "CreateModel", model)
    job = {name: value for name, value in (world.job() | case["changes"]).items() if value is not None}
    status, answer = call(server, "CreateTransformJob", job)
    assert (status, answer["__type"]) == (400, case["code"])
    assert case["message"] in answer["message"]
    assert call(server, "DescribeTransformJob", {"TransformJobName": job["TransformJobName"]})[0] == 400


@pytest.mark.parametrize(
    "body", [b"{", b"\xff\xfe", b'{"TransformJobName": "\\ud800"}', b"[" * 100_000, b'{"TransformJobName": NaN}'], ids=range(5)
)
def test_what_is_no_json_is_refused(server, body):
    status, answer = call(server, "DescribeTransformJob", body)
    assert (status, answer["__type"]) == (400, "SerializationException")


def test_a_body_that_is_too_large_is_refused(server):
    status, answer = call(server, "DescribeTransformJob", b" " * (1024 * 1024 + 1))
    assert (status, answer["__type"]) == (413, "RequestEntityTooLargeException")


def test_a_host_that_is_not_this_machine_is_refused(server):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    connection.request("POST", "/", b"{}", {"Host": "evil.example", "X-Amz-Target": "SageMaker.ListModels"})
    assert connection.getresponse().status == 421


def test_a_model_is_created_described_listed_and_deleted(sagemaker, world):
    members = world.model(Tags=[{"Key": "team", "Value": "vision"}], ExecutionRoleArn="arn:aws:iam::000000000000:role/any")
    arn = sagemaker.create_model(**members)["ModelArn"]
    described = sagemaker.describe_model(ModelName=world.model_name)
    assert described["ModelArn"] == arn
    assert described["PrimaryContainer"] == members["PrimaryContainer"]
    assert described["ExecutionRoleArn"] == members["ExecutionRoleArn"]
    assert described["EnableNetworkIsolation"] is False
    assert abs((datetime.now(timezone.utc) - described["CreationTime"]).total_seconds()) < 60
    assert "Tags" not in described
    with pytest.raises(ClientError, match=f'Cannot create already existing model "{arn}"'):
        sagemaker.create_model(**members)
    listed = sagemaker.list_models(NameContains=world.name)["Models"]
    assert [one["ModelName"] for one in listed] == [world.model_name]
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == members["Tags"]
    sagemaker.delete_model(ModelName=world.model_name)
    with pytest.raises(ClientError, match="Could not find model"):
        sagemaker.describe_model(ModelName=world.model_name)


def test_a_minimal_job_is_described_as_the_service_describes_it(sagemaker, world):
    """Members that are not given: some come with defaults, some not at all (facts, 1: real response)."""
    sagemaker.create_model(**world.model())
    members = world.job()
    for name in ("MaxPayloadInMB", "BatchStrategy"):
        del members[name]
    members["TransformInput"] = {"DataSource": members["TransformInput"]["DataSource"]}
    members["TransformOutput"] = {"S3OutputPath": members["TransformOutput"]["S3OutputPath"]}
    arn = sagemaker.create_transform_job(**members, Tags=[{"Key": "a", "Value": "b"}])["TransformJobArn"]
    described = wait_for(sagemaker, members["TransformJobName"])
    for name in ("CreationTime", "TransformStartTime", "TransformEndTime", "ResponseMetadata", "FailureReason"):
        described.pop(name)
    assert described == {
        "TransformJobName": members["TransformJobName"],
        "TransformJobArn": arn,
        "TransformJobStatus": "Failed",
        "ModelName": world.model_name,
        "Environment": {},
        "TransformInput": {**members["TransformInput"], "CompressionType": "None", "SplitType": "None"},
        "TransformOutput": {**members["TransformOutput"], "AssembleWith": "None", "KmsKeyId": ""},
        "TransformResources": members["TransformResources"],
        "DataProcessing": {"InputFilter": "$", "OutputFilter": "$", "JoinSource": "None"},
    }


def test_a_job_that_cannot_run_fails_with_its_reason_and_keeps_its_name(sagemaker, world):
    sagemaker.create_model(**world.model())
    members = world.job()
    sagemaker.create_transform_job(**members)
    described = wait_for(sagemaker, members["TransformJobName"])
    assert described["TransformJobStatus"] == "Failed"
    assert "but no object is there" in described["FailureReason"]
    with pytest.raises(ClientError) as refused:
        sagemaker.create_transform_job(**members)
    assert refused.value.response["Error"]["Code"] == "ResourceInUse"
    assert described["TransformJobArn"] in str(refused.value)
    with pytest.raises(ClientError, match="rejected because the transform job is in status Failed"):
        sagemaker.stop_transform_job(TransformJobName=members["TransformJobName"])


def test_jobs_are_listed_in_order_by_pages_and_filters(start_server, world):
    """One is stopped; the others fail, for they have no input, and so all of them stay as they are."""
    server = start_server({"MaxConcurrentJobs": 1})
    client = server.client()
    client.create_model(**world.model())
    world.put_model()
    made, between = [], []
    for number in range(5):
        between.append(datetime.now(timezone.utc))
        made.append(f"{world.name}-{number}")
        client.create_transform_job(**world.job(str(number)))
        time.sleep(0.01)
    client.stop_transform_job(TransformJobName=made[2])
    wait_for(client, made[2])
    for name in made:
        wait_for(client, name)

    def names(**filters):
        return [
            one["TransformJobName"]
            for one in client.list_transform_jobs(NameContains=world.name, **filters)["TransformJobSummaries"]
        ]

    assert names() == made[::-1]
    assert names(SortOrder="Ascending") == made
    assert names(SortBy="Name", SortOrder="Ascending") == made
    assert names(SortBy="Status", SortOrder="Ascending")[-1] == made[2]
    assert names(StatusEquals="Stopped") == [made[2]]
    assert names(StatusEquals="Completed") == []
    assert names(CreationTimeAfter=between[3]) == made[:2:-1]
    assert names(CreationTimeBefore=between[1]) == made[:1]
    assert names(LastModifiedTimeAfter=datetime.now(timezone.utc)) == []
    assert len(names(LastModifiedTimeBefore=datetime.now(timezone.utc))) == 5
    assert client.list_transform_jobs(NameContains="no-such-name")["TransformJobSummaries"] == []
    pages = client.get_paginator("list_transform_jobs").paginate(
        NameContains=world.name, SortBy="Status", PaginationConfig={"PageSize": 2}
    )
    listed = [[one["TransformJobName"] for one in page["TransformJobSummaries"]] for page in pages]
    assert [len(page) for page in listed] == [2, 2, 1]
    assert sorted(name for page in listed for name in page) == made
    token = client.list_transform_jobs(MaxResults=1)["NextToken"]
    with pytest.raises(ClientError, match="NextToken is not one of this list's"):
        client.list_transform_jobs(MaxResults=1, NextToken=token, SortOrder="Ascending")
    summary = client.list_transform_jobs(NameContains=made[0])["TransformJobSummaries"][0]
    assert summary.keys() == {
        "TransformJobName", "TransformJobArn", "CreationTime", "TransformEndTime", "LastModifiedTime", "TransformJobStatus",
        "FailureReason",
    }  # fmt: skip


def test_ten_are_listed_where_no_number_is_given(sagemaker, world):
    for number in range(12):
        sagemaker.create_model(**world.model(ModelName=f"{world.name}-{number}"))
    answer = sagemaker.list_models(NameContains=world.name)
    assert [one["ModelName"] for one in answer["Models"]] == [f"{world.name}-{number}" for number in range(11, 1, -1)]
    rest = sagemaker.list_models(NameContains=world.name, NextToken=answer["NextToken"])
    assert [one["ModelName"] for one in rest["Models"]] == [f"{world.name}-{number}" for number in (1, 0)]
    assert "NextToken" not in rest


def test_tags_are_added_replaced_listed_and_removed(sagemaker, world):
    arn = sagemaker.create_model(**world.model())["ModelArn"]
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "ä", "Value": "1"}, {"Key": "b", "Value": ""}])
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "b", "Value": "2"}])
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "b", "Value": "2"}, {"Key": "ä", "Value": "1"}]
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["ä", "nowhere"])
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "b", "Value": "2"}]
    with pytest.raises(ClientError, match="51 tags would be more than the 50"):
        sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": str(number), "Value": ""} for number in range(50)])
    with pytest.raises(ParamValidationError):
        sagemaker.add_tags(ResourceArn=arn, Tags=[{"Value": "no key"}])


def test_a_job_is_stopped_and_the_waiter_knows(sagemaker, world):
    world.put_model("slow")
    # Beside others that compute, a job that gives way to them is told late; it is to run for longer than that.
    world.bucket.put("input/a.jsonl", b"\n".join(b'{"id": %d}' % number for number in range(600)))
    sagemaker.create_model(**world.model())
    members = world.job(BatchStrategy="SingleRecord")
    name = members["TransformJobName"]
    sagemaker.create_transform_job(**members)
    described = wait_for(sagemaker, name, "InProgress")
    give_up_at = time.monotonic() + 60
    while not any("/parts/" in key for key in world.bucket.keys("output-job/")) and time.monotonic() < give_up_at:
        time.sleep(0.2)
    assert "TransformStartTime" in sagemaker.describe_transform_job(TransformJobName=name)
    sagemaker.stop_transform_job(TransformJobName=name)
    assert sagemaker.describe_transform_job(TransformJobName=name)["TransformJobStatus"] in ("Stopping", "Stopped")
    waiter = sagemaker.get_waiter("transform_job_completed_or_stopped")
    waiter.wait(TransformJobName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    described = sagemaker.describe_transform_job(TransformJobName=name)
    assert described["TransformJobStatus"] == "Stopped"
    assert "FailureReason" not in described
    assert world.outputs() == {}
