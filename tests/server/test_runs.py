"""Runs as processes of this machine."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from rayxform.server.runs import JOB_NICENESS, LocalRuns


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
