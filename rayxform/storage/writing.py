"""Objects that appear whole or not at all, on whatever store: by rename on a disk, by a request's end on S3."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rayxform.storage import s3
from rayxform.storage.edge import is_local

_COPY_BYTES = 8 * 1024 * 1024


def make_folder(filesystem: Any, path: str) -> None:
    """Make a folder where there are folders; on S3 this would make a bucket that does not exist."""
    if not s3.is_s3(filesystem):
        filesystem.makedirs(path, exist_ok=True)


def write_whole(filesystem: Any, path: str, pieces: Iterable[bytes], encrypted: s3.Encryption) -> None:
    """Write an object piece by piece; the last complete write of a name wins, and of a failed one nothing is left."""
    if s3.is_s3(filesystem):
        s3.put(filesystem, path, b"".join(pieces), encrypted)
        return
    make_folder(filesystem, path.rpartition("/")[0])
    temporary = f"{path}.{uuid.uuid4().hex}"
    try:
        with filesystem.open(temporary, "wb") as file:
            for piece in pieces:
                file.write(piece)
        _rename(filesystem, temporary, path, durable=False)
    except BaseException:
        _remove_quietly(filesystem, temporary)
        raise


def join_whole(filesystem: Any, parts: Sequence[tuple[str, int]], target: str, scratch: str, encrypted: s3.Encryption) -> None:
    """Make an object of others, in order; on a disk they are gone then.

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
    paths = [path for path, _ in parts]
    if len(paths) == 1:
        _rename(filesystem, paths[0], target)
        return
    temporary = f"{scratch}.publishing"
    _concatenate(filesystem, paths, temporary)
    _rename(filesystem, temporary, target)
    for path in paths:
        filesystem.rm_file(path)


def _concatenate(filesystem: Any, paths: Sequence[str], target: str) -> None:
    try:
        with filesystem.open(target, "wb") as whole:
            for path in paths:
                with filesystem.open(path, "rb") as part:
                    _copy(filesystem, part, whole)
    except BaseException:
        _remove_quietly(filesystem, target)
        raise


def _copy(filesystem: Any, part: Any, whole: Any) -> None:
    if not is_local(filesystem):
        shutil.copyfileobj(part, whole, _COPY_BYTES)
        return
    # Within the kernel, which spares a copy to this process and back.
    at = 0
    while copied := os.sendfile(whole.fileno(), part.fileno(), at, _COPY_BYTES):
        at += copied


def _rename(filesystem: Any, source: str, target: str, *, durable: bool = True) -> None:
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
