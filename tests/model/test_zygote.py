"""A model's processes, forked of what has imported its libraries. All tests of test_process.py run on such ones, too."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rayxform.model import InvocationContext, ModelProcess
from rayxform.model.zygote import SOCKET_VARIABLE, ModelZygote, imports_ahead

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="zygotes are Linux's")
CONTEXT = InvocationContext("key", 0, 1, 1, "a/b", "a/b", "")
CODE = """
import json, os, random, sys
import numpy
def model_fn(d):
    return [random.random(), numpy.random.random()]
def transform_fn(model, body, content_type, accept):
    oom = open("/proc/self/oom_score_adj").read()
    priority = os.getpriority(os.PRIO_PROCESS, 0)
    streams = [os.readlink(f"/proc/self/fd/{n}") for n in range(3)]
    return json.dumps({
        "parent": os.getppid(), "drawn": model, "colorsys": "colorsys" in sys.modules, "variables": {**os.environ},
        "like its worker": [os.getcwd(), sys.path, sys.argv, oom, priority, streams, __name__]})
"""


@pytest.fixture
def zygote(monkeypatch):
    """One that workers find."""
    zygote = ModelZygote(["numpy", "colorsys"], {"NAME": "value"}, 1)
    monkeypatch.setenv(SOCKET_VARIABLE, zygote.address)
    yield zygote
    if zygote._process.poll() is None:
        zygote.end()


@pytest.fixture
def start(tmp_path):
    """Starts models, and ends them."""
    (tmp_path / "inference.py").write_text(CODE)
    started = []

    def start(environment=None, threads=1, packages=None):
        environment = {"NAME": "value"} if environment is None else environment
        started.append(ModelProcess(tmp_path, tmp_path / "inference.py", environment, threads, packages=packages, timeout_s=30))
        return started[-1]

    yield start
    for model in started:
        model.close()


def told(model):
    return json.loads(model.transform(b"x", "a/b", "a/b", CONTEXT).body)


def test_a_fork_is_as_a_process_that_was_started_would_be_and_draws_numbers_of_its_own(zygote, start, monkeypatch, tmp_path):
    monkeypatch.setenv("OF_THE_WORKER", "alone")
    monkeypatch.syspath_prepend(str(tmp_path / "of the worker"))
    monkeypatch.chdir(tmp_path)
    one, two = told(start()), told(start())
    monkeypatch.delenv(SOCKET_VARIABLE)
    alone = told(start())
    assert [each["parent"] for each in (one, two, alone)] == [zygote._process.pid] * 2 + [os.getpid()]
    assert [each["colorsys"] for each in (one, two, alone)] == [True, True, False]
    for name in ("LINES", "COLUMNS"):  # which readline sets behind Python's back
        alone["variables"].pop(name, None)
    for forked in (one, two):
        assert forked["variables"].pop(SOCKET_VARIABLE) == zygote.address
        assert forked["variables"] == alone["variables"]
        assert forked["like its worker"] == alone["like its worker"]
    assert len({number for each in (one, two, alone) for number in each["drawn"]}) == 6


@pytest.mark.parametrize(
    "other",
    [
        {"environment": {}},
        {"environment": {"NAME": "other"}},
        {"threads": 2},
        {"threads": None},
        {"packages": "folder"},
        {"variables": {"KMP_AFFINITY": "disabled"}},
    ],
    ids=str,
)
def test_what_it_was_not_made_for_is_started(zygote, start, other, tmp_path, monkeypatch):
    """Libraries read some variables when they are imported."""
    if "packages" in other:
        other = {"packages": tmp_path / other["packages"]}
    for name, value in other.pop("variables", {}).items():
        monkeypatch.setenv(name, value)
    assert told(start(**other))["parent"] == os.getpid()


def test_where_it_is_gone_processes_are_started_and_its_own_end_with_it(zygote, start):
    model = start()
    assert told(model)["parent"] == zygote._process.pid
    forked = psutil.Process(zygote._process.pid).children()[0]
    os.kill(zygote._process.pid, signal.SIGKILL)
    psutil.wait_procs([forked], timeout=10)
    assert not forked.is_running() or forked.status() == psutil.STATUS_ZOMBIE
    assert told(model)["parent"] == os.getpid()
    zygote.end()


def test_what_is_secret_in_the_models_environment_is_in_no_command_line(start, monkeypatch):
    zygote = ModelZygote(["colorsys"], {"NAME": "value", "TOKEN": "secret-of-the-model"}, 1)
    monkeypatch.setenv(SOCKET_VARIABLE, zygote.address)
    try:
        forked = told(start(environment={"NAME": "value", "TOKEN": "secret-of-the-model"}))
        assert (forked["parent"], forked["variables"]["TOKEN"]) == (zygote._process.pid, "secret-of-the-model")
        assert not any("secret-of-the-model" in word for word in psutil.Process(zygote._process.pid).cmdline())
    finally:
        zygote.end()


def test_a_worker_on_a_gpu_finds_one_whatever_gpu_it_has(start, monkeypatch):
    """There the number of threads is left to the libraries, and thus to what Ray says to them."""
    zygote = ModelZygote(["colorsys"], {"NAME": "value"}, None)
    monkeypatch.setenv(SOCKET_VARIABLE, zygote.address)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    try:
        assert told(start(threads=None))["parent"] == zygote._process.pid
    finally:
        zygote.end()


def test_it_ends_with_the_driver_however_that_ends_and_leaves_no_folder():
    code = (
        "from rayxform.model.zygote import *; z = ModelZygote([], {}, 1); print(z._process.pid, z.address, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        pid, address = driver.stdout.readline().split()
        driver.kill()
    give_up_at = time.monotonic() + 10
    while psutil.pid_exists(int(pid)) or Path(address).parent.exists():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def test_it_keeps_nothing_of_the_forks_that_have_ended(zygote, start):
    kept = start()

    def descriptors():
        return len(os.listdir(f"/proc/{zygote._process.pid}/fd"))

    before = descriptors()
    for _ in range(5):
        start().close()
    give_up_at = time.monotonic() + 10
    while descriptors() > before or len(psutil.Process(zygote._process.pid).children()) > 1:
        assert time.monotonic() < give_up_at
        time.sleep(0.02)
    assert told(kept)["parent"] == zygote._process.pid


@pytest.mark.parametrize(
    ("code", "beside", "expected"),
    [
        ("import torch", [], ["torch"]),
        ("import torch.nn as nn\nimport json", [], ["torch"]),
        ("from torch import nn\nimport numpy as np", [], ["numpy", "torch"]),
        ("from PIL import Image\nimport torch, numpy", [], ["numpy", "PIL.Image", "torch"]),
        ("import numpy", [], []),
        ("def model_fn(d):\n    import torch", [], []),
        ("import torch, numpy", ["numpy.py"], ["torch"]),
        ("import torch", ["torch"], []),
        ("from .torch import nn", [], []),
    ],
)
def test_what_an_entry_point_imports_at_once_is_imported_ahead_if_it_takes_long(tmp_path, code, beside, expected):
    for name in beside:
        (tmp_path / name).touch()
    (tmp_path / "inference.py").write_text(code)
    assert imports_ahead(tmp_path / "inference.py") == expected


def test_the_default_functions_run_on_torch():
    assert imports_ahead(None) == ["torch"]
