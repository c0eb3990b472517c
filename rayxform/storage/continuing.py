"""Bytes of objects through fsspec, from the byte on at which an earlier attempt broke off."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rayxform.storage import s3
from rayxform.storage.retrying import BrokenOffError, retry

_BLOCK_BYTES = 4 * 1024 * 1024


class ResumingFile:
    """An object that is read from ``begin`` to its end; after an error that may pass it is opened again, where it was."""

    def __init__(self, filesystem: Any, path: str, size: int, begin: int = 0, check: Callable[[], None] | None = None) -> None:
        """Nothing is opened yet.

        Args:
            filesystem: its file system.
            path: the object's path.
            size: how long it is.
            begin: the first byte that is read.
            check: raises if the object is no longer what it was; called before each time that it is opened.
        """
        self._filesystem = filesystem
        self._path = path
        self._size = size
        self._at = begin
        self._check = check
        self._file: Any = None

    def close(self) -> None:
        """No more is read."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # what was read has been read
                file.close()

    def lines(self) -> Iterator[bytes]:
        """Its lines, without their newlines; a last one that has none is left out. It is read in large pieces.

        Raises:
            OSError: it cannot be read, or always ends early.
            StorageError: it has changed.
        """
        rest = b""
        while chunk := self.read(_BLOCK_BYTES):
            lines = (rest + chunk).split(b"\n") if b"\n" in chunk else [rest + chunk]
            rest = lines.pop()
            yield from lines

    def read(self, n_bytes: int) -> bytes:
        """The next bytes, at most so many; none at the object's end.

        Raises:
            OSError: it cannot be read, or always ends early.
            StorageError: it has changed.
        """
        wanted = min(n_bytes, self._size - self._at)
        data = retry(lambda: self._try_to_read(wanted)) if wanted > 0 or self._file is None else b""
        self._at += len(data)
        return data

    def _try_to_read(self, n_bytes: int) -> bytes:
        try:
            if self._file is None:
                self._open()
            data: bytes = self._file.read(n_bytes) if n_bytes > 0 else b""
        except BaseException:
            self.close()
            raise
        if n_bytes > 0 and not data:
            self.close()
            raise BrokenOffError(self._path, self._size - self._at)
        return data

    def _open(self) -> None:
        if self._check is not None:
            self._check()
        self._file = self._filesystem.open(self._path, "rb", block_size=_BLOCK_BYTES)
        self._file.seek(self._at)


def read_whole(filesystem: Any, path: str) -> bytes:
    """The bytes of a small object, all of them.

    Raises:
        OSError: it cannot be read.
    """

    def read() -> bytes:
        data: bytes = filesystem.cat_file(path)
        # Over HTTP an answer tells how long it is; a file system may give less and say nothing.
        missing = 0 if s3.is_s3(filesystem) else (filesystem.info(path)["size"] or 0) - len(data)
        if missing > 0:
            raise BrokenOffError(path, missing)
        return data

    return retry(read)
