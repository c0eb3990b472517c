"""A job with all that a page shows, run once; and a browser."""

import base64
import io
import json
from typing import Any

import pytest
from PIL import Image

from rayxform.pipeline.planning import make_plan
from rayxform.pipeline.run import run_plan
from rayxform.spec import parse_job
from tests.conftest import MODELS, Workspace

HOSTILE = "<script>alert(1)<b>\u202e.jsonl"


def image(color: str, size: int = 24, kind: str = "PNG") -> bytes:
    """An image of one color."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), color).save(file, format=kind)
    return file.getvalue()


def line(number: int, color: str = "green", **more: Any) -> bytes:
    """A record with an image."""
    return json.dumps({"id": number, "inputs": base64.b64encode(image(color)).decode(), **more}).encode()


def run(workspace: Workspace, **changes: Any) -> Any:
    """Run a job whose model raises for "poison"; gives the job."""
    changes = {
        "Model__SourceDir": str(MODELS / "picky"),
        "ModelClientConfig": {"InvocationsMaxRetries": 0},
        "DataProcessing__JoinSource": "Input",
        "Rayxform__MaxRecordsPerBatch": 5,
    } | changes
    job = parse_job(workspace.members(**changes))
    run_plan(make_plan(job), workers=1)
    return job


def write_inputs(workspace: Workspace) -> None:
    """Files that are done, one with a record that is no JSON, one with a record that the model cannot take."""
    for name in "abc":
        workspace.write(f"{name}.jsonl", b"\n".join(line(number) for number in range(20)) + b"\n")
    workspace.write("deep/bad.jsonl", line(1) + b'\n{"id": <b>no JSON</b>\n')
    workspace.write("poison.jsonl", b"\n".join([line(1), line(2), line(3, "red", label="poison"), line(4)]))
    workspace.write(HOSTILE, line(1, label="<img src=x onerror=alert(1)>"))


@pytest.fixture(scope="session")
def shown(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Any]:
    """A workspace with a job that failed in part; and the job. Tests leave it as it is."""
    workspace = Workspace(tmp_path_factory.mktemp("shown"))
    write_inputs(workspace)
    return workspace, run(workspace, TransformJobName="shown", Model__Environment__API_TOKEN="hunter2")
