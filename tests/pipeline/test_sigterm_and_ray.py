"""What SIGTERM does to a process does not depend on whether Ray is forking, has taken SIGTERM, or has given it back."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import logging, os, ray, signal, sys, threading
from rayxform.ending import terminable
from rayxform.pipeline.cluster import ray_session

def terminate():
    print("SIGTERM", flush=True)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)

def terminated_before(function):
    def both(*arguments, **named):
        terminate()
        return function(*arguments, **named)
    return both

core, state = ray._raylet, ray._private.state.state
if sys.argv[1] == "fork":
    once = [terminate]
    os.register_at_fork(after_in_parent=lambda: once and once.pop()())  # called while logging's lock is held
else:
    core.GcsErrorSubscriber = terminated_before(core.GcsErrorSubscriber)  # what ray.init calls when it has made its core
state.disconnect = terminated_before(state.disconnect)  # what ray.shutdown calls when it has ended its core
with terminable():
    try:
        with ray_session(None):
            print("not reached")
    except KeyboardInterrupt:
        print("stopped", ray.is_initialized(), "will be aborted in", signal.getitimer(signal.ITIMER_REAL)[0], flush=True)
del state.disconnect
logging.getLogger("one more")
"""


@pytest.mark.parametrize("moment", ["fork", "core"])
def test_sigterm_stops_a_process_whose_ray_starts_and_not_one_whose_ray_ends(moment):
    known = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ended = subprocess.run([sys.executable, "-c", SCRIPT, moment], env=known, capture_output=True, text=True, timeout=60)
    said = "SIGTERM\nSIGTERM\nstopped False will be aborted in 0.0\n"
    assert (ended.returncode, ended.stdout) == (0, said), ended.stderr
