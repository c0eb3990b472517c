"""A process ends at once, and yet as the interpreter would have ended it; and what SIGTERM does before."""

import signal
import subprocess
import sys
import threading

import pytest

from rayxform import ending
from rayxform.ending import end_if_interrupted, let_end, own_sigterm, terminable

HEAD = "import atexit, os, sys, threading, time\nfrom concurrent.futures import ThreadPoolExecutor\n"
HEAD += "from rayxform.ending import end_process\n"


def ended(code, **options):
    return subprocess.run([sys.executable, "-c", HEAD + code], text=True, timeout=60, stderr=subprocess.PIPE, **options)


def test_what_python_does_in_the_end_is_done():
    code = """
def later():
    time.sleep(0.3)
    print("a thread", flush=True)
class Freed:
    def __del__(self): print("freed")
kept = Freed()
atexit.register(print, "atexit, first registered")
atexit.register(print, "atexit, last registered", end="")
threading.Thread(target=later).start()
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
ThreadPoolExecutor(1).submit(later)
end_process(7)
"""
    done = ended(code, stdout=subprocess.PIPE)
    printed = "a thread\na thread\natexit, last registeredatexit, first registered\n"
    assert (done.returncode, done.stdout, done.stderr) == (7, printed, "")


@pytest.mark.parametrize(("code", "expected"), [(0, 120), (3, 3)])
def test_output_that_is_lost_is_no_success(code, expected):
    """As CPython has it (Py_FinalizeEx)."""
    assert ended(f"sys.stdout = open('/dev/full', 'w'); print('x'); end_process({code})").returncode == expected


def test_without_streams_it_ends_too():
    assert ended("sys.stdout = sys.stderr = None; end_process(4)").returncode == 4


def test_sigterm_ends_the_main_thread_once_as_ctrl_c_does():
    with terminable():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert signal.raise_signal(signal.SIGTERM) is None  # while it is ending, a second one changes nothing


def test_sigterm_does_not_end_what_ends_by_itself():
    with terminable():
        let_end()
        assert signal.raise_signal(signal.SIGTERM) is None


def test_within_another_context_sigterm_is_that_ones(monkeypatch):
    with terminable():
        with terminable(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert signal.raise_signal(signal.SIGTERM) is None
        monkeypatch.setattr(ending, "TO_END_S", 0.0)
        let_end()
        with pytest.raises(KeyboardInterrupt):  # the first one may have been lost, so that it can be sent again
            signal.raise_signal(signal.SIGTERM)


def test_what_sigterm_raised_and_was_lost_is_raised_where_a_run_can_end(monkeypatch):
    class Deaf:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: lost.append(unraisable.exc_type))
    with terminable():
        end_if_interrupted()  # nothing came yet
        Deaf()
        assert lost == [KeyboardInterrupt]
        with pytest.raises(KeyboardInterrupt):
            end_if_interrupted()


@pytest.mark.parametrize("own", [signal.SIG_IGN, signal.SIG_DFL, lambda number, frame: None])
def test_afterwards_sigterm_does_what_it_did(own):
    before = signal.signal(signal.SIGTERM, own)
    try:
        with terminable():
            assert signal.getsignal(signal.SIGTERM) is not own
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_as_ray_does():
    with own_sigterm():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        signal.raise_signal(signal.SIGTERM)


def test_what_exits_on_sigterm_ends_as_by_ctrl_c_and_does_not_keep_the_signal():
    with terminable():
        with pytest.raises(KeyboardInterrupt):
            exit_as_ray_does()
        assert signal.raise_signal(signal.SIGTERM) is None  # that was the first


@pytest.mark.parametrize("code", [0, 1, signal.SIGTERM])
def test_where_sigterm_is_not_ours_an_exit_stays_one(code):
    with pytest.raises(SystemExit) as ended, own_sigterm():
        sys.exit(code)
    assert ended.value.code == code


def test_in_other_threads_nothing_is_changed():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def look():
        with terminable(), own_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]
