"""A fork server for Ray's workers: one Python imports what each of them needs, and is forked for each.

A worker of Ray Data takes 1.7 s of a core to import Ray, Ray Data, pandas and Arrow, and a job starts some seven of them: the
model workers, the readers, and Ray Data's own helpers. A fork takes 20 ms, and shares 150 MB. This is what Python's
``multiprocessing`` does with its method ``forkserver``; Ray has nothing like it.

It serves the Ray that rayxform starts on this machine. Ray starts a worker by a command that begins with ``sys.executable``;
while Ray starts, that is a launcher, which hands command, environment and standard streams to the server, and is replaced by
the ordinary Python where that cannot be. It also leaves out what a Ray of one machine and one job has no use for. A Ray that
runs already, on a cluster, is left as it is.
"""

from __future__ import annotations

import importlib
import logging
import os
import shlex
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Final, cast

from rayxform.pipeline.fork_server import launch
from rayxform.pipeline.ray_environment import address_of_ray, set_variables
from rayxform.warm_process import WarmProcess

_LAUNCHER: Final = Path(launch.__file__)
_DASHBOARD_LIBRARIES: Final = "ray.dashboard.optional_deps"
"""What Ray imports while it starts, a second's worth, to see whether there could be a dashboard, which we leave out."""

# A process group of its own: an interrupt at the terminal is for the driver.
_BOOT: Final = (
    "import json, os, sys; os.setpgid(0, 0); sys.path[:] = dict.fromkeys(filter(None, sys.path + json.loads(sys.argv[1]))); "
    "from rayxform.pipeline.fork_server.server import main; main(*map(int, sys.argv[2:]))"
)


def _tells_ports_as_ray(folder: Path) -> bool:
    """Whether the launcher tells agents' ports as this release of Ray does."""
    written = []
    try:
        ray = importlib.import_module("ray._raylet")
        node = ray.NodeID.from_random().hex()
        for tell in (ray.persist_port, launch.tell_port):
            with tempfile.TemporaryDirectory(dir=folder) as place:
                for name in (*launch.DASHBOARD_AGENT_PORTS, launch.RUNTIME_ENV_AGENT_PORT):
                    tell(place, node, name, -1)
                written.append({one.name: one.read_bytes() for one in Path(place).iterdir()})
    except (AttributeError, ImportError, TypeError):
        return False
    return written[0] == written[1]


_running: list[ForkServer] = []


@contextmanager
def warming_up(address: str | None) -> Iterator[ForkServer | None]:
    """A server, which imports while the caller does other things, for the Ray that a job will start; it ends with the context.

    Nothing where the job joins a cluster (see ``address_of_ray``) or a Ray that this process is connected to, where processes
    are no Linux's, where no server can be started, or with RAYXFORM_FORK_WORKERS=0. In such a context it is the same one.
    """
    if _running:
        yield _running[-1]
        return
    ray = sys.modules.get("ray")
    has_ray = address_of_ray(address) is not None or (ray is not None and ray.is_initialized())
    server = None
    if not has_ray and sys.platform == "linux" and os.environ.get("RAYXFORM_FORK_WORKERS") != "0":
        set_variables(is_local=True)
        with suppress(OSError):  # Ray's workers then start as they always do
            server = ForkServer()
    try:
        if server:
            _running.append(server)
        yield server
    finally:
        if server:
            _running.remove(server)
            server.end()


class ForkServer(WarmProcess):
    """A running server; its forks end with their raylet."""

    def __init__(self) -> None:
        """Start it; it imports while this process goes on.

        Raises:
            OSError: no folder for its socket, or no process.
        """
        super().__init__("fork", socket.SOCK_STREAM, _BOOT)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Let a Ray that starts meanwhile, in this process, start its processes by the launcher, now and later on."""
        launcher = self._folder / "python"
        words = [sys.executable, "-I", "-S", str(_LAUNCHER), self.address, sys.executable]
        command = shlex.join([*words, "1" if _tells_ports_as_ray(self._folder) else "0"])
        launcher.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        launcher.chmod(0o700)
        services, python = logging.getLogger("ray._private.services"), sys.executable
        level = services.level
        services.setLevel(logging.CRITICAL)  # else it says that it could not start what the launcher leaves out
        sys.executable = str(launcher)
        dashboards = sys.modules.get(_DASHBOARD_LIBRARIES)
        cast("dict[str, ModuleType | None]", sys.modules)[_DASHBOARD_LIBRARIES] = None  # so that its import fails
        try:
            yield
        finally:
            sys.executable = python
            services.setLevel(level)
            del sys.modules[_DASHBOARD_LIBRARIES]
            if isinstance(dashboards, ModuleType):
                sys.modules[_DASHBOARD_LIBRARIES] = dashboards
