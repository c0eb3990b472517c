"""input_fn on the next request while predict_fn works on this one: who declares it gains, and nobody is blamed for another."""

import os
from contextlib import closing

import pytest

from rayxform.errors import InvocationError
from rayxform.model import InvocationContext, ModelProcess

# What input_fn and predict_fn of two requests did, in order, goes to a file: "a begins" is written before a waits.
CODE = """
import os, signal, threading, time
INPUT_FN_RUNS_AHEAD = {ahead}
log = open(os.environ["LOG"], "a", buffering=1)
main = threading.get_ident()
def model_fn(folder): return None
def input_fn(body, content_type, context):
    log.write(f"input {{body.decode()}} {{'here' if threading.get_ident() == main else 'aside'}}\\n")
    if body == b"bad": raise ValueError("cannot read " + context.object)
    if body == b"kill": time.sleep(0.3); os.kill(os.getpid(), signal.SIGKILL)
    return body
def predict_fn(data, model):
    log.write(f"predict {{data.decode()}}\\n")
    if os.environ.get("SLOW"):
        give_up = time.monotonic() + 5  # until input_fn has begun with the next, if it ever does
        while time.monotonic() < give_up and "input next" not in open(os.environ["LOG"]).read(): time.sleep(0.01)
    if data == b"kill in predict": os.kill(os.getpid(), signal.SIGKILL)
    if data == b"slow": time.sleep(1)
    return data
def output_fn(prediction, accept): return b"answer to " + prediction
"""


@pytest.fixture
def start(tmp_path):
    """Starts a model whose entry point says that input_fn runs ahead, or does not."""
    models = []

    def start(*, ahead=True, timeout_s=30.0, **environment):
        entry_point = tmp_path / "inference.py"
        entry_point.write_text(CODE.format(ahead=ahead))
        variables = {"LOG": str(tmp_path / "log"), **environment}
        models.append(ModelProcess(tmp_path, entry_point, variables, 1, timeout_s=timeout_s))
        return models[-1]

    yield start
    for model in models:
        model.close()


def context_of(name):
    return InvocationContext(name, 0, 1, 1, "a/b", "a/b", "")


def ask(model, body, following=None):
    if following is not None:
        model.run_ahead(following, "a/b", context_of(f"object of {following.decode()}"))
    return model.transform(body, "a/b", "a/b", context_of(f"object of {body.decode()}")).body


def log_of(folder):
    return (folder / "log").read_text().splitlines()


def test_the_next_input_is_read_meanwhile(start, tmp_path):
    model = start(SLOW="1")
    assert ask(model, b"this", b"next") == b"answer to this"
    assert ask(model, b"next", b"last") == b"answer to next"
    assert ask(model, b"last") == b"answer to last"
    log = log_of(tmp_path)
    assert set(log[:3]) == {"input this here", "input next aside", "predict this"}
    assert sorted(log[3:]) == ["input last aside", "predict last", "predict next"]


def test_without_the_declaration_nothing_runs_ahead(start, tmp_path):
    model = start(ahead=False)
    assert ask(model, b"this", b"next") == b"answer to this"
    assert ask(model, b"next") == b"answer to next"
    assert log_of(tmp_path) == ["input this here", "predict this", "input next here", "predict next"]


def test_what_fails_ahead_fails_its_own_request_alone(start):
    model = start()
    assert ask(model, b"this", b"bad") == b"answer to this"
    with pytest.raises(InvocationError, match="input_fn raised ValueError: cannot read object of bad") as caught:
        ask(model, b"bad", b"next")
    assert "in input_fn" in caught.value.user_traceback
    assert ask(model, b"next") == b"answer to next"


@pytest.mark.parametrize("first", [b"slow", b"kill in predict"])
def test_a_crash_is_the_fault_of_who_crashes_alone(start, first):
    """The process ends at one request while the input of another is read: each is then asked by itself."""
    model = start()
    if first == b"slow":  # it is still computed when the next one's input_fn ends the process
        assert ask(model, first, b"kill") == b"answer to slow"
        guilty = b"kill"
    else:
        guilty = first
    with pytest.raises(InvocationError) as caught:
        ask(model, guilty, b"next")
    assert caught.value.ended_process
    assert ask(model, b"next") == b"answer to next"


def test_a_request_that_never_comes_is_forgotten(start):
    """A mini-batch that is cut because memory is short is not asked as it was told of."""
    model = start()
    for number in range(5):
        assert ask(model, f"{number}".encode(), f"never {number}".encode()) == f"answer to {number}".encode()
    assert len(model._ahead) <= 2


def test_bodies_come_whole_however_long(start):
    with closing(start()) as model:
        bodies = [os.urandom(size).hex().encode() for size in (1, 3_000_000, 7, 100_000)]
        for body, following in zip(bodies, [*bodies[1:], None], strict=True):
            assert ask(model, body, following) == b"answer to " + body
