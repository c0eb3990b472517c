"""``errors.jsonl``: what went wrong in a job, a JSON object a line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from rayxform.storage.edge import is_local, open_filesystem, storage_errors
from rayxform.storage.retrying import retry
from rayxform.storage.writing import write_whole

REWRITE_S = 10.0
"""How often a list on a store whose objects do not grow is written anew."""


class ErrorList:
    """A list that only grows, in the state folder."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._end: int | None = None
        self._text = b""
        self._written_at = 0.0
        self._written_bytes = 0

    def append(self, entry: Any) -> None:
        """Add a line.

        Raises:
            StorageError: it cannot be written.
        """
        line = msgspec.json.encode(entry) + b"\n"
        filesystem, path = open_filesystem(self._url)
        if is_local(filesystem):
            with storage_errors("write", self._url):
                retry(lambda: self._append_to_file(path, line))
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

    def _append_to_file(self, path: str, line: bytes) -> None:
        """Write behind the last whole line, so that what an attempt left that failed half-way is written over."""
        with Path(path).open("ab") as file:
            if self._end is None:
                self._end = file.tell()
            file.truncate(self._end)
            file.write(line)
        self._end += len(line)
