"""A zygote of model processes: one Python imports what a model's code imports, and is forked for each process of the model.

``import torch`` takes 2 to 3 s of a core, and each worker's model needs it; a fork takes 50 ms, and shares 300 MB. The zygote
imports while Ray starts. It has neither run the user's code nor computed anything, so a fork is what a process would be that
had imported the same: torch starts no thread, and does not touch a GPU, before it is used.

The driver holds a ``ModelZygote``. A worker on the same machine finds its socket in an environment variable and asks for a
``ForkedProcess``, which is to it what a ``subprocess.Popen`` is. Where there is none, or it was not made for what is asked, a
worker starts a process of its own, as everywhere else.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from rayxform.model.zygote.messages import STATUS, Birth, place_of, with_model_variables
from rayxform.variables import variable_set
from rayxform.warm_process import WarmProcess

SOCKET_VARIABLE: Final = "RAYXFORM_MODEL_ZYGOTE"

IMPORTED: Final = ("numpy", "PIL.Image", "cv2", "torch", "torchvision")
"""What may be imported ahead of the user's code; of each it is known that its import starts no thread that forks would miss."""
_WORTHWHILE: Final = "torch"
_REFUSAL: Final = STATUS.pack(0)
_ANSWER_LIMIT_S: Final = 60.0
"""How long a worker waits for a zygote that still imports, before it starts a process itself."""

_OF_WORKERS: Final = {"OMP_NUM_THREADS": "1"}
"""What Ray's workers have, where it is not set: as many as their whole CPUs, and one at the least."""

_BOOT: Final = (
    "import json, os, sys; os.setpgid(0, 0); sys.path[:] = json.loads(sys.argv[1]); words = sys.argv[2:]; del sys.argv[1:]; "
    "from rayxform.model.zygote.process import main; main(*words)"
)


def imports_ahead(entry_point: Path | None) -> list[str]:
    """Which of the libraries in ``IMPORTED`` an entry point imports when it is imported; none where torch is not among them.

    Args:
        entry_point: the entry point's file; None for the default functions, which run TorchScript.
    """
    if entry_point is None:
        return [_WORTHWHILE]
    tree = ast.parse(entry_point.read_bytes())
    named = {alias.name.partition(".")[0] for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    named |= {
        (node.module or "").partition(".")[0] for node in tree.body if isinstance(node, ast.ImportFrom) and not node.level
    }
    beside = {path.stem for path in entry_point.parent.iterdir()}
    found = [name for name in IMPORTED if (top := name.partition(".")[0]) in named - beside and importlib.util.find_spec(top)]
    return found if _WORTHWHILE in found else []


class ModelZygote(WarmProcess):
    """A running zygote; its forks end with it."""

    def __init__(self, imports: Sequence[str], environment: Mapping[str, str], threads: int | None) -> None:
        """Start it; it imports while this process goes on.

        Args:
            imports: the modules.
            environment: what the model's process gets in addition to this process's variables.
            threads: how many threads it computes with; None leaves it to the libraries.

        Raises:
            OSError: no folder for its socket, or no process, or a system or a Python that is too old.
        """
        if not hasattr(os, "pidfd_open"):
            raise OSError("this Python was built for a Linux before 5.3, and a zygote could not see how its forks end")
        os.close(os.pidfd_open(os.getpid()))
        here = {**_OF_WORKERS, **os.environ}
        words = (json.dumps(imports), place_of(here, threads, environment))
        variables = with_model_variables(here, threads, environment)
        super().__init__("zygote", socket.SOCK_SEQPACKET, _BOOT, *words, environment=variables)


@contextlib.contextmanager
def serving_zygote(zygote: ModelZygote | None) -> Iterator[None]:
    """Let the workers of a Ray that starts meanwhile find a zygote, and end it."""
    if zygote is None:
        yield
        return
    try:
        with variable_set(SOCKET_VARIABLE, zygote.address):
            yield
    finally:
        zygote.end()


def _check_born(pid: int, address: str) -> None:
    if not pid:
        raise ConnectionRefusedError(f"the zygote at {address} was not made for this process, or has ended")


class ForkedProcess:
    """A process that a zygote forked for this one, with what of ``subprocess.Popen`` a worker uses.

    Attributes:
        pid: its process id, which is its process group's as well.
        returncode: as ``Popen`` has it.
    """

    def __init__(self, address: str, birth: Birth, descriptors: Sequence[int]) -> None:
        """Ask for it.

        Args:
            address: the zygote's socket.
            birth: what it is to be.
            descriptors: those that it gets: what ``serving.main`` takes, then standard output and standard error.

        Raises:
            OSError: there is no zygote, or not one for this.
        """
        self.returncode: int | None = None
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._connection.settimeout(_ANSWER_LIMIT_S)
            self._connection.connect(address)
            socket.send_fds(self._connection, [birth.encoded()], list(descriptors))
            self.pid: int = STATUS.unpack(self._connection.recv(STATUS.size) or _REFUSAL)[0]
            _check_born(self.pid, address)
        except BaseException:
            self._connection.close()
            raise

    def poll(self) -> int | None:
        """Its exit code if it has ended, as ``Popen`` has it, or None."""
        return self._take(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it goes on for so many seconds.
        """
        code = self._take(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it goes on: its number stays its own until the zygote has told of its end."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def _take(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                told = self._connection.recv(STATUS.size)
            except (BlockingIOError, TimeoutError):
                return None
            except OSError:
                told = b""
            self.returncode = STATUS.unpack(told)[0] if told else -signal.SIGKILL  # a zygote that is gone took its forks along
            self._connection.close()
        return self.returncode
