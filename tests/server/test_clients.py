"""Stock clients run the ResNet18 job from S3 to S3: nothing but endpoint_url is changed."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.server import clients
from tests.server.conftest import IMAGE

ROOT = Path(__file__).parents[2]
FILTER = "$['SageMakerOutput','id','label']"


@pytest.fixture(scope="session")
def digits(main_job):
    """The main job's images and its trained model."""
    return main_job[0]


@pytest.fixture(scope="session")
def programs():
    """The folder with ``aws`` and a Python that has the SageMaker SDK v2."""
    return clients.make_environment("clients", clients.V2)


@pytest.fixture
def digits_world(world, digits):
    """A bucket with the digits and the model."""
    world.bucket.put("models/model.tar.gz", (digits / "model.tar.gz").read_bytes())
    for file in sorted((digits / "input").iterdir()):
        world.bucket.put(f"input/{file.name}", file.read_bytes())
    return world


def joined(world):
    """CreateTransformJob's members for the main job."""
    job = world.job(DataProcessing={"JoinSource": "Input", "OutputFilter": FILTER})
    return job | {"TransformOutput": {**job["TransformOutput"], "Accept": "application/jsonlines"}}


def check_output(world, digits):
    """Each record is there once, in its place, and its digit is named rightly, mostly."""
    outputs = world.outputs()
    assert sorted(outputs) == ["digits-100.jsonl.out", "digits-1000.jsonl.out"]
    right = 0
    for name, data in outputs.items():
        asked = [json.loads(line) for line in (digits / "input" / name.removesuffix(".out")).read_text().splitlines()]
        answered = [json.loads(line) for line in data.splitlines()]
        assert [one["id"] for one in answered] == [one["id"] for one in asked]
        right += sum(int(one["SageMakerOutput"]["predictions"]) == one["label"] for one in answered)
    assert right >= 0.93 * 1100


def test_boto3(sagemaker, digits_world, digits):
    sagemaker.create_model(**digits_world.model())
    arn = sagemaker.create_transform_job(**joined(digits_world))["TransformJobArn"]
    name = f"{digits_world.name}-job"
    assert arn == f"arn:aws:sagemaker:us-east-1:000000000000:transform-job/{name}"
    waiter = sagemaker.get_waiter("transform_job_completed_or_stopped")
    waiter.wait(TransformJobName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 240})
    described = sagemaker.describe_transform_job(TransformJobName=name)
    assert described["TransformJobStatus"] == "Completed"
    assert described["CreationTime"] <= described["TransformStartTime"] <= described["TransformEndTime"]
    check_output(digits_world, digits)


@pytest.mark.long
def test_the_aws_cli(server, digits_world, digits, programs):
    def aws(*words):
        command = [programs / "aws", "sagemaker", *words, "--endpoint-url", server.url, "--output", "json"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout) if ended.stdout.strip() else None

    name = f"{digits_world.name}-job"
    aws("create-model", "--cli-input-json", json.dumps(digits_world.model()))
    aws("create-transform-job", "--cli-input-json", json.dumps(joined(digits_world)))
    assert aws("list-transform-jobs", "--name-contains", name)["TransformJobSummaries"][0]["TransformJobName"] == name
    # The CLI's waiter looks once a minute; the job's end is awaited here, and the waiter then returns at once.
    while (described := aws("describe-transform-job", "--transform-job-name", name))["TransformJobStatus"] == "InProgress":
        pass
    assert described["TransformJobStatus"] == "Completed", described
    aws("wait", "transform-job-completed-or-stopped", "--transform-job-name", name)
    check_output(digits_world, digits)


@pytest.mark.long
def test_the_sagemaker_sdk_v2(server, digits_world, digits, programs, tmp_path):
    bucket = digits_world.bucket
    source = tmp_path / "src"
    source.mkdir()
    for file in (ROOT / "jobs" / "resnet18").glob("*.*"):
        if file.suffix in (".py", ".txt"):
            (source / file.name).write_bytes(file.read_bytes())
    quiet = {"SAGEMAKER_SUPPRESS_V2_WARNING": "1"}
    environment = os.environ | quiet | {"AWS_ENDPOINT_URL": bucket.proxy.url, "AWS_DEFAULT_REGION": "us-east-1"}
    environment.pop("PYTHONPATH", None)
    places = [f"{bucket.url}/models/model.tar.gz", str(source), f"{bucket.url}/input", f"{bucket.url}/output-job"]
    command = [programs / "python", str(ROOT / "tests" / "server" / "sdk_v2.py"), server.url, *places]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, cwd=tmp_path)
    assert ended.returncode == 0, f"{ended.stderr[-1000:]}\n{ended.stdout[-3000:]}"
    name = ended.stdout.split()[-1]
    described = server.client().describe_transform_job(TransformJobName=name)
    assert described["TransformJobStatus"] == "Completed"
    model = server.client().describe_model(ModelName=described["ModelName"])
    assert "pytorch-inference:1.12" in model["PrimaryContainer"]["Image"]
    check_output(digits_world, digits)


@pytest.mark.long
def test_the_sagemaker_sdk_v3(server, digits_world, digits, tmp_path):
    bucket = digits_world.bucket
    places = {"AWS_ENDPOINT_URL": bucket.proxy.url, "AWS_ENDPOINT_URL_SAGEMAKER": server.url, "AWS_DEFAULT_REGION": "us-east-1"}
    environment = os.environ | places
    environment.pop("PYTHONPATH", None)
    words = [IMAGE, f"{bucket.url}/models/model.tar.gz", f"{bucket.url}/input", f"{bucket.url}/output-job"]
    command = [clients.make_environment("sdk-v3", clients.V3) / "python", str(ROOT / "tests" / "server" / "sdk_v3.py"), *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, cwd=tmp_path)
    assert ended.returncode == 0, f"{ended.stderr[-1000:]}\n{ended.stdout[-3000:]}"
    assert ended.stdout.split()[-2:] == ["sdk-v3-job", "Completed"]
    check_output(digits_world, digits)
