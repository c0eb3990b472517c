"""A file to oneself, among the processes of a machine: the system lets go of it when its holder ends, however that comes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
"""What a file system says that has no locks, as some that others serve."""


@contextlib.contextmanager
def locked(
    path: Path, flags: int = os.O_RDWR | os.O_CREAT, mode: int = 0o666, *, waits: bool = True, needs_locks: bool = True
) -> Iterator[int]:
    """Have a file alone for as long as the context lasts: the one of that name, and none that was removed meanwhile.

    Args:
        path: the file.
        flags: how it is opened.
        mode: its rights where it is made.
        waits: whether to wait for who has it.
        needs_locks: whether it is an error that its file system has no locks; else it is not locked there.

    Yields:
        Its descriptor.

    Raises:
        BlockingIOError: it cannot be had without waiting.
        OSError: it cannot be opened, or (``NO_LOCKS``) not be locked.
    """
    while True:
        descriptor = os.open(path, flags | os.O_CLOEXEC, mode)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            except OSError as error:
                if needs_locks or error.errno not in NO_LOCKS:
                    raise
            if _is_still(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the file that was opened is still there under its name; who waited for it may find it removed."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
