"""A process is told from another one of its number, whatever happens to the clock."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rayxform.errors import JobBusyError
from rayxform.processes import started_after_boot_s
from rayxform.storage.lease import take_lease

ASK = "import os; from rayxform.processes import started_after_boot_s as ask; print(ask(int(input())), ask(os.getpid()))"


def test_each_process_says_the_same_of_one():
    asker = subprocess.run([sys.executable, "-c", ASK], input=str(os.getpid()), capture_output=True, text=True, check=True)
    this, that = map(float, asker.stdout.split())
    assert this == started_after_boot_s(os.getpid()) < that


def test_a_process_that_is_gone_has_none():
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(psutil.NoSuchProcess):
        started_after_boot_s(child.pid)


@pytest.fixture
def set_clock(tmp_path, monkeypatch):
    """Has the system say what it says once the clock was set by some seconds: the time at which it started moves with it."""
    stat = Path("/proc/stat").read_text()
    booted_at = int(psutil.boot_time())

    def set_it(by_s):
        (tmp_path / str(os.getpid())).symlink_to("/proc/self")
        (tmp_path / "stat").write_text(stat.replace(f"btime {booted_at}", f"btime {booted_at + by_s}"))
        monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))

    return set_it


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere, no /proc says when the machine started")
@pytest.mark.parametrize("by_s", [-1, 1, 3600])
def test_setting_the_clock_changes_nothing(set_clock, by_s):
    before, told = started_after_boot_s(os.getpid()), psutil.Process().create_time()
    set_clock(by_s)
    assert psutil.Process().create_time() == pytest.approx(told + by_s)
    assert started_after_boot_s(os.getpid()) == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere, no /proc says when the machine started")
def test_a_run_goes_on_while_the_clock_is_set(set_clock, tmp_path):
    url = str(tmp_path / "out/.rayxform/job")
    lease = take_lease(url, {})
    set_clock(1)
    with pytest.raises(JobBusyError, match=f"process {os.getpid()} "):
        take_lease(url, {})
    lease.release()
