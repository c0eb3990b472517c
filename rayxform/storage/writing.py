"""Objects that appear whole or not at all, on whatever store: by rename on a disk, by a request's end on S3."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rayxform.core.naming import is_growing
from rayxform.storage import s3
from rayxform.storage.edge import is_local
from rayxform.storage.growing import COPY_BYTES, complete, copy_file, forget
from rayxform.storage.retrying import check_length, make_folders, remove_file, retry

_TAIL_BYTES = 64 * 1024


class GrowingFile:
    """A file of this machine that grows by whole lines, whatever keeps one from being written."""

    def __init__(self, path: str) -> None:
        """Nothing is opened before the first line."""
        self._path = Path(path)
        self._file: io.FileIO | None = None
        self._end = 0

    def append(self, line: bytes) -> None:
        """Write a line behind the last whole one: what was left of one that was cut short is written over.

        Args:
            line: it ends with a newline.

        Raises:
            OSError: it cannot be written.
        """
        retry(lambda: self._append_once(line))

    def close(self) -> None:
        """No more is written."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _append_once(self, line: bytes) -> None:
        if self._file is None:
            self._file = io.FileIO(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+")
            self._end = _end_of_lines(self._file)
        self._file.truncate(self._end)
        self._file.seek(self._end)
        rest = memoryview(line)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._end += len(line)


def _end_of_lines(file: io.FileIO) -> int:
    """Where the last whole line of a file ends."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(end - _TAIL_BYTES, 0)
        newline = os.pread(file.fileno(), end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0


def make_folder(filesystem: Any, path: str) -> None:
    """Make a folder where there are folders; on S3 this would make a bucket that does not exist."""
    if not s3.is_s3(filesystem):
        make_folders(filesystem, path)


def write_whole(filesystem: Any, path: str, pieces: Sequence[bytes], encrypted: s3.Encryption) -> None:
    """Write an object piece by piece; the last complete write of a name wins, and of a failed one nothing is left."""
    if s3.is_s3(filesystem):
        s3.put(filesystem, path, b"".join(pieces), encrypted)
        return
    make_folder(filesystem, path.rpartition("/")[0])
    try:
        retry(lambda: _write_once(filesystem, path, pieces))
    except FileNotFoundError:
        # A block that ran twice, and just when it had been written its file was published (see ``_remove_emptied``).
        make_folder(filesystem, path.rpartition("/")[0])
        retry(lambda: _write_once(filesystem, path, pieces))


def _write_once(filesystem: Any, path: str, pieces: Sequence[bytes]) -> None:
    temporary = f"{path}.{uuid.uuid4().hex}"
    try:
        with filesystem.open(temporary, "wb") as file:
            for piece in pieces:
                file.write(piece)
        rename(filesystem, temporary, path, sum(map(len, pieces)), durable=False)
    except BaseException:
        _remove_quietly(filesystem, temporary)
        raise


def join_whole(filesystem: Any, parts: Sequence[tuple[str, int]], target: str, scratch: str, encrypted: s3.Encryption) -> None:
    """Make an object of others, in order. On a disk they are gone then; elsewhere they stay, since what is moved is copied.

    Args:
        filesystem: their file system, and the object's.
        parts: path and size in bytes of each.
        target: the object's path.
        scratch: a prefix of paths that may be used on the way.
        encrypted: how it is encrypted.
    """
    if s3.is_s3(filesystem):
        sources = [s3.Stored(path, 0, n_bytes) for path, n_bytes in parts]
        s3.compose(filesystem, sources, target, scratch, encrypted)
        return
    make_folder(filesystem, target.rpartition("/")[0])
    if not is_local(filesystem):
        _put_together(filesystem, parts, target, f"{scratch}.publishing")
        return
    left = parts[1:]
    first, first_bytes = parts[0] if parts else ("", 0)
    if is_growing(first):
        n_bytes = sum(size for _, size in parts)
        complete(first, first_bytes, left, lambda: rename(filesystem, first, target, n_bytes))
    elif len(parts) == 1:
        rename(filesystem, first, target, first_bytes)
    else:
        _put_together(filesystem, parts, target, f"{scratch}.publishing")
        left = parts
    for path, _ in left:
        # The output is there; what is left goes with the parts' folder, or that cannot be removed and is told then.
        with contextlib.suppress(OSError):
            remove_file(filesystem, path)
    _remove_emptied(parts)


def _put_together(filesystem: Any, parts: Sequence[tuple[str, int]], target: str, temporary: str) -> None:
    retry(lambda: _concatenate(filesystem, parts, temporary))
    try:
        rename(filesystem, temporary, target, sum(n_bytes for _, n_bytes in parts))
    except BaseException:
        _remove_quietly(filesystem, temporary)
        raise


def _remove_emptied(parts: Sequence[tuple[str, int]]) -> None:
    """The folders that held parts of one output alone; a million of them take minutes to remove at the end."""
    for folder in {Path(path).parent for path, _ in parts}:
        with contextlib.suppress(OSError):  # another part is there, or is just being written
            forget(folder)
            folder.rmdir()


def rename(filesystem: Any, source: str, target: str, n_bytes: int, *, durable: bool = True) -> None:
    """Give a file another name.

    Args:
        filesystem: its file system.
        source: its name.
        target: its new name.
        n_bytes: how long it is, by which a rename is known that was done although its answer was lost.
        durable: whether its bytes are on the disk before its name is.

    Raises:
        OSError: it cannot be renamed.
    """
    attempts = 0

    def move() -> None:
        nonlocal attempts
        attempts += 1
        try:
            _move(filesystem, source, target, durable=durable)
        except FileNotFoundError:
            if attempts == 1 or filesystem.info(target)["size"] != n_bytes:
                raise

    retry(move)


def _concatenate(filesystem: Any, parts: Sequence[tuple[str, int]], target: str) -> None:
    if len(parts) == 1:
        filesystem.cp_file(parts[0][0], target)  # which a store does on its side
        return
    try:
        with filesystem.open(target, "wb") as whole:
            for path, n_bytes in parts:
                check_length(path, n_bytes, _copy(filesystem, path, whole))
    except BaseException:
        _remove_quietly(filesystem, target)
        raise


def _copy(filesystem: Any, path: str, whole: Any) -> int:
    if is_local(filesystem):
        return copy_file(path, whole)
    before: int = whole.tell()
    with filesystem.open(path, "rb") as part:
        shutil.copyfileobj(part, whole, COPY_BYTES)
    copied: int = whole.tell() - before
    return copied


def _move(filesystem: Any, source: str, target: str, *, durable: bool) -> None:
    if not is_local(filesystem):
        filesystem.mv(source, target)
        return
    if durable:
        # Without this a power failure could leave the name of the output with none of its bytes.
        with Path(source).open("rb") as file:
            os.fsync(file.fileno())
    Path(source).replace(target)


def _remove_quietly(filesystem: Any, path: str) -> None:
    """Clean up after an error, which is what has to be told, whatever becomes of the cleaning."""
    with contextlib.suppress(Exception):
        filesystem.rm_file(path)
