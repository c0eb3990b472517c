"""Lines grouped by a name, more of them than memory should hold: what is too much goes to a temporary file of this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO

from rayxform.storage.edge import storage_errors

_LINE_BYTES = 64
"""What a line takes beside its bytes, in a list of Python's."""


class GroupedLines:
    """Takes lines in any order of groups, gives them group by group; in a group they stay in their order.

    The temporary file holds each group's lines in runs, of which only the places are kept in memory. It has no name, so
    nothing is left of it whatever becomes of the process.
    """

    def __init__(self, max_bytes: int) -> None:
        """Begin without lines.

        Args:
            max_bytes: how much memory lines may take before they go to the file.
        """
        self._max_bytes = max_bytes
        self._held: dict[bytes, list[bytes]] = {}
        self._held_bytes = 0
        self._runs: dict[bytes, list[tuple[int, int]]] = {}
        self._file: IO[bytes] | None = None

    def close(self) -> None:
        """Remove the temporary file."""
        if self._file is not None:
            self._file.close()

    def add(self, group: bytes, line: bytes) -> None:
        """Take a line, which has no newline in it.

        Raises:
            StorageError: the temporary file cannot be written.
        """
        self._held.setdefault(group, []).append(line)
        self._held_bytes += len(line) + _LINE_BYTES
        if self._held_bytes > self._max_bytes:
            self._spill()

    def groups(self) -> list[bytes]:
        """Every group, in the order of their first lines."""
        return list(dict.fromkeys([*self._runs, *self._held]))

    def lines(self, group: bytes) -> Iterator[bytes]:
        """A group's lines, in the order in which they were added.

        Raises:
            StorageError: the temporary file cannot be read.
        """
        for begin, size in self._runs.get(group, ()):
            if self._file is None:
                raise AssertionError("a run is in a file")
            with storage_errors("read", tempfile.gettempdir()):
                self._file.seek(begin)
                yield from self._file.read(size).split(b"\n")
        yield from self._held.get(group, ())

    def _spill(self) -> None:
        """Write what is held to the file, a run a group."""
        with storage_errors("write a temporary file in", tempfile.gettempdir()):
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="rayxform-")  # noqa: SIM115 - closed by close
            at = self._file.seek(0, 2)
            for group, lines in self._held.items():
                run = b"\n".join(lines)
                self._file.write(run)
                self._runs.setdefault(group, []).append((at, len(run)))
                at += len(run)
        self._held, self._held_bytes = {}, 0
