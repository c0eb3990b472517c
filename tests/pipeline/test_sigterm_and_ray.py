"""What SIGTERM does to a process does not depend on whether Ray's core has taken it over, or has given it to the system."""

import os
import subprocess
import sys

SCRIPT = """
import os, ray, signal
from rayxform.ending import terminable
from rayxform.pipeline.cluster import ray_session

def terminated_before(function):
    def both(*arguments, **named):
        print("SIGTERM", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        return function(*arguments, **named)
    return both

core, state = ray._raylet, ray._private.state.state
core.GcsErrorSubscriber = terminated_before(core.GcsErrorSubscriber)  # what ray.init calls when it has made its core
state.disconnect = terminated_before(state.disconnect)  # what ray.shutdown calls when it has ended its core
with terminable():
    try:
        with ray_session(None):
            print("not reached")
    except KeyboardInterrupt:
        print("stopped", ray.is_initialized(), "will be aborted in", signal.getitimer(signal.ITIMER_REAL)[0], flush=True)
del state.disconnect
"""


def test_sigterm_stops_a_process_whose_ray_starts_and_not_one_whose_ray_ends():
    known = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ended = subprocess.run([sys.executable, "-c", SCRIPT], env=known, capture_output=True, text=True, timeout=120)
    said = "SIGTERM\nSIGTERM\nstopped False will be aborted in 0.0\n"
    assert (ended.returncode, ended.stdout) == (0, said), ended.stderr
