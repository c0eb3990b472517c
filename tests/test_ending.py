"""A process ends at once, and yet as the interpreter would have ended it."""

import subprocess
import sys

import pytest

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
