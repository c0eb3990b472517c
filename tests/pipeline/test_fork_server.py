"""Ray's workers are forks of one warm process; where they cannot be, they start as Ray starts them."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

SERVER = "rayxform.pipeline.fork_server.server"


def test_workers_are_forks_and_each_is_a_process_of_its_own(ray_address):
    import ray

    @ray.remote(num_cpus=0)
    class Looking:
        def look(self):
            return {
                "parent": psutil.Process().parent().cmdline(),
                "pid": os.getpid(),
                "python": sys.executable,
                "drawn": ray.UniqueID.from_random().hex(),
                "oom_score": open("/proc/self/oom_score_adj").read().strip(),
                "environment": os.environ.get("RAY_JOB_ID"),
                "children_can_be_awaited": subprocess.run(["true"]).returncode,
            }

    two_at_once = [Looking.remote(), Looking.remote()]
    one, two = ray.get([actor.look.remote() for actor in two_at_once])
    for seen in (one, two):
        assert any(SERVER in word for word in seen["parent"])
        assert (seen["python"], seen["oom_score"], seen["children_can_be_awaited"]) == (sys.executable, "1000", 0)
        assert seen["environment"]
    assert one["pid"] != two["pid"]
    assert one["drawn"] != two["drawn"]


SCRIPT = f"""
import os, sys, psutil, ray
from rayxform.pipeline.cluster import ray_session
from rayxform.pipeline.fork_server import warming_up
from rayxform.pipeline.planning import make_plan
from rayxform.pipeline.run import run_plan
from rayxform.spec import parse_job

def servers():
    return [one for one in psutil.Process().children() if any({SERVER!r} in word for word in one.cmdline())]

with warming_up(None) as fork_server, ray_session(None, fork_server):
    print("servers", len(servers()), flush=True)
    if sys.argv[2] == "killed":
        servers()[0].kill()
    if sys.argv[2] == "hold":
        print(ray.get(ray.remote(os.getpid).remote()), servers()[0].pid, flush=True)
        sys.stdin.read()
    run_plan(make_plan(parse_job(__import__("json").loads(sys.argv[1]))))
print("servers", len(servers()), flush=True)
"""


def start(members, fate, **environment):
    known = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(members), fate],
        env=known | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("fate", "environment", "servers"),
    [("killed", {}, 1), pytest.param("off", {"RAYXFORM_FORK_WORKERS": "0"}, 0, marks=pytest.mark.long)],
)
def test_without_a_server_workers_start_as_they_always_did(workspace, fate, environment, servers):
    workspace.write("a.jsonl", b'{"id":1}\n{"id":2}\n')
    run = start(workspace.members(), fate, **environment)
    printed, errors = run.communicate(timeout=120)
    assert (run.returncode, printed) == (0, f"servers {servers}\nservers 0\n"), errors
    assert len(workspace.outputs()["a.jsonl.out"].splitlines()) == 2


def test_a_folder_that_is_too_long_for_sockets_is_said(workspace, tmp_path):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    run = start(workspace.members(), "off", TMPDIR=str(folder))
    assert re.search(
        r"EngineError: cannot start Ray on this machine: .*AF_UNIX path length.*x{100}", run.communicate(timeout=120)[1]
    )


def test_a_driver_that_is_killed_takes_the_server_and_its_forks_along(workspace):
    def folders():
        return {*Path(tempfile.gettempdir()).glob("rayxform-fork-*")}

    before = folders()
    workspace.write("a.jsonl", b'{"id":1}\n')
    run = start(workspace.members(), "hold")
    assert run.stdout.readline() == "servers 1\n"
    pids = [int(word) for word in run.stdout.readline().split()]
    run.kill()
    run.wait()
    give_up_at = time.monotonic() + 30
    while any(map(psutil.pid_exists, pids)) or folders() != before:
        assert time.monotonic() < give_up_at, pids
        time.sleep(0.1)
    run.communicate()


MODEL = """
import json, os, psutil, torch
def model_fn(d):
    return None
def transform_fn(model, body, content_type, accept):
    parent = psutil.Process(os.getppid())  # a zygote, which is a child of the driver, as Ray's raylet is
    children = [one for one in parent.parent().children() if one.name() == "raylet"][0].children()
    return json.dumps([" ".join(one.cmdline()) for one in (parent, *children)])
"""


def test_a_job_forks_its_models_and_starts_no_agent_that_its_own_ray_does_without(workspace):
    workspace.write("a.jsonl", b"1\n")
    code = workspace.folder / "code"
    code.mkdir()
    (code / "inference.py").write_text(MODEL)
    command = [sys.executable, "-m", "rayxform", "run", workspace.job_file(Model={"SourceDir": str(code)})]
    known = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    run = subprocess.run(command, env=known, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    parent, *raylets = json.loads(workspace.outputs()["a.jsonl.out"])["SageMakerOutput"]
    assert "rayxform.model.zygote" in parent
    assert "cat" in raylets  # in place of the dashboard's agent, whose port it told
    assert not any("dashboard/agent.py" in one or "DashboardAgent" in one for one in raylets)
    assert any("runtime_env/agent" in one or "RuntimeEnvAgent" in one for one in raylets)
