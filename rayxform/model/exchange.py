"""What a worker and the process of its model say to each other, and the memory through which bodies go.

Control messages are small and go through a socket. Bodies go through a file in memory: one copy in and one out, whatever
their size, and no chunks that wait for the other side.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from typing import Final, TypeVar

import msgspec

from rayxform.model.context import InvocationContext
from rayxform.model.runtime import Arithmetic

KEPT_BYTES: Final = 64 * 1024 * 1024
"""How much memory is kept from one body to the next; what a longer one took is given back."""

READ_AT_ONCE: Final = 2
"""Requests that came ahead and were not asked yet: the one that is asked next, and the one after it."""

_FIRST_BYTES: Final = 64 * 1024

Message = TypeVar("Message", bound=msgspec.Struct)
_ENCODER: Final = msgspec.msgpack.Encoder()


class Start(msgspec.Struct, tag=True):
    """The worker's first message: what ``Handler.load`` takes, and a folder that comes first on sys.path, or None.

    With ``reads_input`` the process is there for input_fn alone.
    """

    model_dir: str
    entry_point: str | None
    environment: dict[str, str]
    threads: int | None
    packages: str | None
    arithmetic: Arithmetic
    reads_input: bool = False


class Ahead(msgspec.Struct, tag=True):
    """A request that is to come, whose input may be read now; its body is in the file for such ones. There is no reply."""

    number: int
    n_bytes: int
    content_type: str
    context: InvocationContext


class Call(msgspec.Struct, tag=True):
    """A request; its body is in the file, unless it came ahead under a number. It may be what input_fn made of it elsewhere."""

    n_bytes: int
    content_type: str
    accept: str
    context: InvocationContext
    ahead: int | None = None
    is_staged: bool = False


class Ready(msgspec.Struct, tag=True):
    """The model is loaded."""

    warnings: tuple[str, ...]
    runs_ahead: bool


class Answered(msgspec.Struct, tag=True):
    """The response; its body is in the file. Warnings are those that came up since the last answer."""

    n_bytes: int
    content_type: str
    warnings: tuple[str, ...] = ()


class Failed(msgspec.Struct, tag=True):
    """The user's code raised, on being loaded or asked."""

    message: str
    user_traceback: str
    is_out_of_memory: bool = False


Expected = TypeVar("Expected", Ready, Answered)


def encode(message: msgspec.Struct) -> bytes:
    """A message as it travels."""
    return _ENCODER.encode(message)


def decode(data: bytes, kind: type[Message]) -> Message:
    """A message of a kind."""
    return msgspec.msgpack.decode(data, type=kind)


def decode_request(data: bytes) -> Ahead | Call:
    """What the worker says after its first message."""
    request: Ahead | Call = msgspec.msgpack.decode(data, type=Ahead | Call)
    return request


def decode_reply(data: bytes, kind: type[Expected]) -> Expected | Failed:
    """A reply that is of a kind, or says what failed."""
    reply: Expected | Failed = msgspec.msgpack.decode(data, type=kind | Failed)
    return reply


class MemoryFile:
    """A file without a name, in memory where the system has such files; a process that inherits it sees the same bytes.

    Either side writes it when the other has read it.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._view: mmap.mmap | None = None

    @classmethod
    def create(cls) -> MemoryFile:
        """An empty one."""
        if sys.platform == "linux":
            return cls(os.memfd_create("rayxform"))
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    def write(self, data: bytes | memoryview) -> None:
        """Put bytes at its beginning.

        Raises:
            OSError: there is no room for them.
        """
        self._mapped(len(data))[: len(data)] = data
        if len(data) > KEPT_BYTES:
            self._view = None

    def read(self, n_bytes: int) -> bytes:
        """Take the bytes at its beginning; what a long body took is given back to the system."""
        data = self._mapped(n_bytes)[:n_bytes]
        if n_bytes > KEPT_BYTES:
            self._view = None
            os.ftruncate(self.descriptor, 0)
        return data

    def text(self) -> str:
        """All that is in it, where it was written as a file."""
        return os.pread(self.descriptor, os.fstat(self.descriptor).st_size, 0).decode("utf-8", "replace")

    def close(self) -> None:
        """Let go of it in this process."""
        self._view = None
        os.close(self.descriptor)

    def _mapped(self, n_bytes: int) -> mmap.mmap:
        """Its memory, grown where it is too small."""
        if self._view is None or len(self._view) < n_bytes:
            size = os.fstat(self.descriptor).st_size
            if size < max(n_bytes, 1):
                size = max(n_bytes, _FIRST_BYTES)
                if sys.platform == "linux":
                    os.posix_fallocate(self.descriptor, 0, size)  # else a page that is not to be had were a SIGBUS
                else:
                    os.ftruncate(self.descriptor, size)
            self._view = mmap.mmap(self.descriptor, size)
        return self._view
