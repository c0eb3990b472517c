"""The zygote's own process."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from rayxform.model.zygote.messages import STATUS, Birth
from rayxform.priority import give_way

_DESCRIPTORS: Final = 6
"""How many come with a request: four for ``serving.main``, standard output and standard error."""
_MOST_BYTES: Final = 1 << 20


def main(listener_fd: str, watched_fd: str, imports: str, place: str) -> None:
    """Import, then fork for each worker that asks, until the other end of the watched pipe is closed."""
    names = json.loads(imports)
    importing = threading.Thread(target=_import, args=(["rayxform.model.serving", *names],))
    importing.start()
    importing.join()
    gc.collect()
    gc.freeze()  # else the first collection of each fork would copy every page
    fork = _Zygote(int(listener_fd), int(watched_fd), place if names else None).serve()
    if fork is not None:
        fork.live()


def _import(names: list[str]) -> None:
    """Import, and let those go first that are needed before: Ray, and what its workers are forked from."""
    give_way()
    for name in names:
        with contextlib.suppress(Exception):  # who needs it will see what is wrong with it
            importlib.import_module(name)


@dataclass(frozen=True)
class _Fork:
    """A fork, in its own process."""

    birth: Birth
    descriptors: list[int]
    zygote: int

    def live(self) -> None:
        """Be the process that a worker would have started."""
        os.setpgid(0, 0)
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, self.birth.niceness)
            Path("/proc/self/oom_score_adj").write_text(self.birth.oom_score)
        *ours, out, err = self.descriptors
        for place, number in ((1, out), (2, err)):
            os.dup2(number, place)
            os.close(number)
        os.environb.clear()
        os.environb.update(self.birth.variables)
        os.chdir(self.birth.folder)
        sys.path[:] = self.birth.sys_path
        if (numpy := sys.modules.get("numpy")) is not None:
            numpy.random.seed()  # which was drawn when it was imported, once for all forks
        importlib.import_module("rayxform.model.serving").main(self.zygote, *ours)


class _Zygote:
    """Forks for whoever connects, tells how each fork ended, and ends the forks of those who go away."""

    def __init__(self, listener_fd: int, watched_fd: int, place: str | None) -> None:
        """Serve those of a place; None for all, where nothing was imported that depends on it."""
        self._listener = socket.socket(fileno=listener_fd)
        self._watched_fd = watched_fd
        self._place = place
        self._folder = Path(self._listener.getsockname()).parent
        self._selector = selectors.DefaultSelector()
        self._children: dict[socket.socket, tuple[int, int]] = {}
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(watched_fd, selectors.EVENT_READ, self._leave)

    def serve(self) -> _Fork | None:
        """Go on until the driver is gone; comes back in each fork, with what it is to be."""
        while True:
            for key, _ in self._selector.select():
                fork: _Fork | None = key.data(key.fileobj)
                if fork is not None:
                    return fork

    def _leave(self, _: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)  # which a driver that was killed has left
        os._exit(0)  # the system ends the forks

    def _accept(self, _: object) -> None:
        connection, _address = self._listener.accept()
        self._selector.register(connection, selectors.EVENT_READ, self._hear)

    def _hear(self, connection: socket.socket) -> _Fork | None:
        """A worker asks for a fork, or has gone, or has been told of its fork's end and closed."""
        message, descriptors = b"", list[int]()
        with contextlib.suppress(OSError):
            message, descriptors, _, _ = socket.recv_fds(connection, _MOST_BYTES, _DESCRIPTORS)
        if not message or connection in self._children:
            self._forget(connection)
            return None
        try:
            birth = msgspec.msgpack.decode(message, type=Birth)
            if self._place in {None, birth.place} and len(descriptors) == _DESCRIPTORS:
                return self._fork(connection, birth, descriptors)
            connection.send(STATUS.pack(0))
        except (OSError, msgspec.MsgspecError):
            pass
        finally:
            for number in descriptors:
                with contextlib.suppress(OSError):
                    os.close(number)
        self._forget(connection)
        return None

    def _fork(self, connection: socket.socket, birth: Birth, descriptors: list[int]) -> _Fork | None:
        kept = [os.dup(number) for number in descriptors]
        zygote, pid = os.getpid(), os.fork()
        if pid == 0:
            self._close()
            return _Fork(birth, kept, zygote)
        for number in kept:
            os.close(number)
        watched = os.pidfd_open(pid)
        self._children[connection] = pid, watched
        self._selector.register(watched, selectors.EVENT_READ, lambda _: self._tell(connection))
        with contextlib.suppress(OSError):  # its worker has gone meanwhile, which is seen next
            connection.send(STATUS.pack(pid))
        return None

    def _close(self) -> None:
        """Let go, in a fork, of what is the zygote's."""
        for connection, (_, watched) in self._children.items():
            os.close(watched)
            connection.close()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        os.close(self._watched_fd)

    def _tell(self, connection: socket.socket) -> None:
        """A fork has ended. It stays a zombie until its worker closes, so that its number is not given to another process."""
        pid, watched = self._children[connection]
        self._selector.unregister(watched)
        ended: Any = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        with contextlib.suppress(OSError):
            connection.send(STATUS.pack(code))

    def _forget(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()
        if connection not in self._children:
            return
        pid, watched = self._children.pop(connection)
        with contextlib.suppress(KeyError):
            self._selector.unregister(watched)
        os.close(watched)
        for end in (os.kill, os.killpg):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                end(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
