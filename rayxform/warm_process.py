"""A process of this machine that imports ahead of need and is forked for who asks at its socket."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path


class WarmProcess:
    """A running one. It ends with this process, which holds the only other end of a pipe that it watches.

    Attributes:
        address: its socket.
    """

    def __init__(
        self, name: str, kind: socket.SocketKind, boot: str, *words: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it; it imports while this process goes on.

        Args:
            name: what its folder's name says.
            kind: the type of its socket.
            boot: its code, which finds in sys.argv this process's sys.path as JSON, the descriptors of the listening socket and
                of the pipe, and the words.
            words: what else it is told; anybody may read it.
            environment: its variables; None for this process's.

        Raises:
            OSError: no folder for its socket, or no process.
        """
        self._folder = Path(tempfile.mkdtemp(prefix=f"rayxform-{name}-"))  # which only this user may enter
        self.address = str(self._folder / "socket")
        listener = socket.socket(socket.AF_UNIX, kind)
        watched, self._held = os.pipe()
        descriptors = (listener.fileno(), watched)
        try:
            listener.bind(self.address)  # refuses a path that is longer than the 108 bytes of ``sun_path``
            listener.listen(64)
            self._process = subprocess.Popen(  # noqa: S603 - this Python, and our own code
                [sys.executable, "-c", boot, json.dumps(sys.path), *map(str, descriptors), *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                pass_fds=descriptors,
            )
        except BaseException:
            os.close(self._held)
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        finally:
            listener.close()
            os.close(watched)

    def end(self) -> None:
        """End it; what it forked ends by itself, or with it, as each of them does."""
        os.close(self._held)
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
