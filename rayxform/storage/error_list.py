"""``errors.jsonl``: what went wrong in a job, a JSON object a line."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, Generic, TypeVar

import msgspec

from rayxform.errors import StorageError
from rayxform.storage.continuing import read_whole
from rayxform.storage.edge import is_local, open_filesystem, storage_errors
from rayxform.storage.retrying import kind_of, remove_file
from rayxform.storage.tailing import LineTail
from rayxform.storage.writing import GrowingFile, write_whole

REWRITE_S = 10.0
"""How often a list on a store whose objects do not grow is written anew."""


_Entry = TypeVar("_Entry")


class ErrorList:
    """A list that only grows, in the state folder."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._text = b""
        self._written_at = 0.0
        self._written_bytes = 0

    def begin(self, lines: Iterable[bytes]) -> None:
        """Begin with what an earlier run listed and that still holds; without any there is no list yet.

        Raises:
            StorageError: it cannot be written.
        """
        kept = b"".join(lines)
        filesystem, path = open_filesystem(self._url)
        with storage_errors("write", self._url):
            remove_file(filesystem, path)
            if kept:
                write_whole(filesystem, path, [kept], {})
        self._text, self._written_bytes = kept, len(kept)

    def append(self, entry: Any) -> None:
        """Add a line.

        Raises:
            StorageError: it cannot be written.
        """
        line = msgspec.json.encode(entry) + b"\n"
        filesystem, path = open_filesystem(self._url)
        if is_local(filesystem):
            with storage_errors("write", self._url), closing(GrowingFile(path)) as file:
                file.append(line)
            return
        self._text += line
        if time.monotonic() - self._written_at > REWRITE_S:
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet.

        Raises:
            StorageError: it cannot be written.
        """
        if len(self._text) == self._written_bytes:
            return
        filesystem, path = open_filesystem(self._url)
        with storage_errors("write", self._url):
            write_whole(filesystem, path, [self._text], {})
        self._written_at, self._written_bytes = time.monotonic(), len(self._text)


def read_error_list(url: str, kind: type[_Entry]) -> Iterator[tuple[bytes, _Entry]]:
    """The lines of a list and what they say, in order; none where there is no list. A line that was cut short is left out.

    Args:
        url: the list's.
        kind: the msgspec.Struct of its entries.

    Raises:
        StorageError: it cannot be read, or is not such a list.
    """
    filesystem, path = open_filesystem(url)
    with storage_errors("read", url):
        filesystem.invalidate_cache()
        text = b"" if kind_of(filesystem, path) is None else read_whole(filesystem, path)
    for line in text.splitlines(keepends=True):
        if line.endswith(b"\n"):
            try:
                yield line, msgspec.json.decode(line, type=kind)
            except msgspec.MsgspecError as error:
                raise StorageError(f"cannot read {url}: it is no list of errors ({error}); remove it") from None


class ErrorTail(Generic[_Entry]):
    """The list of a job that may go on: each time what is new of it."""

    def __init__(self, url: str, kind: type[_Entry]) -> None:
        """Name a list, and the msgspec.Struct of its entries; nothing is read yet."""
        self._url = url
        self._decoder = msgspec.json.Decoder(kind)
        self._tail = LineTail(url)

    def refresh(self) -> bool:
        """Look for what is new; whether the list was written anew since, so that what was read of it counts no more.

        Raises:
            StorageError: it cannot be read.
        """
        return self._tail.refresh()

    def read(self) -> Iterator[_Entry]:
        """The entries behind those that it gave before, in order, as of the last ``refresh``.

        Raises:
            StorageError: they cannot be read, or are none.
        """
        for line in self._tail.lines():
            try:
                yield self._decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise StorageError(f"cannot read {self._url}: it is no list of errors ({error})") from None
