"""kill -9 of the server and of its jobs: every job ends, once, with the right bytes."""

import json
import os
import signal
import time
from collections import Counter

import psutil
import pytest

from tests.server.conftest import ONE_WORKER, wait_for

pytestmark = pytest.mark.long


def test_ten_jobs_survive_the_death_of_the_server(start_server, world):
    server = start_server({"MaxConcurrentJobs": 2, **ONE_WORKER})
    client = server.client()
    world.put_model("slow")
    lines = [json.dumps({"id": number}) for number in range(15)]
    world.bucket.put("input/a.jsonl", "\n".join(lines).encode())
    client.create_model(**world.model())
    for number in range(10):
        client.create_transform_job(**world.job(str(number), BatchStrategy="SingleRecord"))
    names = [f"{world.name}-{number}" for number in range(10)]
    deaths = 0
    while len(ended := [one for one in names if status(client, one) == "Completed"]) < 10:
        if len(ended) >= 4 * deaths and deaths < 2:
            server.kill()
            time.sleep(1.0)
            server.restart()
            deaths += 1
        assert not [one for one in names if status(client, one) in ("Failed", "Stopped")], [
            client.describe_transform_job(TransformJobName=one) for one in names
        ]
        time.sleep(0.2)
    assert deaths == 2
    for number, name in enumerate(names):
        assert world.outputs(str(number)) == {"a.jsonl.out": "".join(f"{line}\n" for line in lines).encode()}
        ends = [event for event in events(world, str(number), name) if event["Event"] == "End"]
        assert [event["Status"] for event in ends] == ["Completed"]
        parts = Counter(event.get("FirstRecord", 0) for event in events(world, str(number), name) if event["Event"] == "Part")
        assert set(parts.values()) == {1}


def test_a_run_that_dies_is_begun_again_and_goes_on(start_server, world):
    server = start_server(ONE_WORKER)
    client = server.client()
    world.put_model("slow")
    lines = [json.dumps({"id": number}) for number in range(60)]
    world.bucket.put("input/a.jsonl", "\n".join(lines).encode())
    client.create_model(**world.model())
    client.create_transform_job(**world.job(BatchStrategy="SingleRecord"))
    give_up_at = time.monotonic() + 60
    while not any("/parts/" in key for key in world.bucket.keys("output-job/")):
        assert time.monotonic() < give_up_at
        time.sleep(0.1)
    [run] = [one for one in psutil.Process(server.process.pid).children() if "run" in one.cmdline()]
    os.kill(run.pid, signal.SIGKILL)
    assert wait_for(client, f"{world.name}-job")["TransformJobStatus"] == "Completed"
    assert world.outputs() == {"a.jsonl.out": "".join(f"{line}\n" for line in lines).encode()}
    log = (server.state / "jobs" / f"{world.name}-job" / "log").read_text()
    assert [line for line in log.splitlines() if line.startswith("--- run")] == ["--- run 1", "--- run 2"]


def test_a_job_that_was_stopped_while_the_server_was_dead_is_stopped_by_the_next_one(start_server, world):
    server = start_server(ONE_WORKER)
    client = server.client()
    world.put_model("slow")
    world.bucket.put("input/a.jsonl", b"\n".join(b"{}" for _ in range(400)))
    client.create_model(**world.model())
    client.create_transform_job(**world.job(BatchStrategy="SingleRecord"))
    wait_for(client, f"{world.name}-job", "InProgress")
    while "TransformStartTime" not in client.describe_transform_job(TransformJobName=f"{world.name}-job"):
        time.sleep(0.1)
    client.stop_transform_job(TransformJobName=f"{world.name}-job")
    server.kill()
    server.restart()
    assert wait_for(client, f"{world.name}-job")["TransformJobStatus"] == "Stopped"
    assert world.outputs() == {}


def status(client, name):
    return client.describe_transform_job(TransformJobName=name)["TransformJobStatus"]


def events(world, job, name):
    """The events of a job, in order."""
    folder = f"output-{job}/.rayxform/{name}/events-"
    return [json.loads(line) for key in sorted(world.bucket.keys(folder)) for line in world.bucket.get(key).splitlines()]
