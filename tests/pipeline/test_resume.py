"""A job that was cut short goes on: the same bytes, and hardly a record sent twice."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rayxform
from rayxform.errors import JobBusyError, PlanChangedError
from rayxform.pipeline.run import run_plan
from rayxform.storage.growing import written

pytestmark = pytest.mark.usefixtures("ray_address")

SLOW = """
import os, pathlib, time, uuid
def model_fn(folder):
    return pathlib.Path(os.environ["REQUESTS"])
def transform_fn(requests, body, content_type, accept):
    time.sleep(float(os.environ.get("PAUSE_S", "0")))
    while (place := os.environ.get("WAIT_FOR")) and not os.path.exists(place):
        time.sleep(0.01)
    if (place := os.environ.get("FAIL_ON")) and place.encode() in body:
        raise ValueError("asked to fail")
    (requests / uuid.uuid4().hex).write_bytes(body)
    return "\\n".join('{"length": %d}' % len(line) for line in body.splitlines())
"""

JOIN = {"DataProcessing__JoinSource": "Input", "DataProcessing__OutputFilter": "$['SageMakerOutput','id']"}


def state(workspace):
    return workspace.folder / "output/.rayxform/job"


def events(workspace, *kinds):
    log = state(workspace) / "events.jsonl"
    lines = log.read_text().splitlines(True) if log.exists() else []
    return [event for event in (json.loads(line) for line in lines if line.endswith("\n")) if event["Event"] in kinds]


def write_inputs(workspace, files=3, records=400):
    for number in range(files):
        lines = (b'{"id":%d,"x":"%s"}\n' % (number * records + i, b"y" * 500) for i in range(records))
        workspace.write(f"{number}.jsonl", b"".join(lines))


def model(workspace, code=SLOW):
    folder = workspace.folder / "model"
    folder.mkdir(exist_ok=True)
    (folder / "inference.py").write_text(code)
    return folder


def members(workspace, **changes):
    environment = {"REQUESTS": str(workspace.requests), "PAUSE_S": "0.05"}
    return (
        {"Model": {"SourceDir": str(model(workspace)), "Environment": environment}, "Rayxform__MaxRecordsPerBatch": 10}
        | JOIN
        | changes
    )


def start(workspace, *options, **changes):
    """The job in a process of its own."""
    job = workspace.job_file(**members(workspace, **changes))
    command = [sys.executable, "-m", "rayxform", "run", str(job), "--json", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process, timeout_s=120):
    out, error = process.communicate(timeout=timeout_s)
    lines = out.strip().splitlines()
    return process.returncode, json.loads(lines[-1]) if lines else {}, error


def wait_for(condition, timeout_s=60.0):
    give_up_at = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < give_up_at, "it did not come to that"
        time.sleep(0.02)
    return found


def sent_records(workspace):
    return sum(len(body.splitlines()) for body in workspace.sent())


def undisturbed(workspace):
    """What a run without any trouble writes; leaves no trace of it."""
    hurried = {"Model": {"SourceDir": str(model(workspace)), "Environment": {"REQUESTS": str(workspace.requests)}}}
    result = run_plan(workspace.plan(**members(workspace, **hurried)), restart=True)
    assert result.status == "Completed"
    outputs = workspace.outputs()
    for path in sorted((workspace.folder / "output").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    workspace.sent()
    return outputs


def test_after_sigkill_of_the_driver_half_way_the_same_command_goes_on(workspace):
    write_inputs(workspace)
    expected = undisturbed(workspace)
    process = start(workspace)
    wait_for(
        lambda: (state(workspace) / "events.jsonl").exists() and sum(e["Records"] for e in events(workspace, "Part")) >= 600
    )
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(1.0)  # workers that are still at it end with their driver
    written = sum(int(path.stem.partition("-")[2]) for path in (state(workspace) / "parts").rglob("*.part"))
    written += sum(event["Records"] for event in events(workspace, "FileDone"))
    workspace.sent()
    code, result, error = end(start(workspace))
    assert (code, result.get("TransformJobStatus")) == (0, "Completed"), error
    assert workspace.outputs() == expected
    assert result["ResumedRecords"] >= 600
    assert result["Records"] == 1200
    assert sent_records(workspace) == 1200 - result["ResumedRecords"] <= 1200 - written
    assert [path.name for path in state(workspace).iterdir()] == ["events.jsonl"]


def test_on_one_machine_what_has_grown_in_place_is_not_made_again(workspace, monkeypatch):
    """A Ray of the job's own: parts that come in turn are appended to their output, and a killed job goes on behind them."""
    write_inputs(workspace)
    expected = undisturbed(workspace)
    monkeypatch.delenv("RAY_ADDRESS")

    def grown():
        return {path.parent.name: written(str(path)) for path in (state(workspace) / "parts").glob("*/growing")}

    process = start(workspace)
    wait_for(lambda: sum(n_records for n_records, _ in grown().values()) >= 200)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(1.0)
    left = grown()
    for file, (n_records, n_bytes) in left.items():
        content = (state(workspace) / "parts" / file / "growing").read_bytes()[:n_bytes]
        assert expected[f"{int(file)}.jsonl.out"].startswith(content)
        assert content.count(b"\n") == n_records
    workspace.sent()
    code, result, error = end(start(workspace))
    assert (code, result.get("TransformJobStatus")) == (0, "Completed"), error
    assert workspace.outputs() == expected
    assert result["ResumedRecords"] >= sum(n_records for n_records, _ in left.values()) >= 200
    assert sent_records(workspace) == 1200 - result["ResumedRecords"]
    assert [path.name for path in state(workspace).iterdir()] == ["events.jsonl"]


def test_stopped_and_run_again(workspace):
    write_inputs(workspace)
    expected = undisturbed(workspace)
    process = start(workspace)
    wait_for(lambda: events(workspace, "Part"))
    stopped = subprocess.run(
        [sys.executable, "-m", "rayxform", "stop", str(workspace.folder / "job.json")], capture_output=True, text=True
    )
    assert stopped.returncode == 0, stopped.stderr
    code, result, error = end(process)
    assert (code, result.get("TransformJobStatus")) == (130, "Stopped"), error
    again = run_plan(workspace.plan(**members(workspace)), workers=1)
    assert (again.status, again.records) == ("Completed", 1200)
    assert again.resumed_records >= result["Records"] > 0
    assert workspace.outputs() == expected


def test_two_runs_at_once(workspace):
    write_inputs(workspace, files=1, records=100)
    go_on = workspace.folder / "go on"
    environment = members(workspace)["Model"]["Environment"] | {"WAIT_FOR": str(go_on)}
    process = start(workspace, Model={"SourceDir": str(model(workspace)), "Environment": environment})
    try:
        wait_for((state(workspace) / "lease.json").exists)
        with pytest.raises(JobBusyError, match=f"process {process.pid}"):
            run_plan(workspace.plan(**members(workspace)), workers=1)
    finally:
        go_on.touch()
    assert end(process)[0] == 0


def stopped_run(workspace, **changes):
    """A run of which the first file is done and the last one failed."""
    write_inputs(workspace, files=2, records=100)
    workspace.write("2.jsonl", b'{"id":1}\n' * 50 + b'{"id":\n' + b'{"id":2}\n' * 49)
    result = run_plan(workspace.plan(**members(workspace, **changes)), workers=1)
    assert (result.status, result.failed_files) == ("Failed", 1)
    workspace.sent()


def test_a_mended_input_alone_is_run_again(workspace):
    stopped_run(workspace)
    before = workspace.outputs()
    mended = b'{"id":1}\n' * 100
    workspace.write("2.jsonl", mended)
    result = run_plan(workspace.plan(**members(workspace)), workers=1)
    assert (result.status, result.files, result.records, result.resumed_records) == ("Completed", 3, 300, 200)
    assert sent_records(workspace) == 100
    assert workspace.outputs() == before | {"2.jsonl.out": b'{"SageMakerOutput":{"length": 8},"id":1}\n' * 100}


def test_bad_records_may_be_let_pass_after_all(workspace):
    stopped_run(workspace)
    result = run_plan(workspace.plan(**members(workspace, Rayxform__OnRecordError="skip")), workers=1)
    assert (result.status, result.records, result.bad_records) == ("Completed", 300, 1)
    assert sent_records(workspace) <= 99
    (entry,) = map(json.loads, (state(workspace) / "errors.jsonl").read_text().splitlines())
    assert (entry["Object"], entry["Record"]) == ("2.jsonl", 51)


def test_what_changed_is_named(workspace):
    stopped_run(workspace)
    before = workspace.outputs()

    def refused(named, **changes):
        with pytest.raises(PlanChangedError, match=named) as caught:
            run_plan(workspace.plan(**members(workspace, **changes)), workers=1)
        assert "--restart" in str(caught.value)

    refused("MaxPayloadInMB was 1, is 2", MaxPayloadInMB=2)
    refused("DataProcessing.OutputFilter was", DataProcessing__OutputFilter="$.SageMakerOutput")
    workspace.write("new.jsonl", b'{"id":0}\n').rename(workspace.folder / "input/1b.jsonl")
    refused("the input 1b.jsonl is new")
    (workspace.folder / "input/1b.jsonl").rename(workspace.folder / "input/1.jsonl")
    refused("the input 1.jsonl is not what it was")
    (workspace.folder / "input/1.jsonl").unlink()
    refused("the input 1.jsonl is gone")
    assert workspace.outputs() == before
    assert workspace.sent() == []


def test_a_changed_model_is_named_and_restart_begins_anew(workspace):
    stopped_run(workspace)
    changes = members(workspace)
    (workspace.folder / "model/inference.py").write_text(SLOW.replace('"length"', '"size"'))
    plan = workspace.plan(**changes)
    with pytest.raises(PlanChangedError, match=r"the model's code/inference\.py is not what it was"):
        run_plan(plan)
    result = run_plan(plan, restart=True)
    assert (result.records, result.resumed_records) == (250, 0)
    assert b'"size"' in workspace.outputs()["0.jsonl.out"]


def test_a_job_of_which_nothing_was_written_may_be_changed(workspace):
    write_inputs(workspace, files=1, records=10)
    changes = members(workspace)
    (workspace.folder / "model/inference.py").write_text("raise RuntimeError('not yet')\n")
    assert run_plan(workspace.plan(**changes)).status == "Failed"
    assert run_plan(workspace.plan(**members(workspace)), workers=1).status == "Completed"


def test_ids_of_results_stay_the_same(workspace):
    capture = {"DataCaptureConfig": {"DestinationS3Uri": str(workspace.folder / "capture"), "GenerateInferenceId": True}}
    changes = {"DataProcessing__OutputFilter": None, **capture}
    stopped_run(workspace, **changes)
    ids = [json.loads(line)["SageMakerInferenceTime"] for line in workspace.outputs()["0.jsonl.out"].splitlines()]
    time.sleep(1.1)
    workspace.write("2.jsonl", b'{"id":1}\n')
    assert run_plan(workspace.plan(**members(workspace, **changes)), workers=1).status == "Completed"
    assert {json.loads(line)["SageMakerInferenceTime"] for line in workspace.outputs()["2.jsonl.out"].splitlines()} == set(ids)


def test_a_part_that_is_missing_is_sent_again(workspace):
    """Parts are what counts, whatever the log of events says."""
    stopped_run(workspace)
    parts = sorted((state(workspace) / "parts").rglob("*.part"))
    assert parts
    lost = sum(int(path.stem.partition("-")[2]) for path in parts[:1])
    parts[0].unlink()
    workspace.write("2.jsonl", (workspace.folder / "input/2.jsonl").read_bytes().replace(b'{"id":\n', b'{"id":3}\n'))
    assert lost
    assert run_plan(workspace.plan(**members(workspace)), workers=1).status == "Completed"
    assert len(workspace.outputs()["2.jsonl.out"].splitlines()) == 100


def test_a_published_output_whose_event_was_lost_is_not_made_again(workspace):
    stopped_run(workspace)
    log = state(workspace) / "events.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(True) if '"FileDone"' not in line) + '{"Event":"Pa')
    before = {path: path.stat().st_mtime_ns for path in (workspace.folder / "output").glob("*.out")}
    result = run_plan(workspace.plan(**members(workspace, Rayxform__OnRecordError="skip")), workers=1)
    assert (result.status, result.resumed_records >= 200) == ("Completed", True)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_partitioned_job_goes_on(workspace):
    partition = {"Rayxform__Partition": {"By": ["$.id"], "Format": "jsonlines"}, "DataProcessing__OutputFilter": None}
    for number in range(2):
        workspace.write(f"{number}.jsonl", b'{"id":1}\n{"id":2}\n' * 50)
    workspace.write("2.jsonl", b'{"id":1}\n' * 50 + b'{"id":\n')
    assert run_plan(workspace.plan(**members(workspace, **partition)), workers=1).status == "Failed"
    workspace.sent()
    workspace.write("2.jsonl", b'{"id":1}\n' * 50)
    result = run_plan(workspace.plan(**members(workspace, **partition)), workers=1)
    assert (result.status, result.records) == ("Completed", 250)
    assert sent_records(workspace) == 50
    lines = {path.parent.name: 0 for path in (workspace.folder / "output").glob("id=*/*")}
    for path in (workspace.folder / "output").glob("id=*/*"):
        lines[path.parent.name] += len(path.read_bytes().splitlines())
    assert lines == {"id=1": 150, "id=2": 100}


def test_status_long_after(workspace):
    stopped_run(workspace)
    status = rayxform.status(workspace.members(**members(workspace)))
    assert (status.status, status.files, status.files_done, status.files_failed) == ("Failed", 3, 2, 1)
    assert 200 <= status.records <= 250
    assert [(kind, count) for kind, count, _ in status.errors] == [("RecordError", 1)]
    assert Path(status.output_path) == workspace.folder / "output"


@pytest.mark.parametrize("moment", ["while Ray starts", "while it runs", "when an output is there"])
def test_sigterm_at_any_moment_and_again_and_again_is_a_stop_from_which_the_same_command_goes_on(
    workspace, monkeypatch, moment
):
    write_inputs(workspace, files=2, records=300)
    expected = undisturbed(workspace)
    monkeypatch.delenv("RAY_ADDRESS")
    come = {
        "while Ray starts": (state(workspace) / "plan.json").exists,
        "while it runs": lambda: any(workspace.requests.iterdir()),
        "when an output is there": workspace.outputs,
    }
    process = start(workspace)
    wait_for(come[moment])
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    code, result, error = end(process)
    was_stopped = code == 130 or moment != "when an output is there"  # where it may come to its end meanwhile
    assert (code, result.get("TransformJobStatus")) == ((130, "Stopped") if was_stopped else (0, "Completed")), error
    again = end(start(workspace))
    assert (again[0], again[1]["TransformJobStatus"]) == (0, "Completed"), again
    assert workspace.outputs() == expected
