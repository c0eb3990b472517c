"""A Ray cluster of three nodes on this machine, with its job server, as ``ray start`` makes one: processes of its own."""

import contextlib
import json
import os
import random
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
STORE_BYTES = 80_000_000
"""Each node's object store; Ray takes no less than 75 MiB."""
START_S = 90.0
TRIES = 3


@dataclass(frozen=True)
class RayCluster:
    """Where a cluster is.

    Attributes:
        address: for ``ray.init``.
        job_server: the URL of its job server.
        folder: all nodes' files; each has a temporary folder of its own in there, as machines have.
        programs: the folder that comes first on the nodes' PATH; its ``python`` is what the job server runs.
    """

    address: str
    job_server: str
    folder: Path
    programs: Path


@contextlib.contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """A head and two more nodes, of two CPUs each for Ray; ended, and their files removed, whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="rx-", dir="/tmp"))  # Ray's sockets need short paths
    ports = free_ports(6)
    address, server = f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
    programs = folder / "bin"
    programs.mkdir()
    (programs / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    (programs / "python").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "disabled",  # else a token that another Ray left in the home folder counts
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_prestart_worker_first_driver": "0",
    }
    environment.pop("RAY_ADDRESS", None)
    head = ["--head", "--port", ports[0], "--include-dashboard=true", "--dashboard-host=127.0.0.1"]
    head += ["--dashboard-port", ports[1], "--ray-client-server-port", ports[2]]
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        for number, role in enumerate((head, ["--address", address], ["--address", address])):
            for _ in range(TRIES):
                options = [*role, "--dashboard-agent-listen-port", ports[3 + number]]
                nodes.append(_start(folder, number, options, environment))
                if _is_there(server, nodes[-1], number + 1):
                    break
            else:
                raise AssertionError(f"node {number} did not start: {(folder / f'node{number}.log').read_text()[-2000:]}")
        yield RayCluster(address, server, folder, programs)
    finally:
        end_nodes(nodes, folder)


def end_nodes(nodes: Sequence[subprocess.Popen[bytes]], folder: Path) -> None:
    """End nodes with all that they started, and remove their folder."""
    # At once: a node that is asked to end takes twenty seconds, and nothing of it is needed any more.
    running = {psutil.Process(node.pid) for node in nodes if node.poll() is None}
    running |= {child for one in running for child in one.children(recursive=True)}
    # What a node has left that gave up; only its own processes name the folder.
    running |= {one for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or ())}
    for process in running:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    for node in nodes:
        node.wait(20)
    shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, number: int, options: list[object], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """One node, with a temporary folder and a cache of its own."""
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", *map(str, options), "--block"]
    command += ["--num-cpus=2", f"--object-store-memory={STORE_BYTES}", f"--temp-dir={folder / f'node{number}'}"]
    command += ["--node-ip-address=127.0.0.1"]
    variables = environment | {"RAYXFORM_CACHE": str(folder / f"cache{number}"), "NODE": str(number)}
    with (folder / f"node{number}.log").open("wb") as log:
        return subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True, cwd=folder)


def _is_there(server: str, node: subprocess.Popen[bytes], number: int) -> bool:
    """Wait until so many nodes live; on a machine that is very busy Ray gives up on one after 30 s, which ends it."""
    give_up_at = time.monotonic() + START_S
    while node.poll() is None and time.monotonic() < give_up_at:
        with (
            contextlib.suppress(OSError, ValueError),
            urllib.request.urlopen(f"{server}/nodes?view=summary", timeout=10) as answer,
        ):
            found = json.load(answer)["data"]["summary"]
            if sum(one["raylet"].get("state") == "ALIVE" for one in found) >= number:
                return True
        time.sleep(0.2)
    return False


def free_ports(count: int) -> list[int]:
    """Ports below those that the system, and so Ray itself, gives out by chance."""
    ports: list[int] = []
    while len(ports) < count:
        with contextlib.suppress(OSError):
            socket.create_server(("127.0.0.1", port := random.randrange(20_000, 32_000))).close()
            ports += [port] if port not in ports else []
    return ports
