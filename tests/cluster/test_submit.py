"""Jobs on a real Ray cluster of three nodes with its job server, submitted, followed, left, stopped and gone on with."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import pytest

from rayxform.errors import ClusterError
from rayxform.pipeline.result import last_result
from rayxform.ray_jobs import RayJobs

WAIT_S = 120

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
]  # the cluster's start counts, and takes minutes on a machine that is busy

MODEL = """
# While the file "hold" is there, each of its processes answers 40 requests and then none. It waits for NODES nodes to have it.
import os, pathlib, time
def model_fn(folder):
    requests = pathlib.Path(os.environ["REQUESTS"])
    (requests.parent / f"loaded-{os.environ['NODE']}").touch()
    while len([*requests.parent.glob("loaded-*")]) < int(os.environ.get("NODES", 1)):
        time.sleep(0.05)
    return requests
def transform_fn(requests, body, content_type, accept):
    lines = body.splitlines()
    mine = requests / f"{os.environ['NODE']}-{os.getpid()}"
    while (requests / "hold").exists() and mine.exists() and len(mine.read_text().splitlines()) >= 40:
        time.sleep(0.05)
    time.sleep(0.05)
    with mine.open("a") as file:
        file.write(f"{len(lines)} {os.path.realpath(__file__)}\\n")
    return "\\n".join('{"length": %d}' % len(line) for line in lines)
"""


@pytest.fixture
def source(workspace):
    """A folder with inference.py, and with what need not go to the cluster."""
    folder = workspace.folder / "source"
    folder.mkdir()
    (folder / "inference.py").write_text(MODEL)
    (folder / ".gitignore").write_text("inference.py\n")
    return folder


def job_of(workspace, source, nodes=1, **changes):
    model = {"SourceDir": str(source), "Environment": {"REQUESTS": str(workspace.requests), "NODES": str(nodes)}}
    return workspace.job_file(Model=model, DataProcessing__JoinSource="Input", Rayxform__MaxRecordsPerBatch=10, **changes)


def records(number):
    return b"".join(b'{"id":%d}\n' % at for at in range(number))


def expected(number):
    lines = (b'{"id":%d}' % at for at in range(number))
    return b"".join(b'{"SageMakerOutput":{"length": %d},%s\n' % (len(line), line[1:]) for line in lines)


def command(*arguments):
    return [sys.executable, "-m", "rayxform", *map(str, arguments)]


ENVIRONMENT = os.environ | {"RAY_AUTH_MODE": "disabled"}


def submit(cluster, *arguments):
    done = command("submit", *arguments, "--address", cluster.job_server, "--json")
    return subprocess.run(done, capture_output=True, text=True, timeout=WAIT_S, env=ENVIRONMENT)


def wait_for(condition, process=None):
    give_up_at = time.monotonic() + WAIT_S
    while not condition():
        assert process is None or process.poll() is None, f"it ended with {process.returncode}"
        assert time.monotonic() < give_up_at
        time.sleep(0.1)


def test_a_job_runs_on_every_node_with_the_laptops_code_and_is_followed(workspace, source, cluster):
    workspace.write("a.jsonl", records(300))
    job = job_of(workspace, source, nodes=3, TransformJobName="digits", Rayxform__CpusPerWorker=2)
    done = submit(cluster, job, "--workers", 3)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["TransformJobStatus"], result["SubmissionId"], result["Records"]) == ("Completed", "digits", 300)
    assert "submitted as digits\n" in done.stderr
    assert "Completed: 1 of 1 files, 300 records" in done.stderr
    assert '"TransformJobStatus"' not in done.stderr
    assert workspace.outputs() == {"a.jsonl.out": expected(300)}
    asked = {path.name[0]: path.read_text().split()[1] for path in workspace.requests.iterdir()}
    assert asked.keys() == {"0", "1", "2"}, "nodes that sent requests to their model"
    for node, file in asked.items():
        assert file.startswith(str(cluster.folder / f"node{node}")), "each node has the code in its own folder"


def test_the_same_cluster_by_its_address_gives_the_same_bytes(workspace, source, cluster):
    workspace.write("a.jsonl", records(30))
    done = subprocess.run(
        command("run", job_of(workspace, source), "--address", cluster.address, "--workers", 1),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    assert workspace.outputs() == {"a.jsonl.out": expected(30)}


def test_ctrl_c_leaves_it_stop_ends_it_and_the_next_ones_go_on(workspace, source, cluster):
    workspace.write("a.jsonl", records(2000))
    hold = workspace.requests / "hold"
    hold.touch()
    job = job_of(workspace, source)
    state_folder = workspace.folder / "output" / ".rayxform" / "job"
    jobs = RayJobs(cluster.job_server)

    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    address = ("--address", cluster.job_server, "--workers", 2, "--json")
    follower = subprocess.Popen(command("submit", job, *address), **pipes, text=True, env=ENVIRONMENT)
    wait_for(lambda: list(state_folder.rglob("*.part")), follower)
    follower.send_signal(signal.SIGINT)
    out, told = follower.communicate(timeout=30)
    assert follower.returncode == 130, told
    assert json.loads(out) == {"TransformJobStatus": "InProgress", "TransformJobName": "job", "SubmissionId": "job"}
    assert "job goes on. Follow it with `ray job logs --follow --address" in told
    assert "Traceback" not in told

    assert jobs.look("job").status == "InProgress"
    refused = submit(cluster, job)
    assert refused.returncode == 2
    assert f"the job job goes on as job on {cluster.job_server}" in refused.stderr
    assert "rayxform stop JOB" in refused.stderr

    members = json.loads(job.read_text())
    jobs.submit("job", members, name="job")  # starts no second run, for this one is there
    jobs.stop("job")
    wait_for(lambda: not jobs.look("job").is_running)
    jobs.submit("job", members, name="job")
    state = jobs.look("job")
    assert (state.status, state.is_running) == ("Stopped", False)
    assert state.result["Records"] > 0, "it wrote down what it had done"
    assert any("Stopped: 0 of 1 files" in line for line in jobs.follow_logs("job"))

    os.utime(hold)
    second = ask_terminal(command("submit", job, *address), b"submitted as job-2", lambda: asked(hold))
    assert "Stop the job on the cluster? [y/N]" in second.shown
    assert second.code == 130, second.shown
    assert jobs.look("job-2").status == "Stopped"

    hold.unlink()
    third = submit(cluster, job)
    result = json.loads(third.stdout.splitlines()[-1])
    assert (result["TransformJobStatus"], result["SubmissionId"], result["Records"]) == ("Completed", "job-3", 2000), (
        third.stderr
    )
    assert result["ResumedRecords"] > state.result["Records"]
    assert workspace.outputs() == {"a.jsonl.out": expected(2000)}


def asked(hold):
    """Whether a model has had a request since this was asked last."""
    latest = max((path.stat().st_mtime for path in hold.parent.iterdir() if path != hold), default=0)
    is_new = latest > hold.stat().st_mtime
    if is_new:
        os.utime(hold)
    return is_new


@dataclass(frozen=True)
class Shown:
    code: int
    shown: str


def ask_terminal(words, begins, condition):
    """Run a command on a terminal; when it has shown how it begins and the condition holds, press Ctrl-C and answer yes."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(words[0], [*map(str, words)], ENVIRONMENT)
    shown = bytearray()

    def read():
        with contextlib.suppress(OSError):  # so Linux says that nobody has the other end any more
            while data := os.read(terminal, 65536):
                shown.extend(data)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        wait_for(lambda: begins in shown)
        wait_for(condition)
        os.write(terminal, b"\x03")
        wait_for(lambda: b"[y/N]" in shown or not reader.is_alive())
        os.write(terminal, b"y\n")
        wait_for(lambda: not reader.is_alive())
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(terminal)
    return Shown(code, shown.decode())


def test_a_cluster_without_rayxform_says_so(workspace, source, cluster):
    workspace.write("a.jsonl", records(1))
    python = cluster.programs / "python"
    before = python.read_text()
    python.write_text(before.replace(' "$@"', ' -S -E "$@"'))  # which finds no package
    try:
        ended = submit(cluster, job_of(workspace, source, TransformJobName="bare"))
    finally:
        python.write_text(before)
    assert ended.returncode == 1
    assert "the run bare ended with exit code 1 without a result" in ended.stderr
    assert "install rayxform for the `python` that comes first on the PATH of the cluster's nodes" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_job_that_the_cluster_refuses_exits_2(workspace, source, cluster):
    ended = submit(cluster, job_of(workspace, source, TransformJobName="empty"))
    assert ended.returncode == 2
    result = json.loads(ended.stdout.splitlines()[-1])
    assert (result["TransformJobStatus"], result["SubmissionId"]) == ("Failed", "empty")
    assert "no object is there" in result["FailureReason"]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:9", "no Ray job server answers at http://127.0.0.1:9"),
        ("head:8265", "write http://HEAD:8265"),
        (None, "--address is missing"),
    ],
)
def test_an_address_without_a_job_server_is_refused(workspace, source, address, message):
    workspace.write("a.jsonl", records(1))
    options = () if address is None else ("--address", address)
    environment = ENVIRONMENT | {"RAY_ADDRESS": "127.0.0.1:1"}
    ended = subprocess.run(
        command("submit", job_of(workspace, source), *options, "--json"), capture_output=True, text=True, env=environment
    )
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert json.loads(ended.stdout)["TransformJobStatus"] == "Failed"


def test_the_address_that_is_given_counts_whatever_ray_address_says(cluster, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert not RayJobs(cluster.job_server).look("nobody-submitted-it").is_known
    assert "RAY_API_SERVER_ADDRESS" not in os.environ


def test_a_server_that_is_no_job_server_is_refused(s3_proxy):
    with pytest.raises(ClusterError, match="no Ray job server|cannot be used"):
        RayJobs(s3_proxy.url)


def test_the_result_is_the_last_line_that_is_one():
    log = 'a\n{"TransformJobStatus": "Failed"}\n{"TransformJobStatus": "Completed", "Files": 1}\n{"TransformJobStatus": cut\nb'
    assert last_result(log) == {"TransformJobStatus": "Completed", "Files": 1}
    assert last_result("Running entrypoint\n") is None
