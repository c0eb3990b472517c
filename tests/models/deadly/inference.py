"""Answers each record with its length, notes every request in a file, and does to its process what a record says."""

import ctypes
import json
import os
import signal

DEEDS = {
    b"segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    b"exit": lambda: os._exit(7),
    b"hang": lambda: ctypes.PyDLL(None).sleep(1000),  # and holds the GIL
    b"raise": lambda: 1 / 0,
}


def model_fn(model_dir):
    return os.environ["REQUESTS"]


def transform_fn(folder, body, content_type, accept, context):
    with open(os.path.join(folder, "log"), "a") as file:
        file.write(json.dumps([context.object, context.first_record, context.n_records, context.attempt]) + "\n")
    for word, act in DEEDS.items():
        if b'"' + word + b'"' in body:
            act()
    # Whoever takes the file away has the process killed, once, as a neighbour who needs memory would.
    if b'"victim"' in body and os.path.exists(os.path.join(folder, "kill once")):
        os.unlink(os.path.join(folder, "kill once"))
        os.kill(os.getpid(), signal.SIGKILL)
    return "\n".join(str(len(line)) for line in body.split(b"\n"))
