"""One run of a job at a time: on a disk, on S3 and on a store that only reads and writes, with real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from rayxform.errors import JobBusyError, StorageError
from rayxform.storage import lease as leases
from rayxform.storage.lease import read_holder, take_lease

TAKER = """
import sys, time
from rayxform.errors import JobBusyError
from rayxform.storage.lease import take_lease
print("ready", flush=True)
sys.stdin.readline()
try:
    take_lease(sys.argv[1], {})
    print("taken", flush=True)
except JobBusyError as error:
    print("busy", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(params=["disk", "s3", "memory"])
def state(request, tmp_path, monkeypatch):
    """A job's state folder on each kind of store, and what writes its lease past the package."""
    if request.param == "disk":
        return State(f"{tmp_path}/out/.rayxform/job")
    if request.param == "memory":
        monkeypatch.setattr(leases, "SETTLE_S", 0.05)
        return State(f"memory://{uuid.uuid4().hex}/.rayxform/job")
    bucket = request.getfixturevalue("bucket")
    # moto looks and writes in two steps, where S3 does it in one.
    one_at_a_time = threading.Lock()
    bucket.proxy.reset(around=lambda method, path: one_at_a_time if method == "PUT" else None)
    return State(f"{bucket.url}/out/.rayxform/job")


class State:
    def __init__(self, url):
        self.url = url
        self.filesystem, path = leases.open_filesystem(url)
        self.path = f"{path}/lease.json"

    def read(self):
        self.filesystem.invalidate_cache()
        return json.loads(self.filesystem.cat_file(self.path)) if self.filesystem.exists(self.path) else None

    def write(self, **changes):
        """A lease of somebody else's."""
        known = {
            "Id": "other",
            "Host": "elsewhere",
            "Machine": "another one",
            "Pid": 17,
            "ProcessStartedS": 1.0,
            "TakenAt": time.time(),
            "RenewedAt": time.time(),
            "ExpiresS": 30.0,
        }
        self.filesystem.makedirs(self.path.rpartition("/")[0], exist_ok=True)
        self.filesystem.pipe_file(self.path, json.dumps(known | changes).encode())

    def expire(self):
        """A lease that ended long ago."""
        self.write(ExpiresS=-60.0)


def try_to_take(url):
    try:
        return take_lease(url, {})
    except JobBusyError:
        return None


def test_the_second_is_refused_until_the_first_has_let_go(state):
    first = take_lease(state.url, {})
    with pytest.raises(JobBusyError) as caught:
        take_lease(state.url, {})
    for words in ("the job job", f"process {os.getpid()} on host {socket.gethostname()} since 20", "`rayxform stop JOB`", " s"):
        assert words in str(caught.value)
    assert read_holder(state.url).pid == os.getpid()
    first.release()
    assert state.read() is None
    assert read_holder(state.url) is None
    second = take_lease(state.url, {})
    first.release()  # again: what it removes is not its own
    assert state.read() is not None
    assert (first.is_lost, second.is_lost) == (False, False)
    second.release()
    second.release()


@pytest.mark.parametrize("before", ["free", "expired"])
def test_of_many_takers_exactly_one_wins(state, before):
    if before == "expired":
        state.expire()
    start = threading.Barrier(12)

    def take():
        start.wait()
        return try_to_take(state.url)

    with ThreadPoolExecutor(12) as pool:
        taken = [one for one in pool.map(lambda _: take(), range(12)) if one is not None]
    assert len(taken) == 1
    taken[0].release()
    assert state.read() is None


def test_of_many_processes_exactly_one_wins_and_a_killed_one_is_followed_at_once(tmp_path, bucket):
    one_at_a_time = threading.Lock()
    bucket.proxy.reset(around=lambda method, path: one_at_a_time if method == "PUT" else None)
    for url in (f"{tmp_path}/out/.rayxform/job", f"{bucket.url}/out/.rayxform/job"):
        takers = [
            subprocess.Popen([sys.executable, "-c", TAKER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        try:
            for one in takers:
                assert one.stdout.readline() == "ready\n"
            for one in takers:
                one.stdin.write("\n")
                one.stdin.flush()
            said = [one.stdout.readline() for one in takers]
            assert sorted(said) == ["busy\n", "busy\n", "taken\n"]
            winner = takers[said.index("taken\n")]
            with pytest.raises(JobBusyError, match=f"process {winner.pid} "):
                take_lease(url, {})
            winner.send_signal(signal.SIGKILL)
            os.waitid(os.P_PID, winner.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet forgotten by the system
            take_lease(url, {}).release()
        finally:
            for one in takers:
                one.kill()
                one.communicate()


def test_a_holder_whose_process_is_gone_is_dead_and_one_of_another_machine_only_when_expired(state):
    here = leases._machine()
    state.write(Machine=here, Pid=os.getpid(), ProcessStartedS=1.0)  # its number went to another process
    take_lease(state.url, {}).release()
    state.write()
    with pytest.raises(JobBusyError, match="process 17 on host elsewhere since .* ends in (29|3[0-2]) s"):
        take_lease(state.url, {})
    state.expire()
    take_lease(state.url, {}).release()
    assert state.read() is None


def test_a_file_is_judged_by_its_own_time_whatever_its_holder_says_of_the_clock(tmp_path):
    state = State(f"{tmp_path}/job")
    state.write(RenewedAt=time.time() + 3600)
    os.utime(state.path, (time.time() - 31,) * 2)
    assert try_to_take(state.url) is None
    os.utime(state.path, (time.time() - 33,) * 2)
    take_lease(state.url, {}).release()
    state.write(RenewedAt=time.time() - 3600)
    assert try_to_take(state.url) is None
    assert os.listdir(tmp_path / "job") == ["lease.json"]


def test_a_lease_that_was_cut_short_is_nobodys_and_ends(tmp_path):
    state = State(f"{tmp_path}/job")
    state.write()
    os.truncate(state.path, 20)
    assert try_to_take(state.url) is None
    os.utime(state.path, (time.time() - 33,) * 2)
    take_lease(state.url, {}).release()


def wait_until(what):
    for _ in range(500):
        if what():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


def test_a_lease_is_renewed_and_made_anew_where_it_was_removed(state, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_S", 0.05)
    lease = take_lease(state.url, {})
    first = state.read()["RenewedAt"]
    wait_until(lambda: state.read()["RenewedAt"] > first)
    state.filesystem.rm_file(state.path)
    wait_until(lambda: state.read() is not None)
    assert not lease.is_lost
    lease.release()
    assert state.read() is None


def test_a_lease_that_another_took_is_lost_and_stays_the_others(state, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_S", 0.05)
    lease = take_lease(state.url, {})
    state.write()
    wait_until(lambda: lease.is_lost)
    lease.release()
    assert state.read()["Id"] == "other"


def test_a_lease_that_cannot_be_renewed_is_lost_when_it_expires(bucket, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_S", 0.05)
    monkeypatch.setattr(leases, "EXPIRES_S", 1.0)
    lease = take_lease(f"{bucket.url}/out/.rayxform/job", {})
    bucket.proxy.reset(lambda method, path: 403)
    assert not lease.is_lost
    wait_until(lambda: lease.is_lost)
    bucket.proxy.reset()
    time.sleep(0.2)
    assert lease.is_lost
    lease.release()
    assert bucket.keys() == []


def test_a_store_without_conditional_writes_is_written_to_plainly(bucket, monkeypatch):
    monkeypatch.setattr(leases, "SETTLE_S", 0.05)
    refused = iter([501])
    bucket.proxy.reset(lambda method, path: next(refused, None) if method == "PUT" else None)
    lease = take_lease(f"{bucket.url}/job", {})
    assert (next(refused, None), bucket.proxy.count("PUT ")) == (None, 2)
    assert read_holder(f"{bucket.url}/job").pid == os.getpid()
    assert try_to_take(f"{bucket.url}/job") is None
    lease.release()
    assert bucket.keys() == []


def test_a_write_whose_answer_was_lost_is_known_again(bucket):
    lost = iter(["lose"])
    bucket.proxy.reset(lambda method, path: next(lost, None) if method == "PUT" else None)
    lease = take_lease(f"{bucket.url}/job", {})
    assert next(lost, None) is None
    assert bucket.proxy.count("PUT ") == 2
    lease.release()


def test_what_cannot_be_written_is_an_error_that_names_the_lease(bucket, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=f"{tmp_path}/file/job/lease.json"):
        take_lease(f"{tmp_path}/file/job", {})
    bucket.proxy.reset(lambda method, path: 403 if method == "PUT" else None)
    with pytest.raises(StorageError, match=f"cannot write {bucket.url}/job/lease.json: .*; give this user the right"):
        take_lease(f"{bucket.url}/job", {})
