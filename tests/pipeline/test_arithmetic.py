"""Precision, Compile and ModelMicroBatch in a whole job: the seed's own inference.py, unmodified, on real images."""

import json
import os

import pytest
import torch

import rayxform
from rayxform.cache import cache_folder
from rayxform.model.runtime.precision import slowness
from rayxform.pipeline.run import run_plan
from tests.support import make_seed_model, seed_line

COLORS = ("red", "lime", "blue")
SETTINGS = {"Precision": "bfloat16", "Compile": True, "ModelMicroBatch": 0}


@pytest.fixture
def seed_job(workspace):
    """Two files of colors; the net's class is the strongest of red, green and blue."""
    model = workspace.folder / "model"
    make_seed_model(model)
    for name in ("a", "b"):
        lines = [seed_line(number, COLORS[number % 3]) for number in range(1, 13)]
        workspace.write(f"{name}.jsonl", "\n".join(lines).encode())
    return {"Model": {"ModelDataUrl": str(model)}, "DataProcessing__JoinSource": "Input", "Rayxform__MaxRecordsPerBatch": 6}


@pytest.mark.long
def test_all_settings_at_once_compile_one_model_for_all_workers(workspace, ray_address, seed_job):
    """The same predictions, and one compiled model on this machine, whichever worker was first."""
    before = set((cache_folder() / "compiled").glob("*.pt2"))
    changes = {f"Rayxform__{name}": value for name, value in SETTINGS.items()}
    result = run_plan(workspace.plan(**seed_job, **changes), workers=2)
    slow = slowness(torch.nn.Linear(1, 1), SETTINGS["Precision"])
    assert (result.status, result.warnings) == ("Completed", (slow,) if slow else ())
    for output in workspace.outputs().values():
        records = [json.loads(line) for line in output.splitlines()] if isinstance(output, bytes) else output
        assert [one["SageMakerOutput"]["predictions"] for one in records] == [one["id"] % 3 for one in records]
    assert len(set((cache_folder() / "compiled").glob("*.pt2")) - before) <= 1


def test_check_says_what_a_precision_changes(workspace, seed_job):
    members = workspace.members(**seed_job, Rayxform__Precision="bfloat16")
    comparison = rayxform.check(members).to_members()["Precision"]
    assert (comparison["Compared"], comparison["Changed"]) == (6, 0)
    assert comparison["Float32ModelSeconds"] > 0
    assert rayxform.check(workspace.members(**seed_job)).to_members()["Precision"] is None


def test_check_leaves_no_variables_to_a_job_that_follows(workspace, seed_job):
    before = dict(os.environ)
    rayxform.check(workspace.members(**seed_job, Model__Environment={"MINE": "1"}, MaxPayloadInMB=1))
    assert dict(os.environ) == before


def test_a_model_without_a_module_fails_the_job_with_the_remedy(workspace, ray_address):
    workspace.write("a.jsonl", b"1\n")
    result = run_plan(workspace.plan(Rayxform__Precision="bfloat16"), workers=1)
    assert result.status == "Failed"
    assert "Rayxform.Precision, which acts on torch modules" in result.failure_reason


AHEAD = """
import os, threading, time
from pathlib import Path
INPUT_FN_RUNS_AHEAD = {ahead}
def model_fn(folder): return None
def input_fn(body, content_type):
    name = "aside" if threading.current_thread() is not threading.main_thread() else "here"
    (Path(os.environ["SEEN"]) / f"{{body.decode()}} {{name}}").touch()
    if body == b"5" and os.environ.get("CRASH"): os._exit(3)
    return body
def predict_fn(data, model):
    time.sleep(float(os.environ.get("PREDICT_S", 0)))
    return data
def output_fn(data, accept): return data
"""


@pytest.mark.parametrize("crash", ["", "1"])
def test_input_fn_runs_ahead_and_changes_no_byte(workspace, ray_address, crash):
    """A record a request: all but the first of a block are read aside, and one that crashes is blamed alone."""
    outputs = []
    for ahead in (False, True):
        source = workspace.folder / f"source-{ahead}"
        seen = workspace.folder / f"seen-{ahead}"
        source.mkdir()
        seen.mkdir()
        (source / "inference.py").write_text(AHEAD.format(ahead=ahead))
        workspace.write("a.jsonl", "\n".join(map(str, range(1, 301))).encode())
        model = {"SourceDir": str(source), "Environment": {"SEEN": str(seen), "CRASH": crash}}
        members = {
            "BatchStrategy": "SingleRecord",
            "Rayxform__OnRecordError": "skip",
            "ModelClientConfig": {"InvocationsMaxRetries": 0},
        }
        result = run_plan(workspace.plan(Model=model, **members), workers=1, restart=True)
        assert (result.status, result.bad_records) == ("Completed", 1 if crash else 0)
        outputs.append(workspace.outputs())
        aside = {int(path.name.split()[0]) for path in seen.iterdir() if path.name.endswith("aside")}
        assert bool(aside) is ahead
    assert outputs[0] == outputs[1]
    assert outputs[0]["a.jsonl.out"]


def test_input_fn_runs_ahead_from_block_to_block(workspace, ray_address):
    """The last blocks of a job are single mini-batches: of 40, more than 20 are the first of theirs."""
    source, seen = workspace.folder / "source", workspace.folder / "seen"
    source.mkdir()
    seen.mkdir()
    (source / "inference.py").write_text(AHEAD.format(ahead=True))
    workspace.write("a.jsonl", "\n".join(map(str, range(1, 41))).encode())
    model = {"SourceDir": str(source), "Environment": {"SEEN": str(seen), "PREDICT_S": "0.1"}}
    result = run_plan(workspace.plan(Model=model, BatchStrategy="SingleRecord"), workers=1)
    assert (result.status, result.records) == ("Completed", 40)
    assert len([path for path in seen.iterdir() if path.name.endswith("aside")]) > 30


SHORT_IN_FLOAT32 = """
import torch
def model_fn(folder): return torch.nn.Linear(1, 1).eval()
def input_fn(body, content_type): return body.splitlines()
def predict_fn(lines, model): return lines if model.weight.dtype == torch.bfloat16 else lines[:1]
def output_fn(lines, accept): return b"\\n".join(lines)
"""


def test_check_compares_as_a_whole_what_cannot_be_cut(workspace):
    """In float32 an answer is missing: that is a change, and no error of check's own."""
    source = workspace.folder / "source"
    source.mkdir()
    (source / "inference.py").write_text(SHORT_IN_FLOAT32)
    workspace.write("a.jsonl", b"1\n2\n3\n")
    members = workspace.members(Model={"SourceDir": str(source)}, Rayxform__Precision="bfloat16")
    comparison = rayxform.check(members).to_members()["Precision"]
    assert (comparison["Compared"], comparison["Changed"]) == (1, 1)
