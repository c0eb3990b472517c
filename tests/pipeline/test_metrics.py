"""What Prometheus gets of a job, where Ray exports metrics (ray[default])."""

import time
import urllib.request

import pytest

from rayxform.pipeline.run import run_plan


def test_prometheus_gets_the_jobs_figures(workspace, ray_address):
    pytest.importorskip("opentelemetry.exporter.prometheus", reason="Ray exports metrics with ray[default] alone")
    import ray

    (node, *_) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    workspace.write("a.jsonl", b'{"id":1}\n' * 7 + b"{\n")
    changes = {"DataProcessing__JoinSource": "Input", "Rayxform__OnRecordError": "skip", "TransformJobName": "figures"}
    assert run_plan(workspace.plan(**changes)).status == "Completed"
    wanted = {"ray_rayxform_records_total": 8.0, "ray_rayxform_requests_total": 1.0, "ray_rayxform_errors_total": 1.0}
    found = {}
    give_up_at = time.monotonic() + 30
    while found != wanted and time.monotonic() < give_up_at:
        time.sleep(1)
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = [line for line in answer.read().decode().splitlines() if 'job="figures"' in line]
        found = {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines}
        found = {name: found[name] for name in wanted if name in found}
    assert found == wanted
