"""A cluster that has no room for a worker until a job asks for it: Ray's own autoscaler, whose nodes are processes here."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.cluster.ray_cluster import ROOT, end_nodes, free_ports

pytestmark = pytest.mark.long  # nodes take their time

SETTINGS = """
cluster_name: autoscaled
max_workers: 2
provider:
  type: fake_multinode
  gcs_address: ADDRESS
  use_node_id_as_ip: true
  disable_node_updaters: true
  disable_launch_config_check: true
available_node_types:
  head: {resources: {CPU: 0}, node_config: {}, max_workers: 0}
  accelerated: {resources: {CPU: 2, GPU: 1, object_store_memory: 80000000}, node_config: {}, min_workers: 0, max_workers: 2}
head_node_type: head
upscaling_speed: 1.0
idle_timeout_minutes: 5
auth: {}
docker: {}
file_mounts: {}
file_mounts_sync_continuously: false
cluster_synced_files: []
initialization_commands: []
setup_commands: []
head_setup_commands: []
worker_setup_commands: []
head_start_ray_commands: []
worker_start_ray_commands: []
rsync_exclude: []
rsync_filter: []
"""
"""As Ray's own example for this provider has it, which its wheels leave out."""

ENVIRONMENT = os.environ | {
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "PYTHONPATH": str(ROOT),
    "RAY_AUTH_MODE": "disabled",
    "RAY_FAKE_CLUSTER": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
ENVIRONMENT.pop("RAY_ADDRESS", None)
RECORDS = 4_000
TEXT = {"capture_output": True, "text": True, "timeout": 180}


@pytest.fixture
def address():
    """A head without CPUs and GPUs, whose autoscaler may bring two nodes with one GPU each."""
    folder = Path(tempfile.mkdtemp(prefix="rx-", dir="/tmp"))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    (folder / "nodes.yaml").write_text(SETTINGS.replace("ADDRESS", address))
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--head", "--block"]
    command += [f"--port={address.partition(':')[2]}", "--num-cpus=0", "--num-gpus=0", f"--temp-dir={folder / 'ray'}"]
    command += [f"--autoscaling-config={folder / 'nodes.yaml'}", "--object-store-memory=80000000", "--include-dashboard=false"]
    with (folder / "log").open("wb") as log:
        head = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True, cwd=folder)
    try:
        give_up_at = time.monotonic() + 60
        while "Ray runtime started" not in (folder / "log").read_text():
            ended = head.poll() is not None or time.monotonic() > give_up_at
            assert not ended, (folder / "log").read_text()
            time.sleep(0.2)
        yield address
    finally:
        end_nodes([head], folder)


def test_a_job_brings_the_nodes_that_it_needs(workspace, address):
    workspace.write("a.jsonl", b"".join(b'{"id":%d}\n' % number for number in range(RECORDS)))
    job = workspace.job_file(
        TransformJobName="grown",
        DataProcessing__JoinSource="Input",
        Rayxform__MaxRecordsPerBatch=100,
        Rayxform__GpusPerWorker=1,
        Rayxform__WaitForNodesInSeconds=120,
    )
    command = [sys.executable, "-m", "rayxform", "run", str(job), "--json", "--workers", "2", "--address", address]
    refused = subprocess.run([*command, "--set", "Rayxform.WaitForNodesInSeconds=0"], env=ENVIRONMENT, **TEXT)
    assert (refused.returncode, "but there are 0" in refused.stderr) == (2, True), refused.stderr
    ended = subprocess.run(command, env=ENVIRONMENT, **TEXT)
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    assert (result["TransformJobStatus"], result["Records"], result["Workers"]) == ("Completed", RECORDS, 2)
    (output,) = workspace.outputs().values()
    assert [json.loads(line)["id"] for line in output.splitlines()] == list(range(RECORDS))
