"""Model servers for tests: real processes that follow a script (tests/servers/scripted.py)."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import psutil

SERVERS = Path(__file__).parent / "servers"
SCRIPTED = f"{sys.executable} {SERVERS / 'scripted.py'}"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def seen(url):
    """What the server counted."""
    with urllib.request.urlopen(f"{url}/seen", timeout=10) as answer:
        return json.load(answer)


@contextmanager
def running(**script):
    """A server that runs already; its URL."""
    port = free_port()
    environment = {**os.environ, "SCRIPT": json.dumps(script)}
    command = [sys.executable, str(SERVERS / "scripted.py"), str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        give_up_at = time.monotonic() + 20
        while time.monotonic() < give_up_at:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def wait_for(condition):
    give_up_at = time.monotonic() + 20
    while not condition() and time.monotonic() < give_up_at:
        time.sleep(0.05)
    return condition()


def processes_with(text):
    """The processes whose command line holds a text, zombies left out."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        if text in (process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.info["pid"])
    return found


def interrupt(command, is_running):
    """Start a command and send it Ctrl-C as soon as ``is_running``; what became of it."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(is_running)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
