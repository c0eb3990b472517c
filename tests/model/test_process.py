"""The model in a process of its own: what its worker gets to know, and what is left when either of them ends."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest

from rayxform.errors import InvocationError, ModelLoadError
from rayxform.model import InvocationContext, ModelProcess, process
from rayxform.model.exchange import KEPT_BYTES, MemoryFile
from rayxform.model.zygote import SOCKET_VARIABLE, ModelZygote

HEAD = "import ctypes, os, re, signal, subprocess, sys, time\n"
TRANSFORM = "def model_fn(d):\n    return os.getpid()\ndef transform_fn(model, body, content_type, accept, context):\n    "


@pytest.fixture(scope="module")
def zygote():
    """What a model's process may be forked from."""
    zygote = ModelZygote(["colorsys"], {}, 1)
    yield zygote
    zygote.end()


@pytest.fixture(
    autouse=True,
    params=[
        "started",
        pytest.param("forked", marks=pytest.mark.skipif(sys.platform != "linux", reason="zygotes are Linux's")),
    ],
)
def origin(request, zygote, monkeypatch):
    """All of this is so whether a model's process is started or forked."""
    monkeypatch.delenv(SOCKET_VARIABLE, raising=False)
    if request.param == "forked":
        monkeypatch.setenv(SOCKET_VARIABLE, zygote.address)
    return request.param


@pytest.fixture
def start(tmp_path):
    """Starts models from code, and ends them."""
    started = []

    def start(code, *, timeout_s=30.0, environment=None, packages=None):
        entry_point = tmp_path / "inference.py"
        entry_point.write_text(HEAD + code)
        model = ModelProcess(tmp_path, entry_point, environment or {}, 1, packages=packages, timeout_s=timeout_s)
        started.append(model)
        return model

    yield start
    for model in started:
        model.close()


def ask(model, body=b"x", n_records=1, content_type="a/b"):
    context = InvocationContext("key", 7, n_records, 2, content_type, "c/d", model.model_dir)
    return model.transform(memoryview(body), content_type, "c/d", context)


def failure_of(model, body=b"x", **changes):
    with pytest.raises(InvocationError) as caught:
        ask(model, body, **changes)
    return caught.value


def pid_of(model):
    return int(ask(model, b"pid").body)


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition):
    give_up_at = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def test_bodies_of_any_size_come_back_as_they_went_and_memory_of_long_ones_is_given_back(start):
    model = start(TRANSFORM + "return (body, 'e/f') if body else ''\n")
    for size in (0, 1, 3, 5 * 2**20, 2, KEPT_BYTES + 1, 70_000, 0):
        body = os.urandom(min(size, 2**20)) * (size // 2**20 or 1) + b"x" * (size % 2**20 if size > 2**20 else 0)
        response = ask(model, body)
        assert response.body == body
        assert response.content_type == ("e/f" if body else "c/d")
    held = MemoryFile.create()
    held.write(b"x" * (KEPT_BYTES + 1))
    assert len(held.read(KEPT_BYTES + 1)) == KEPT_BYTES + 1
    assert os.fstat(held.descriptor).st_size == 0
    held.close()


def test_functions_see_what_they_see_in_the_workers_own_process(start, tmp_path, monkeypatch):
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "only_for_the_model.py").write_text("WORD = 'here'\n")
    monkeypatch.syspath_prepend(str(tmp_path / "of the worker"))
    code = (
        "import only_for_the_model\n"
        "def model_fn(d):\n    return d\n"
        "def transform_fn(model, body, content_type, accept, context):\n"
        "    return repr([model, body, context.object, context.first_record, context.n_records, context.attempt,\n"
        "                 only_for_the_model.WORD, os.environ['NAME'], os.environ['OMP_NUM_THREADS'], sys.argv[1:],\n"
        "                 sys.path[:3], 'ray' in sys.modules, 'pyarrow' in sys.modules])\n"
    )
    model = start(code, environment={"NAME": "é"}, packages=packages)
    said = ask(model, "é".encode(), n_records=3, content_type="application/json").body.decode()
    paths = [str(tmp_path), str(packages), str(tmp_path / "of the worker")]
    assert said == repr([str(tmp_path), "é", "key", 7, 3, 2, "here", "é", "1", [], paths, False, False])


def test_errors_of_the_users_code_travel_with_their_traceback_and_leave_the_process(start):
    code = TRANSFORM + "if body == b'pid':\n        return str(model)\n    return {}[body]\n"
    model = start(code)
    pid = pid_of(model)
    error = failure_of(model)
    assert error.message == "transform_fn raised KeyError: b'x'"
    assert f'inference.py", line {code.count(chr(10)) + 1}, in transform_fn' in error.user_traceback
    assert "rayxform" not in error.user_traceback
    assert [error.ended_process, error.is_out_of_memory, error.is_final] == [False] * 3
    assert pid_of(model) == pid


def test_a_model_that_cannot_be_loaded_says_why(start):
    with pytest.raises(ModelLoadError) as raised:
        start("def model_fn(d):\n    return open(d + '/weights')\n")
    assert "model_fn raised FileNotFoundError" in raised.value.message
    assert 'inference.py", line 3, in model_fn' in raised.value.user_traceback
    with pytest.raises(ModelLoadError, match="ended while it loaded the model: it exited with code 3"):
        start("def model_fn(d):\n    os._exit(3)\n")


ENDINGS = {
    "segfault": ("os.kill(os.getpid(), signal.SIGSEGV)", "it was killed by SIGSEGV", True),
    "a null pointer": ("ctypes.string_at(0)", "it was killed by SIGSEGV", True),
    "abort": ("os.abort()", "it was killed by SIGABRT", True),
    "_exit": ("os._exit(7)", "it exited with code 7", False),
    "the out-of-memory killer": ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL, as the system does where", False),
    "a child that holds on": (
        "os.fork() and os.kill(os.getpid(), signal.SIGKILL) or time.sleep(1000)",
        "killed by SIGKILL",
        False,
    ),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_a_process_that_ends_is_told_with_the_place_and_another_one_answers(start, how):
    code, message, has_stack = ENDINGS[how]
    model = start(TRANSFORM + f"if body == b'pid':\n        return str(model)\n    {code}\n")
    pid = pid_of(model)
    error = failure_of(model)
    assert error.ended_process
    assert message in error.message
    assert ("in transform_fn" in error.user_traceback) == has_stack
    assert "serving.py" not in error.user_traceback
    assert is_gone(pid)
    assert pid_of(model) != pid


def test_it_is_in_the_session_of_its_worker_and_in_a_process_group_of_its_own(start):
    """So that it gives way where its worker does, and can be ended with what it has started."""
    pid = pid_of(start(TRANSFORM + "return str(model)\n"))
    assert (os.getsid(pid), os.getpgid(pid)) == (os.getsid(0), pid)


def test_a_process_that_is_killed_between_two_requests_costs_neither(start):
    model = start(TRANSFORM + "return str(model)\n")
    pids = [pid_of(model)]
    for _ in range(5):
        os.kill(pids[-1], signal.SIGKILL)
        while not is_gone(pids[-1]):  # and asked at once, before a zygote may have told that its child has ended
            pass
        pids.append(pid_of(model))
    assert len(set(pids)) == len(pids)


HANGS = {
    "Python": "time.sleep(1000)",
    "native code that holds the GIL": "ctypes.PyDLL(None).sleep(1000)",
    "a regular expression": "re.match('(a+)+$', 'a' * 64 + 'b')",
    "a loop that catches everything": "spin()",
}
SPIN = (
    "def spin():\n    while True:\n        try:\n            time.sleep(1)\n        except BaseException:\n            pass\n"
)


@pytest.mark.parametrize("where", HANGS)
def test_a_call_that_hangs_is_ended_in_time_with_the_place_where_it_was(start, where):
    code = SPIN + TRANSFORM + f"if body == b'pid':\n        return str(model)\n    {HANGS[where]}\n"
    model = start(code, timeout_s=0.5)
    pid = pid_of(model)
    error = failure_of(model)
    assert error.ended_process
    assert "no answer within InvocationsTimeoutInSeconds = 0.5" in error.message
    assert f'inference.py", line {code.count(chr(10)) + 1} in transform_fn' in error.user_traceback
    assert is_gone(pid)
    assert pid_of(model) != pid


def test_what_it_started_ends_with_it(start):
    model = start(
        TRANSFORM + "if body == b'go':\n        os._exit(1)\n    return str(subprocess.Popen(['sleep', '1000']).pid)\n"
    )
    for end in (lambda: failure_of(model, b"go"), model.close):
        pid = int(ask(model).body)
        end()
        wait_until(partial(is_gone, pid))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing ends a process that does not listen")
def test_it_ends_with_its_worker_however_that_ends_and_prints_where_the_worker_prints(tmp_path):
    (tmp_path / "inference.py").write_text(
        HEAD + TRANSFORM + "print('model', os.getpid())\n    ctypes.PyDLL(None).sleep(1000)\n"
    )
    worker = (
        "from pathlib import Path\nfrom rayxform.model import InvocationContext, ModelProcess\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "model = ModelProcess(folder, folder / 'inference.py', {}, 1, timeout_s=1000)\n"
        "model.transform(b'x', 'a/b', 'a/b', InvocationContext('k', 0, 1, 1, 'a/b', 'a/b', ''))\n"
    )
    with subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE, text=True) as running:
        word, pid = running.stdout.readline().split()
        assert word == "model"
        running.kill()
    wait_until(lambda: is_gone(int(pid)))


MEMORY = {
    "MemoryError": "raise MemoryError",
    "one that was wrapped": "try:\n        bytearray(2**60)\n    except MemoryError as one:\n        raise ValueError from one",
    "one that was replaced": "try:\n        bytearray(2**60)\n    except MemoryError:\n        raise ValueError from None",
    "CUDA": "raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB')",
    "cuBLAS": "raise RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`')",
    "torch's exception": "raise type('OutOfMemoryError', (RuntimeError,), {})('HIP')",
}


@pytest.mark.parametrize("what", MEMORY)
def test_out_of_memory_is_known_as_such_and_not_asked_again_as_it_was(start, what):
    model = start(TRANSFORM + MEMORY[what] + "\n")
    error = failure_of(model, n_records=2)
    assert (error.is_out_of_memory, error.is_final, error.ended_process) == (True, True, False)
    alone = failure_of(model, n_records=1)
    assert (alone.is_out_of_memory, alone.is_final) == (True, False)
    assert "one record alone is too much" in alone.message


def test_what_only_speaks_of_memory_is_no_lack_of_it(start):
    model = start(TRANSFORM + "raise ValueError('CUDA out of memory')\n")
    assert not failure_of(model, n_records=2).is_out_of_memory


def test_a_load_that_does_not_end_is_ended(start, monkeypatch):
    monkeypatch.setattr(process, "LOAD_LIMIT_S", 2)
    with pytest.raises(ModelLoadError) as raised:
        start("def model_fn(d):\n    ctypes.PyDLL(None).sleep(1000)\n")
    assert "not loaded within 2 s" in raised.value.message
    assert 'inference.py", line 3 in model_fn' in raised.value.user_traceback


def test_a_signal_for_the_worker_is_not_held_up_by_a_model_that_hangs(start):
    model = start(TRANSFORM + "return body if body == b'1' else str(ctypes.PyDLL(None).sleep(1000))\n")

    class StoppedError(Exception):
        pass

    def stop(number, frame):
        raise StoppedError

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(StoppedError):
            ask(model)
        assert ask(model, b"1").body == b"1"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_what_the_code_registered_with_atexit_is_called(start, tmp_path):
    """Though the process does not free what it has imported, one by one."""
    code = "import atexit\ndef model_fn(d):\n    atexit.register(open(d + '/ended', 'w').write, 'as asked')\n"
    model = start(code + "def transform_fn(model, body, content_type, accept):\n    return body\n")
    assert ask(model, b"x").body == b"x"
    model.close()
    assert (tmp_path / "ended").read_text() == "as asked"
