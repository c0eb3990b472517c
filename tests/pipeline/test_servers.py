"""Jobs whose model is an HTTP server, through a real Ray and against real servers."""

import contextlib
import json
import os
import sys
import threading

import psutil
import pytest

import rayxform
from rayxform.pipeline import model_server
from rayxform.pipeline.run import run_plan
from tests.support_servers import SCRIPTED, SERVERS, free_port, interrupt, processes_with, running, seen, wait_for

pytestmark = pytest.mark.usefixtures("ray_address")

RECORDS = [b'{"id":%d,"x":"%s"}' % (number, b"y" * (number % 50)) for number in range(2000)]
CLOSED = {"MaxConcurrentTransforms": 1}


def run(workspace, *, workers=None, model=None, **changes):
    return run_plan(workspace.plan(Model=model, **changes), workers=workers, restart=True)


def command(**script):
    """A Command that starts the scripted server."""
    return {"Command": f"{SCRIPTED} {{port}}", "Environment": {"SCRIPT": json.dumps(script)}}


def errors_of(workspace):
    lines = (workspace.folder / "output/.rayxform/job/errors.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_an_endpoint_gives_the_bytes_that_the_same_model_gives_as_inference_py(workspace):
    workspace.write("a.jsonl", b"\n".join(RECORDS))
    workspace.write("b.jsonl", b"\n".join(RECORDS[:77]))
    workspace.write("empty.jsonl", b"")
    changes = {
        "Rayxform__MaxRecordsPerBatch": 30,
        "DataProcessing": {"JoinSource": "Input", "OutputFilter": "$['SageMakerOutput','id']"},
        "TransformOutput__Accept": "application/jsonlines",
    }
    own = run_plan(workspace.plan(**changes), restart=True)
    expected = workspace.outputs()
    bodies = workspace.sent()
    with running(answer="lengths", delay_s=0.1) as url:
        result = run(workspace, model={"Endpoint": url}, MaxConcurrentTransforms=8, **changes)
        counts = seen(url)
    assert (result.status, result.workers) == (own.status, 1) == ("Completed", 1), result.failure_reason
    assert (result.records, result.requests) == (own.records, own.requests) == (2077, len(bodies))
    assert workspace.outputs() == expected
    assert list(expected) == ["a.jsonl.out", "b.jsonl.out", "empty.jsonl.out"]
    assert (counts["requests"], counts["most_in_flight"], counts["chunked"]) == (len(bodies), 8, 0)
    assert counts["connections"] <= 8
    assert (counts["headers"]["Content-Type"], counts["headers"]["Accept"]) == ("application/jsonlines",) * 2


def test_a_server_never_has_more_requests_at_a_time_than_the_job_says(workspace):
    """A worker has two blocks even where one request is under way, so that the next one need not be waited for."""
    workspace.write("a.jsonl", b"\n".join(RECORDS[:40]))
    with running(answer="lengths", delay_s=0.05) as url:
        result = run(workspace, model={"Endpoint": url}, Rayxform__MaxRecordsPerBatch=2, **CLOSED)
        counts = seen(url)
    assert (result.status, result.records) == ("Completed", 40), result.failure_reason
    assert (counts["requests"], counts["most_in_flight"], counts["connections"]) == (20, 1, 1)


def test_the_servers_parameters_pack_records_and_the_jobs_own_win(workspace):
    workspace.write("a.jsonl", b"\n".join(b"x" * 200_000 for _ in range(12)))
    changes = {"MaxPayloadInMB": None, "BatchStrategy": None}
    said = {"MaxConcurrentTransforms": 3, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 1}
    with running(parameters=said, answer="lengths", until_in_flight=3) as url:
        members = workspace.members(Model={"Endpoint": url}, **changes)
        assert rayxform.plan(members).files[0].records_per_request == (5, 5, 2)
        result = rayxform.run(members)
        assert (result.status, result.requests, seen(url)["most_in_flight"]) == ("Completed", 3, 3), result.failure_reason
        one = rayxform.plan(members | {"BatchStrategy": "SingleRecord"})
        assert one.files[0].records_per_request == (1,) * 12
        all_in_one = rayxform.plan(members | {"MaxPayloadInMB": 0})
        assert all_in_one.files[0].records_per_request == (12,)
        assert seen(url)["parameters"] == 4
        # A job that leaves nothing open does not ask, and a whole object has no strategy.
        settled = {"MaxConcurrentTransforms": 2, "MaxPayloadInMB": 6}
        rayxform.plan(members | settled | {"BatchStrategy": "MultiRecord"})
        rayxform.plan(workspace.members(Model={"Endpoint": url}, TransformInput__SplitType=None, BatchStrategy=None, **settled))
        assert seen(url)["parameters"] == 4


def test_a_file_that_the_server_refuses_fails_alone_with_what_the_server_said(workspace):
    workspace.write("a.jsonl", b"1\n2\n")
    workspace.write("bad.jsonl", b'1\n"poison"\n')
    workspace.write("c.jsonl", b"3\n")
    with running(answer="lengths", fail=[500], fail_if={"poison": 400}, message="column 7 is not a number") as url:
        result = run(workspace, model={"Endpoint": url}, **CLOSED)
        assert seen(url)["requests"] == 4  # one of the three is asked twice, after the 500
    assert (result.status, result.failed_files) == ("Failed", 1)
    assert "bad.jsonl: records 1 to 2 (byte 0): ClientError: 400\nMessage: column 7 is not a number" in result.failure_reason
    assert list(workspace.outputs()) == ["a.jsonl.out", "c.jsonl.out"]
    (entry,) = errors_of(workspace)
    assert (entry["Kind"], entry["Traceback"]) == ("InvocationError", "Message: column 7 is not a number")


def test_bad_records_are_found_among_others_even_one_that_ends_its_server(workspace):
    workspace.write("a.jsonl", b'1\n2\n"poison"\n4\n5\n"deadly"\n7\n')
    changes = {"Rayxform__OnRecordError": "placeholder", "ModelClientConfig__InvocationsMaxRetries": 0}
    model = command(answer="lengths", fail_if={"poison": 400, "deadly": "exit"})
    result = run(workspace, model=model, **CLOSED, **changes)
    assert (result.status, result.records, result.bad_records) == ("Completed", 7, 2), result.failure_reason
    lines = workspace.outputs()["a.jsonl.out"].splitlines()
    refused, died = lines.pop(2), lines.pop(4)
    assert lines == [b'{"SageMakerOutput":{"length": 1}}'] * 5
    assert json.loads(refused) == {"error": "ClientError: 400"}
    assert "Unable to get response from algorithm" in json.loads(died)["error"]
    entries = {entry["Record"]: entry for entry in errors_of(workspace)}
    assert entries.keys() == {3, 6}
    assert "the server exited with code 3" in entries[6]["Message"]
    assert "out of memory, says the server" in entries[6]["Traceback"]


def test_an_endpoint_that_goes_away_fails_the_file_whatever_is_let_pass(workspace):
    workspace.write("a.jsonl", b"1\n2\n3\n4\n")
    changes = {"Rayxform": {"OnRecordError": "skip", "MaxRecordsPerBatch": 2}, **CLOSED}
    with running(fail_if={"1": "exit"}) as url:
        result = run(workspace, model={"Endpoint": url}, ModelClientConfig__InvocationsMaxRetries=1, **changes)
    assert (result.status, result.failed_files, result.bad_records) == ("Failed", 1, 0)
    assert "Unable to get response from algorithm" in result.failure_reason


def test_an_endpoint_that_is_not_there_is_refused_before_anything_is_started(workspace, monkeypatch):
    monkeypatch.setattr(model_server, "ENDPOINT_LIMIT_S", 0.5)
    workspace.write("a.jsonl", b"1\n")
    url = f"http://127.0.0.1:{free_port()}"
    message = f"Model.Endpoint: the model server was not ready within 0.5 s: GET {url}/ping: cannot connect"
    for changes in ({}, CLOSED):
        with pytest.raises(rayxform.JobError, match=message):
            rayxform.run(workspace.members(Model={"Endpoint": url}, **changes))
    with pytest.raises(rayxform.JobError, match=message):
        rayxform.check(workspace.members(Model={"Endpoint": url}))


def test_a_command_that_ends_fails_the_job_with_the_end_of_its_output(workspace):
    workspace.write("a.jsonl", b"1\n")
    result = run(workspace, model=command(exit_at_start=7), **CLOSED)
    assert (result.status, result.records) == ("Failed", 0)
    assert "the server exited with code 7 before it answered /ping" in result.failure_reason
    assert "starting\nno weights here" in result.failure_reason
    with pytest.raises(rayxform.ModelError, match="no weights here"):
        rayxform.plan(workspace.members(Model=command(exit_at_start=7)))


def test_each_worker_has_a_server_with_sagemakers_variables_and_none_outlives_the_job(workspace):
    workspace.write("a.jsonl", b"\n".join(RECORDS[:80]))
    names = [
        "SAGEMAKER_BATCH",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB",
        "SAGEMAKER_BATCH_STRATEGY",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS",
    ]
    names += ["MINE", "PORT", "SAGEMAKER_BIND_TO_PORT", "OMP_NUM_THREADS"]
    marker = f"marker-{os.getpid()}-{free_port()}"
    model = command(answer="env", names=names, delay_s=0.1)
    model["Command"] += f" {marker}"
    changes = {"BatchStrategy": "SingleRecord", "Environment": {"MINE": "1"}, "TransformResources": {"InstanceCount": 2}}
    result = run(workspace, model=model, MaxPayloadInMB=None, MaxConcurrentTransforms=4, **changes)
    assert (result.status, result.workers) == ("Completed", 2), result.failure_reason
    answers = [json.loads(line)["SageMakerOutput"] for line in workspace.outputs()["a.jsonl.out"].splitlines()]
    assert len({answer["PORT"] for answer in answers}) == 2
    assert all(answer.pop("PORT") == answer.pop("SAGEMAKER_BIND_TO_PORT") for answer in answers)
    assert answers == 80 * [
        {
            "SAGEMAKER_BATCH": "true",
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": None,
            "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD",
            "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "4",
            "MINE": "1",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        }
    ]
    assert wait_for(lambda: not processes_with(marker))


def test_a_worker_that_is_killed_takes_its_server_along_and_the_job_goes_on(workspace):
    workspace.write("a.jsonl", b"\n".join(RECORDS[:60]))
    marker = f"marker-{os.getpid()}-{free_port()}"
    model = command(answer="lengths", delay_s=0.1)
    model["Command"] += f" {marker}"
    killed = []

    def kill_first_worker():
        wait_for(lambda: processes_with(marker))
        first = set(processes_with(marker))
        wait_for(lambda: [*(workspace.folder / "output" / ".rayxform").rglob("parts/*")])
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # others end meanwhile
                if "MapWorker" in " ".join(process.cmdline()):
                    process.kill()
                    killed.append(first)

    killer = threading.Thread(target=kill_first_worker)
    killer.start()
    result = run(workspace, workers=1, model=model, Rayxform__MaxRecordsPerBatch=2, **CLOSED)
    killer.join()
    assert (result.status, result.records) == ("Completed", 60), result.failure_reason
    assert workspace.outputs()["a.jsonl.out"].count(b"\n") == 60
    (first,) = killed
    assert wait_for(lambda: not first & set(processes_with(marker)))
    assert wait_for(lambda: not processes_with(marker))


def test_a_stopped_job_leaves_no_server(workspace):
    workspace.write("a.jsonl", b"1\n")
    marker = f"marker-{os.getpid()}-{free_port()}"
    model = command(fail=["hang"])
    model["Command"] += f" {marker}"
    job = workspace.job_file(Model=model, **CLOSED)
    ended = interrupt([sys.executable, "-m", "rayxform", "run", str(job)], lambda: processes_with(marker))
    assert ended.returncode == 130
    assert wait_for(lambda: not processes_with(marker))


def test_the_code_of_a_sagemaker_container_runs_and_gives_what_it_gives_here(workspace):
    """sagemaker-inference loads the same inference.py; a JSON value that it raises for is a 500 with its traceback."""
    code = workspace.folder / "model" / "code"
    code.mkdir(parents=True)
    (code / "inference.py").write_text(
        "import json\n"
        "def model_fn(model_dir):\n    return 1000\n"
        "def input_fn(body, content_type):\n"
        "    return [json.loads(line) for line in body.decode().splitlines()]\n"
        "def predict_fn(records, model):\n    return [model + record['id'] for record in records]\n"
        "def output_fn(prediction, accept):\n"
        "    return '\\n'.join(json.dumps({'sum': one, 'accept': accept}) for one in prediction)\n"
    )
    workspace.write("a.jsonl", b"\n".join(RECORDS[:100]))
    workspace.write("b.jsonl", b'{"id":"one"}\n')
    changes = {"Rayxform__MaxRecordsPerBatch": 9, "DataProcessing__JoinSource": "Input", **CLOSED}
    changes["ModelClientConfig__InvocationsMaxRetries"] = 0
    own = run(workspace, model={"ModelDataUrl": str(code.parent)}, **changes)
    expected = workspace.outputs()
    result = run(workspace, model={"Command": f"python {SERVERS / 'toolkit.py'} {code.parent} {{port}}"}, **changes)
    assert (result.requests, result.failed_files) == (own.requests, own.failed_files) == (13, 1)
    assert workspace.outputs() == expected
    assert expected["a.jsonl.out"].startswith(b'{"SageMakerOutput":{"sum": 1000, "accept": "application/jsonlines"},"id":0,')
    report = result.failure_reason
    assert "b.jsonl: record 1 (byte 0): Bad HTTP status received from algorithm: 500" in report
    assert "Message: unsupported operand type(s) for +: 'int' and 'str'\nTraceback (most recent call last)" in report


def test_check_asks_the_server(workspace):
    workspace.write("a.jsonl", b'{"id":1}\n{"id":22}\n')
    with running(answer="lengths") as url:
        for model in ({"Endpoint": url}, command(answer="lengths")):
            members = workspace.members(Model=model, DataProcessing__JoinSource="Input", MaxPayloadInMB=0)
            report = rayxform.check(members)
            assert report.response == b'{"length": 8}\n{"length": 9}'
            assert report.output.splitlines()[1] == b'{"SageMakerOutput":{"length": 9},"id":22}'
        assert seen(url)["chunked"] == 1  # MaxPayloadInMB 0
