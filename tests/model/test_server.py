"""The client of a model server, against real servers that fail as they are told and count what they saw."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from rayxform.errors import InvocationError, ModelLoadError
from rayxform.model import InvocationContext
from rayxform.model.command import CommandServer
from rayxform.model.server import ServerClient
from rayxform.spec import ExecutionParameters
from tests.support_servers import SCRIPTED, free_port, processes_with, running, seen, wait_for

CONTEXT = InvocationContext("a.jsonl", 0, 1, 1, "text/csv", "text/csv", "")


def connect(url, timeout_s=20.0, chunked=False):
    return ServerClient(url, timeout_s=timeout_s, chunked=chunked)


def ask(model, body=b"1,2", retries=0, content_type="text/csv", accept="text/csv"):
    return model.retry(lambda attempt: model.transform(body, content_type, accept, CONTEXT), retries)


def test_a_request_has_its_types_and_the_answer_its_own():
    with running(type="application/json; charset=utf-8") as url:
        client = connect(f"{url}/models/a/")
        answer = ask(client, b"\x00\xff" * 1_000_000, content_type="image/png", accept="application/json")
        assert (answer.body, answer.content_type) == (b"\x00\xff" * 1_000_000, "application/json; charset=utf-8")
        headers = seen(url)["headers"]
        assert (headers["Content-Type"], headers["Accept"], headers["Content-Length"]) == (
            "image/png",
            "application/json",
            "2000000",
        )
        client.close()


def test_connections_are_kept_and_requests_go_at_once():
    with running(delay_s=0.05) as url:
        client = connect(url)
        for number in range(5):
            assert ask(client, b"%d" % number).body == b"%d" % number
        assert seen(url)["connections"] == 1
        threads = [threading.Thread(target=lambda: [ask(client) for _ in range(5)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts = seen(url)
        assert (counts["requests"], counts["most_in_flight"]) == (45, 8)
        assert counts["connections"] == 8


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_are_chunked_where_the_payload_has_no_limit(chunked):
    with running() as url:
        client = connect(url, chunked=chunked)
        for body in (b"", b"x", b"y" * 3_000_000):
            assert ask(client, body).body == body
        assert seen(url)["chunked"] == (3 if chunked else 0)
        assert ("Content-Length" in seen(url)["headers"]) is not chunked


FAULTS = {
    # fault: message, whether a retry helps, whether the server is to blame
    400: ("ClientError: 400", False, False),
    404: ("check the path of the URL", False, False),
    408: ("ClientError: 408", True, False),
    413: ("the server takes no request of 3 bytes; lower MaxPayloadInMB", False, False),
    415: ("the server does not take ContentType text/csv", False, False),
    429: ("ClientError: 429", True, True),
    301: ("ClientError: 301", False, False),
    500: ("Bad HTTP status received from algorithm: 500", True, False),
    503: ("Bad HTTP status received from algorithm: 503", True, True),
    "drop": ("Unable to get response from algorithm: POST http://127.0.0.1:", True, False),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_errors_have_sagemakers_words_and_only_what_may_pass_is_tried_again(fault):
    message, passes, is_servers_fault = FAULTS[fault]
    with running(fail=[fault, fault], message="bad column 7") as url:
        client = connect(url)
        with pytest.raises(InvocationError) as caught:
            ask(client, retries=0)
        assert message in caught.value.message
        assert ("bad column 7" in caught.value.user_traceback) is (fault != "drop")
        assert caught.value.is_servers_fault is is_servers_fault
        if passes:
            assert ask(client, retries=1).body == b"1,2"
        else:
            with pytest.raises(InvocationError):
                ask(client, retries=3)
        assert seen(url)["requests"] == (3 if passes else 2)


def test_a_request_is_tried_as_often_as_the_job_says():
    with running(fail=[500] * 5) as url:
        client = connect(url)
        for retries, requests in ((0, 1), (2, 4)):
            with pytest.raises(InvocationError):
                ask(client, retries=retries)
            assert seen(url)["requests"] == requests


def test_a_long_answer_to_a_bad_request_is_cut():
    with running(fail=[500], message="no ", message_times=50_000) as url:
        with pytest.raises(InvocationError) as caught:
            ask(connect(url))
        assert len(caught.value.user_traceback) < 2200
        assert "(150,000 bytes in all)" in caught.value.user_traceback


@pytest.mark.parametrize("fault", ["hang", "drip", "drip headers"])
def test_the_time_out_is_that_of_the_whole_request(fault):
    with running(fail=[fault]) as url:
        client = connect(url, timeout_s=1)
        with pytest.raises(InvocationError, match="no whole answer within 1 s") as caught:
            ask(client)
        assert not caught.value.is_servers_fault  # it still answers /ping
        assert ask(client).body == b"1,2"


def test_a_server_that_is_not_there_is_to_blame_itself():
    with pytest.raises(InvocationError, match="cannot connect") as caught:
        ask(connect(f"http://user:secret@127.0.0.1:{free_port()}"))
    assert caught.value.is_servers_fault
    assert "secret" not in str(caught.value)


def test_it_waits_until_the_server_is_ready():
    with running(ready_after=3) as url:
        connect(url).wait_until_ready(20)
        assert seen(url)["pings"] == 4
    with running(ready_after=5) as url:  # it is there, but busy
        connect(url).wait_until_ready(0.1, busy_limit_s=60)
        assert seen(url)["pings"] == 6
    with (
        running(ready_after=1000) as url,
        pytest.raises(ModelLoadError, match="within 0.3 s: GET .*: it answered 503, not 200"),
    ):
        connect(url).wait_until_ready(0.3)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ({}, ExecutionParameters()),
        ({"parameters": {}}, ExecutionParameters()),
        (
            {"parameters": {"MaxConcurrentTransforms": 8, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 0, "Other": 1}},
            ExecutionParameters(8, "MultiRecord", 0),
        ),
        (
            {"parameters": {"MaxConcurrentTransforms": "0", "BatchStrategy": "SINGLE_RECORD"}},
            ExecutionParameters(None, "SingleRecord"),
        ),
    ],
)
def test_execution_parameters_are_asked_and_a_server_without_them_leaves_all_open(script, expected):
    with running(**script) as url:
        assert connect(url).execution_parameters() == expected


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (500, "answered 500, neither 200 nor 404"),
        ("{", "Input data was truncated"),
        ({"BatchStrategy": "MultiRecord"}, "Invalid enum value 'MultiRecord' - at `$.BatchStrategy`"),
        ({"MaxPayloadInMB": 101}, "`int` <= 100 - at `$.MaxPayloadInMB`"),
    ],
)
def test_execution_parameters_that_are_not_understood_are_refused_with_a_way_out(answer, message):
    with running(parameters=answer) as url:
        with pytest.raises(ModelLoadError) as caught:
            connect(url).execution_parameters()
        assert message in caught.value.message
        assert "set MaxConcurrentTransforms, BatchStrategy and MaxPayloadInMB in the job" in caught.value.message


def start(command=SCRIPTED, timeout_s=20.0, **script):
    environment = {**os.environ, "SCRIPT": json.dumps(script)}
    return CommandServer(command, environment, timeout_s=timeout_s, chunked=False)


@pytest.mark.parametrize("command", [SCRIPTED, f"{SCRIPTED} {{port}}", f"sh -c 'exec {SCRIPTED} $SAGEMAKER_BIND_TO_PORT'"])
def test_a_command_gets_its_port_and_ends_when_it_is_closed(command):
    marker = f"marker-{os.getpid()}-{free_port()}"
    server = start(f"{command.removesuffix(chr(39))} {marker}'" if command.endswith("'") else f"{command} {{port}} {marker}")
    assert ask(server, b"hello").body == b"hello"
    assert processes_with(marker)
    server.close()
    assert wait_for(lambda: not processes_with(marker))


@pytest.mark.parametrize(
    ("command", "code", "message", "output"),
    [
        (SCRIPTED, 7, "the server exited with code 7 before it answered /ping", "starting\nno weights here"),
        ("no-such-program-anywhere", None, "exited with code 127", "no-such-program-anywhere: No such file or directory"),
        (f"{sys.executable} -c 'import os; os.kill(os.getpid(), 9)'", None, "was ended by signal 9", "it printed nothing"),
    ],
)
def test_a_command_that_ends_at_once_is_reported_with_its_output(command, code, message, output):
    script = {} if code is None else {"exit_at_start": code}
    with pytest.raises(ModelLoadError) as caught:
        start(command, **script)
    assert message in caught.value.message
    assert output in caught.value.user_traceback


def test_a_server_that_dies_is_named_and_started_again():
    server = start(fail_if={"poison": "exit"})
    assert ask(server, b"1").body == b"1"
    with pytest.raises(InvocationError) as caught:
        ask(server, b"poison", retries=1)
    assert "Unable to get response from algorithm" in caught.value.message
    assert "the server exited with code 3" in caught.value.message
    assert "out of memory, says the server" in caught.value.user_traceback
    assert not caught.value.is_servers_fault
    assert ask(server, b"2").body == b"2"
    server.close()


STARTER = """
import json, os, sys, time
from rayxform.model.command import CommandServer
server = CommandServer(sys.argv[1], dict(os.environ), timeout_s=20, chunked=False)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("stubborn", [False, True])
def test_no_process_of_a_server_outlives_a_worker_that_is_killed(stubborn):
    """Not even one that ignores SIGTERM and has left the server's session."""
    marker = f"marker-{os.getpid()}-{free_port()}"
    command = f"{SCRIPTED} {{port}} {marker}"
    if stubborn:
        child = f"import os, signal, time; signal.signal(15, signal.SIG_IGN); os.setsid(); time.sleep(600) # {marker}"
        command = f"sh -c 'trap \"\" TERM; {sys.executable} -c \"$0\" {marker} & {command}' '{child}'"
    worker = subprocess.Popen(
        [sys.executable, "-c", STARTER, command], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert worker.stdout.readline() == "ready\n"
    assert wait_for(lambda: len(processes_with(marker)) >= (2 if stubborn else 1))
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert wait_for(lambda: not processes_with(marker))
