"""Objects of lines that grow while they are read again and again: each time only what is new of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from rayxform.storage.continuing import ResumingFile
from rayxform.storage.edge import open_filesystem, storage_errors
from rayxform.storage.retrying import info_of, kind_of

_HEAD_BYTES = 256
"""How much of an object's beginning tells whether it is still the same one: its first lines have times in them."""


class LineTail:
    """The lines of an object, each given once; an object that was written anew is read from its beginning again."""

    def __init__(self, url: str) -> None:
        """Nothing is read yet."""
        self._url = url
        self._head = b""
        self._size = 0
        self._at = 0

    def refresh(self) -> bool:
        """See how long the object is by now.

        Returns:
            Whether it is another one than before, so that the lines that it gave count no more.

        Raises:
            StorageError: it cannot be read.
        """
        filesystem, path = open_filesystem(self._url)
        with storage_errors("read", self._url):
            filesystem.invalidate_cache()
            is_there = kind_of(filesystem, path) is not None
            self._size = int(info_of(filesystem, path)["size"]) if is_there else 0
            with closing(ResumingFile(filesystem, path, self._size)) as file:
                head = file.read(_HEAD_BYTES) if self._size and (self._at or not self._head) else self._head
        is_anew = self._size < self._at or not head.startswith(self._head)
        if is_anew:
            self._at = 0
        self._head = head
        return is_anew

    def lines(self) -> Iterator[bytes]:
        """The whole lines behind those that it gave before, without their newlines, as of the last ``refresh``.

        Raises:
            StorageError: they cannot be read.
        """
        if self._at >= self._size:
            return
        filesystem, path = open_filesystem(self._url)
        with (
            storage_errors("read", self._url),
            closing(ResumingFile(filesystem, path, self._size, self._at)) as file,
        ):
            for line in file.lines():
                self._at += len(line) + 1
                yield line
