"""The endpoint's jobs as jobs of the cluster's job server."""

import json
import os

import pytest
from ray.job_submission import JobSubmissionClient

from tests.conftest import MODELS
from tests.server.conftest import Server, World, wait_for

LINES = "".join(json.dumps({"id": number}) + "\n" for number in range(60)).encode()

pytestmark = pytest.mark.long


@pytest.fixture
def world(bucket, tmp_path):
    world = World(bucket, tmp_path, bucket.name)
    world.put_model("slow")
    world.bucket.put("input/a.jsonl", LINES)
    return world


@pytest.fixture
def server(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    server = Server(tmp_path, {}, "--address", cluster.job_server)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)  # Ray's own client, which the tests ask, would prefer it
    yield server
    server.end()


def begin_job(server, cluster, world):
    """Create a job, and wait until the cluster has it; the client, the job's name, and the cluster's own client."""
    client = server.client()
    client.create_model(**world.model())
    name = f"{world.name}-job"
    client.create_transform_job(**world.job(BatchStrategy="SingleRecord"))
    jobs = JobSubmissionClient(cluster.job_server)
    while name not in {one.submission_id for one in jobs.list_jobs()}:
        assert client.describe_transform_job(TransformJobName=name)["TransformJobStatus"] == "InProgress"
    return client, name, jobs


def test_a_job_runs_there_once_though_the_server_is_killed(server, cluster, world):
    assert (MODELS / "slow").is_dir()
    client, name, jobs = begin_job(server, cluster, world)
    server.kill()
    server.restart()
    assert wait_for(client, name)["TransformJobStatus"] == "Completed"
    assert world.outputs() == {"a.jsonl.out": LINES}
    assert [one.submission_id for one in jobs.list_jobs() if one.submission_id.startswith(name)] == [name]


def test_a_job_is_stopped_there(server, cluster, world):
    world.bucket.put("input/a.jsonl", LINES * 20)
    client, name, _ = begin_job(server, cluster, world)
    client.stop_transform_job(TransformJobName=name)
    assert wait_for(client, name)["TransformJobStatus"] == "Stopped"
    assert world.outputs() == {}


def test_no_cluster_at_the_address_is_refused(tmp_path):
    import subprocess
    import sys

    command = [
        sys.executable,
        "-m",
        "rayxform",
        "serve",
        "--port",
        "0",
        "--state",
        str(tmp_path),
        "--address",
        "http://127.0.0.1:9",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | {"RAY_AUTH_MODE": "disabled"})
    assert ended.returncode == 2
    assert "no Ray job server answers at http://127.0.0.1:9" in ended.stderr
