"""Rayxform.StageInput in a job: the same bytes as without, and what goes wrong is named just so."""

import json

import pytest

from rayxform.pipeline.run import run_plan

pytestmark = pytest.mark.usefixtures("ray_address")

CODE = """
import json, os, numpy as np
PID = "{folder}/pid of "
def note(what):
    open(PID + what, "a").write(f"{{os.getpid()}}\\n")
def model_fn(folder):
    note("model_fn")
def input_fn(body, content_type):
    note("input_fn")
    records = [json.loads(line) for line in body.split(b"\\n")]
    if any(record.get("crash") for record in records): os.abort()
    return np.array([record["id"] for record in records])
def predict_fn(data, model):
    note("predict_fn")
    if 13 in data: raise ValueError("no thirteen")
    data *= 2
    return data
def output_fn(prediction, accept): return "\\n".join(map(str, prediction))
"""


@pytest.fixture
def run(workspace):
    """Runs a job over 100 records of two files, with StageInput or without; gives its result, and which processes did what."""

    def run(*, stage, records, **members):
        source = workspace.folder / "src"
        source.mkdir(exist_ok=True)
        (source / "inference.py").write_text(CODE.format(folder=workspace.folder))
        for path in workspace.folder.glob("pid of *"):
            path.unlink()
        for file in (0, 1):
            workspace.write(f"{file}.jsonl", b"".join(json.dumps(record).encode() + b"\n" for record in records[file::2]))
        given = {"StageInput": stage, "MaxRecordsPerBatch": 7, **members}
        changes = {"DataProcessing__JoinSource": "Input", "ModelClientConfig__InvocationsMaxRetries": 0}
        result = run_plan(workspace.plan(Model__SourceDir=str(source), Rayxform=given, **changes), workers=1, restart=True)
        pids = {path.name.removeprefix("pid of "): path.read_text().split() for path in workspace.folder.glob("pid of *")}
        return result, pids

    return run


RECORDS = [{"id": number} for number in range(100, 200)]


def test_the_bytes_are_the_same_and_input_is_read_once_elsewhere(workspace, run):
    result, pids = run(stage=False, records=RECORDS)
    assert (result.status, result.records, result.requests) == ("Completed", 100, 16)
    expected = workspace.outputs()
    assert b'{"SageMakerOutput":200,"id":100}' in expected["0.jsonl.out"]
    assert set(pids["input_fn"]) == set(pids["predict_fn"])
    result, pids = run(stage=True, records=RECORDS)
    assert (result.status, result.records, result.requests) == ("Completed", 100, 16)
    assert workspace.outputs() == expected
    assert len(pids["input_fn"]) == len(pids["predict_fn"]) == 16
    assert not set(pids["input_fn"]) & set(pids["predict_fn"])
    assert set(pids["model_fn"]) == set(pids["predict_fn"])


def test_a_transform_fn_cannot_be_staged_and_fails_the_job_with_the_remedy(workspace):
    workspace.write("a.jsonl", b"1\n2\n")
    source = workspace.folder / "src"
    source.mkdir()
    (source / "inference.py").write_text(
        "def model_fn(folder): pass\ndef transform_fn(model, body, content_type, accept): return body\n"
    )
    result = run_plan(workspace.plan(Model__SourceDir=str(source), Rayxform__StageInput=True), workers=1)
    assert result.status == "Failed"
    assert "define input_fn, predict_fn and output_fn instead, or leave StageInput out" in result.failure_reason


@pytest.mark.parametrize(
    ("bad", "reason"),
    [({"id": 13}, "no thirteen"), ({"no": "id"}, "KeyError"), ({"id": 1, "crash": True}, "killed by SIGABRT")],
)
def test_a_bad_record_is_found_and_costs_no_other(workspace, run, bad, reason):
    records = [*RECORDS[:50], bad, *RECORDS[50:]]
    outputs = []
    for stage in (False, True):
        result, _ = run(stage=stage, records=records, OnRecordError="skip")
        assert (result.status, result.bad_records) == ("Completed", 1)
        (error,) = map(json.loads, (workspace.folder / "output/.rayxform/job/errors.jsonl").read_text().splitlines())
        assert (error["Object"], error["Record"]) == ("0.jsonl", 26)
        assert reason in error["Message"]
        outputs.append(workspace.outputs())
    assert outputs[0] == outputs[1]
    assert sum(output.count(b"\n") for output in outputs[0].values()) == 100
