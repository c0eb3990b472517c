"""The variables that a model finds in its environment."""

import json
from pathlib import Path

import pytest

from rayxform.pipeline.model_server import model_variables
from rayxform.pipeline.run import run_plan
from tests.support import cases

CASES = cases("environment")
SDK = {"SAGEMAKER_PROGRAM": "serve.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/m/code"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["source"])
def test_case(workspace, case):
    workspace.write("a", b"1")
    job = workspace.plan(**{"Model__Environment": {}} | case["job"]).job
    assert model_variables(job, None) == case["variables"]
    assert model_variables(job, Path("/m/code/serve.py")) == SDK | case["variables"]


@pytest.mark.parametrize("case", [case for case in CASES if case.get("run")], ids=lambda case: case["source"])
def test_they_reach_the_model(workspace, ray_address, case):
    source = workspace.folder / "src"
    source.mkdir()
    (source / "inference.py").write_text(
        "import json, os\n"
        "seen = {name: value for name, value in os.environ.items() if name.startswith('SAGEMAKER_')}\n"
        "def model_fn(d): pass\n"
        "def transform_fn(m, b, t, a): return json.dumps(seen)\n"
    )
    workspace.write("a", b"1")
    assert run_plan(workspace.plan(**{"Model": {"SourceDir": str(source)}} | case["job"]), workers=1).status == "Completed"
    expected = {"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": str(source)} | case["variables"]
    assert json.loads(workspace.outputs()["a.out"]) == {"SageMakerOutput": expected}
