"""An output on this machine's disk that grows in place: parts that come in the order of their records go to its end at once.

An output that is put together of parts is written twice, which for a fast model is a good part of all there is to do. So where
all workers are on one machine, each appends its part itself if all records before are there, or are just being written. What
comes out of turn becomes a part of its own, and is appended when the output is published.

Beside the output lies its *end*: how many of its records and bytes count. It is written after the bytes, so what an append
that was cut short has left is written over by the next one. A lock on it lets in one at a time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from rayxform.core.batching import MIB
from rayxform.core.naming import END_SUFFIX, GROWING, growing_name
from rayxform.errors import StorageError
from rayxform.locking import NO_LOCKS, locked
from rayxform.storage.edge import storage_errors
from rayxform.storage.retrying import check_length, retry

WAIT_S: Final = 0.05
"""How long a part waits for the one before it, which mostly is being written; copying it later takes about as long."""

_LOOK_S: Final = 0.001

NEAR_BYTES: Final = 64 * MIB
"""How much may be missing before a part for it to wait: what workers have in hand; more is missing where others read, too."""

_REMEMBERED: Final = 1000
"""Outputs of which a worker knows that it waited for them in vain."""

COPY_BYTES: Final = 8 * MIB
"""How much is copied at a time."""

_END: Final = struct.Struct("<qq")


class Appender:
    """Appends parts to the outputs of a folder; one for each worker, whose threads share it."""

    def __init__(self, url: str, folder: str) -> None:
        """Take the folder in which outputs grow, and its URL, which errors name."""
        self._url = url
        self._folder = Path(folder)
        self._waited_at: dict[str, int] = {}

    def append(self, file: int, first_record: int, n_records: int, pieces: Sequence[bytes]) -> int | StorageError | None:
        """Append a part to its output, if all records before it are there, or come within WAIT_S.

        Args:
            file: the input's index in the plan.
            first_record: the part's first record, from 0.
            n_records: how many records it holds.
            pieces: its bytes.

        Returns:
            How long the output is with it; what kept it from being written, and what was of it does not count; or None if it
            was not its turn, or nothing can be locked there: then it has to be a part of its own.
        """
        name = growing_name(file)
        try:
            with storage_errors("write", f"{self._url}/{name}"):
                return retry(lambda: self._append_in_turn(name, first_record, n_records, pieces))
        except StorageError as error:
            return error

    def _append_in_turn(self, name: str, first_record: int, n_records: int, pieces: Sequence[bytes]) -> int | None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        near_records = n_records * NEAR_BYTES // max(sum(map(len, pieces)), 1)
        give_up_at = time.monotonic() + WAIT_S
        while True:
            try:
                with locked(_end_of(path)) as end:
                    records, n_bytes = _read(end)
                    if records == first_record:
                        return _append(path, end, n_bytes, first_record + n_records, pieces)
            except OSError as error:
                if error.errno in NO_LOCKS:
                    return None
                raise
            is_near = 0 < first_record - records <= near_records
            if not is_near or self._waited_at.get(name) == records:
                return None
            if time.monotonic() >= give_up_at:
                if len(self._waited_at) >= _REMEMBERED:
                    self._waited_at.clear()
                self._waited_at[name] = records  # in vain, so the next one does not
                return None
            time.sleep(_LOOK_S)


def written(path: str) -> tuple[int, int]:
    """How many records and bytes of an output count; none if it was published, or is not there."""
    try:
        records, n_bytes = _END.unpack(_end_of(Path(path)).read_bytes())
        return (records, n_bytes) if Path(path).stat().st_size >= n_bytes else (0, 0)
    except (FileNotFoundError, struct.error):
        return 0, 0


def complete(path: str, n_bytes: int, parts: Sequence[tuple[str, int]], give_name: Callable[[], None]) -> None:
    """Make an output whole and give it its name, while nobody else appends to it.

    Args:
        path: the output's.
        n_bytes: how much of it counts.
        parts: path and size in bytes of each part that did not come in turn, in order.
        give_name: moves the output to where it appears.

    Raises:
        OSError: it cannot be written or moved, or something is shorter than it should be.
    """
    end = _end_of(Path(path))
    with locked(end):
        retry(lambda: _extend(path, n_bytes, parts))
        give_name()
        # Last, so that an end without its output tells that this has its name. Else it goes with the folder of parts.
        with contextlib.suppress(OSError):
            end.unlink()


def forget(folder: Path) -> None:
    """Remove what is left of an output that never grew, as no part came in turn.

    Args:
        folder: where its parts are.

    Raises:
        OSError: it cannot be removed.
    """
    _end_of(folder / GROWING).unlink(missing_ok=True)


def copy_file(source: str, target: BinaryIO) -> int:
    """Copy a file to where another one stands; within the kernel where it can, which spares a copy to this process and back.

    Returns:
        How many bytes it was.
    """
    with open(source, "rb", buffering=0) as file:  # noqa: PTH123 - unbuffered
        if sys.platform != "linux":  # elsewhere sendfile takes sockets alone
            begin = target.tell()
            shutil.copyfileobj(file, target, COPY_BYTES)
            return target.tell() - begin
        at = 0
        while copied := os.sendfile(target.fileno(), file.fileno(), at, COPY_BYTES):
            at += copied
        return at


def _end_of(path: Path) -> Path:
    return path.with_name(path.name + END_SUFFIX)


def _read(end: int) -> tuple[int, int]:
    text = os.pread(end, _END.size, 0)
    records, n_bytes = _END.unpack(text) if text else (0, 0)
    return records, n_bytes


def _extend(path: str, n_bytes: int, parts: Sequence[tuple[str, int]]) -> None:
    """Append parts to what counts of an output; what was behind that is gone."""
    with open(path, "r+b", buffering=0) as whole:  # noqa: PTH123 - unbuffered
        check_length(path, n_bytes, min(os.fstat(whole.fileno()).st_size, n_bytes))
        whole.truncate(n_bytes)
        whole.seek(n_bytes)
        for name, part_bytes in parts:
            check_length(name, part_bytes, copy_file(name, whole))


def _append(path: Path, end: int, n_bytes: int, n_records: int, pieces: Sequence[bytes]) -> int | None:
    try:
        output = os.open(path, os.O_WRONLY | os.O_CLOEXEC | (0 if n_bytes else os.O_CREAT), 0o666)
    except FileNotFoundError:  # it was published, and what comes now ran twice
        return None
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                written_bytes = os.pwrite(output, rest, n_bytes)
                n_bytes += written_bytes
                rest = rest[written_bytes:]
    finally:
        os.close(output)
    os.pwrite(end, _END.pack(n_records, n_bytes), 0)
    return n_bytes
