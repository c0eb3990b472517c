"""Runs as processes of this machine."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rayxform.server.runs import JOB_NICENESS, LocalRuns, try_lock


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this system's sessions have no priorities")
def test_runs_that_begin_at_once_give_way_to_the_server(tmp_path):
    """A session that does not would take half of the cores, however nice its processes are (sched(7), autogroup)."""
    runs, names = LocalRuns(tmp_path, []), ["one", "two", "three"]
    for name in names:
        runs.begin(name, 1, {}, ())
    for name in names:
        pid, _ = json.loads((tmp_path / name / "process.json").read_text())
        assert psutil.Process(pid).nice() == JOB_NICENESS
        assert os.getsid(pid) == pid
        assert Path(f"/proc/{pid}/autogroup").read_text().endswith(f" nice {JOB_NICENESS}\n")
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("noted", [None, "[1, 0.0]"])
def test_a_run_that_a_killed_server_had_no_time_to_note_is_stopped(tmp_path, noted):
    """It is known by the lock that it holds."""
    folder = tmp_path / "job"
    folder.mkdir()
    if noted is not None:
        (folder / "process.json").write_text(noted)
    with (folder / "lock").open("ab") as lock:
        assert try_lock(lock.fileno())
        command = [sys.executable, "-c", "print(flush=True); import time; time.sleep(600)"]
        run = subprocess.Popen(command, pass_fds=(lock.fileno(),), stdout=subprocess.PIPE)
    run.stdout.readline()
    runs = LocalRuns(tmp_path, [])
    assert runs.look("job", 1).goes_on
    runs.stop("job", 1)
    assert run.wait(10) == -signal.SIGTERM
    assert not runs.look("job", 1).goes_on
