"""Bytes of objects, by range and in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rayxform.errors import StorageError
from rayxform.storage.decompressing import Compression, damage_errors, decompressed
from rayxform.storage.edge import is_local, open_filesystem, storage_errors
from rayxform.storage.objects import InputObject, object_version

CHUNK_BYTES = 4 * 1024 * 1024


def read_chunks(source: InputObject, begin: int = 0, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """An object's bytes from ``begin`` to its end, as far as they are asked for.

    Args:
        source: the object, as it was listed.
        begin: the first byte; of a compressed object, which has no ranges, always 0.
        chunk_bytes: the most bytes of one chunk.

    Raises:
        StorageError: it cannot be read, or is no longer what was listed.
    """
    filesystem, path = open_filesystem(source.url)
    with storage_errors("read", source.url):
        filesystem.invalidate_cache()
        info = filesystem.info(path)
        if int(info["size"]) != source.size or object_version(info) != source.version:
            raise StorageError(
                f"{source.url} changed after the job had begun (it had {source.size} bytes, now {info['size']}); "
                "run the job again when nothing writes to it"
            )
        with filesystem.open(path, "rb", block_size=chunk_bytes) as file:
            if source.compression is None:
                yield from _plain_chunks(file, source, begin, chunk_bytes)
            else:
                yield from _decompressed_chunks(file, source.url, source.compression, chunk_bytes)


def _plain_chunks(file: Any, source: InputObject, begin: int, chunk_bytes: int) -> Iterator[bytes]:
    left = source.size - begin
    file.seek(begin)
    while left > 0:
        chunk = file.read(min(chunk_bytes, left))
        if not chunk:
            raise StorageError(f"{source.url} ended {left} bytes early; run the job again when nothing writes to it")
        left -= len(chunk)
        yield chunk


def _decompressed_chunks(file: Any, url: str, compression: Compression, chunk_bytes: int) -> Iterator[bytes]:
    with damage_errors(url, compression):
        content = decompressed(file, compression)
        while chunk := content.read(chunk_bytes):
            yield bytes(chunk)


def read_text(url: str) -> str:
    """A small text object, such as a job file.

    Raises:
        StorageError: it cannot be read, or is not UTF-8.
    """
    filesystem, path = open_filesystem(url)
    with storage_errors("read", url):
        data: bytes = filesystem.cat_file(path)
        return data.decode()


def local_copy(url: str, folder: Path) -> Path | None:
    """A file or folder of this machine with what ``url`` names; fetched into ``folder`` if it is elsewhere.

    Args:
        url: an object or a prefix.
        folder: where a copy goes; created when needed.

    Returns:
        The path, or None if nothing is there.

    Raises:
        StorageError: it cannot be fetched.
    """
    filesystem, path = open_filesystem(url)
    with storage_errors("fetch", url):
        if not filesystem.exists(path):
            return None
        if is_local(filesystem):
            return Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / path.rpartition("/")[2]
        filesystem.get(path, str(target), recursive=bool(filesystem.isdir(path)))
        return target
