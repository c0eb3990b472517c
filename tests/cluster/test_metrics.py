"""What Prometheus gets of a job, on a cluster that exports metrics (ray[default])."""

import collections
import json
import os
import subprocess
import sys
import time
import urllib.request

import pytest

pytestmark = pytest.mark.long  # it starts a cluster
WANTED = {"ray_rayxform_records_total": 8.0, "ray_rayxform_requests_total": 1.0, "ray_rayxform_errors_total": 1.0}


def test_prometheus_gets_the_jobs_figures(workspace, cluster):
    """From the places that Ray lists for it, whichever node the job's processes are on."""
    workspace.write("a.jsonl", b'{"id":1}\n' * 7 + b"{\n")
    job = workspace.job_file(DataProcessing__JoinSource="Input", Rayxform__OnRecordError="skip", TransformJobName="figures")
    command = [sys.executable, "-m", "rayxform", "run", job, "--workers", "1"]
    known = os.environ | {"RAY_ADDRESS": cluster.address, "RAY_AUTH_MODE": "disabled"}
    run = subprocess.run(command, env=known, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    found = {}
    give_up_at = time.monotonic() + 60
    while found != WANTED and time.monotonic() < give_up_at:
        time.sleep(0.5)
        found = figures_of("figures", cluster.folder / "node0" / "prom_metrics_service_discovery.json")
    assert found == WANTED


def figures_of(job, listing):
    """The sum of each figure over all nodes."""
    found = collections.Counter()
    for target in (target for group in json.loads(listing.read_text()) for target in group["targets"]):
        try:
            text = urllib.request.urlopen(f"http://{target}/metrics", timeout=10).read().decode()
        except OSError:  # a node that other tests have ended
            continue
        for line in text.splitlines():
            name = line.partition("{")[0]
            if name in WANTED and f'job="{job}"' in line:
                found[name] += float(line.rpartition(" ")[2])
    return dict(found)
