"""Nodes that join and nodes that are lost while a job runs; Ray's own cluster of several nodes on one machine."""

import json
import os
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.long  # Ray Data sees a new node after 20 s or more

RECORDS = 20_000
MODEL = """
import os, pathlib, time
def model_fn(folder):
    return pathlib.Path(os.environ["REQUESTS"])
def transform_fn(requests, body, content_type, accept):
    time.sleep(0.1)
    lines = body.splitlines()
    with (requests / str(os.getpid())).open("a") as file:
        file.write(f"{len(lines)}\\n")
    return "\\n".join('{"length": %d}' % len(line) for line in lines)
"""


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def test_a_node_that_joins_is_used_and_one_that_is_lost_costs_nothing(workspace, cluster):
    workspace.write("a.jsonl", b"".join(b'{"id":%d}\n' % number for number in range(RECORDS)))
    model = workspace.folder / "model"
    model.mkdir()
    (model / "inference.py").write_text(MODEL)
    job = workspace.job_file(
        Model={"SourceDir": str(model), "Environment": {"REQUESTS": str(workspace.requests)}},
        DataProcessing__JoinSource="Input",
        Rayxform__MaxRecordsPerBatch=10,
    )
    driver = subprocess.Popen(
        [sys.executable, "-m", "rayxform", "run", str(job), "--json"],
        env=os.environ | {"RAY_ADDRESS": cluster.address},
        stdout=subprocess.PIPE,
        text=True,
    )

    def wait_for_models(number):
        while len(list(workspace.requests.iterdir())) < number:
            assert driver.poll() is None, f"the job ended before {number} workers had asked their model"
            time.sleep(0.05)

    wait_for_models(2)
    joined = cluster.add_node(num_cpus=2)
    wait_for_models(3)
    cluster.remove_node(joined, allow_graceful=False)  # SIGKILL
    out, _ = driver.communicate(timeout=240)
    result = json.loads(out.splitlines()[-1])
    assert (result["TransformJobStatus"], result["Records"], result["Workers"]) == ("Completed", RECORDS, 2)
    lines = (b'{"id":%d}' % number for number in range(RECORDS))
    expected = b"".join(b'{"SageMakerOutput":{"length": %d},%s\n' % (len(line), line[1:]) for line in lines)
    assert workspace.outputs() == {"a.jsonl.out": expected}
