"""Bytes of objects, by range and in chunks; from a store that takes its time to answer, several requests at once."""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

from rayxform.cache import keep
from rayxform.errors import StorageError
from rayxform.storage import s3
from rayxform.storage.continuing import ResumingFile, read_whole
from rayxform.storage.decompressing import damage_errors, decompressed
from rayxform.storage.edge import is_local, open_filesystem, storage_errors
from rayxform.storage.objects import InputObject, object_version
from rayxform.storage.retrying import BrokenOffError, find_below, info_of, kind_of, retry

CHUNK_BYTES = 4 * 1024 * 1024
CHUNKS_AT_ONCE = 4
"""Chunks of one object that are fetched at once."""

BEHIND_BYTES = 256 * 1024
"""How much is fetched at a time of what follows a reader's range: mostly the rest of one record."""

OBJECTS_AT_ONCE = 32
"""Small objects that are fetched at once, of CHUNK_BYTES or less each,"""
AHEAD_BYTES = CHUNKS_AT_ONCE * CHUNK_BYTES
"""and how many bytes they may have together."""


class ObjectReader:
    """Reads objects one after another; small ones that are to come it fetches ahead, unless they are on this machine.

    Args:
        upcoming: the objects in the order in which they will be read; others may be read too.
    """

    def __init__(self, upcoming: Iterable[InputObject] = ()) -> None:
        self._upcoming = (one for one in upcoming if one.size <= CHUNK_BYTES and not _is_on_disk(one))
        self._fetched: dict[str, Future[bytes]] = {}
        self._order: deque[InputObject] = deque()
        self._pool: ThreadPoolExecutor | None = None

    def chunks(
        self, source: InputObject, begin: int = 0, end: int | None = None, chunk_bytes: int = CHUNK_BYTES
    ) -> Iterator[bytes]:
        """An object's bytes from ``begin`` to its end, as far as they are asked for.

        Args:
            source: the object, as it was listed.
            begin: the first byte; of a compressed object, which has no ranges, always 0.
            end: the byte behind the last that will surely be asked for; None for the object's end.
            chunk_bytes: the most bytes of one chunk.

        Raises:
            StorageError: it cannot be read, or is no longer what was listed.
        """
        stored = self._take(source)
        raw = iter([stored[begin:]]) if stored is not None else _stored_chunks(source, begin, end, chunk_bytes)
        return _decompressed_chunks(raw, source, chunk_bytes) if source.compression else raw

    def _take(self, source: InputObject) -> bytes | None:
        """A small object's bytes, if they were fetched ahead; meanwhile others are fetched."""
        room = AHEAD_BYTES - sum(one.size for one in self._order)
        while room > 0 and len(self._order) < OBJECTS_AT_ONCE and (one := next(self._upcoming, None)):
            self._pool = self._pool or ThreadPoolExecutor(OBJECTS_AT_ONCE)
            self._fetched[one.url] = self._pool.submit(_stored_whole, one)
            self._order.append(one)
            room -= one.size
        if source.url not in self._fetched:
            return None
        while self._order[0] is not source:  # it was passed over
            self._fetched.pop(self._order.popleft().url, None)
        self._order.popleft()
        return self._fetched.pop(source.url).result()


def read_chunks(source: InputObject, begin: int = 0, end: int | None = None, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """One object's bytes; see ``ObjectReader.chunks``."""
    return ObjectReader().chunks(source, begin, end, chunk_bytes)


def _is_on_disk(source: InputObject) -> bool:
    return is_local(open_filesystem(source.url)[0])


def _stored_whole(source: InputObject) -> bytes:
    return b"".join(_stored_chunks(source, 0, None, CHUNK_BYTES))


def _stored_chunks(source: InputObject, begin: int, end: int | None, chunk_bytes: int) -> Iterator[bytes]:
    filesystem, path = open_filesystem(source.url)
    with storage_errors("read", source.url):
        if s3.is_s3(filesystem):
            yield from _s3_chunks(filesystem, path, source, begin, end, chunk_bytes)
            return
        file = ResumingFile(filesystem, path, source.size, begin, lambda: _check_unchanged(filesystem, path, source))
        with closing(file):
            while chunk := file.read(chunk_bytes):
                yield chunk


def _check_unchanged(filesystem: Any, path: str, source: InputObject) -> None:
    filesystem.invalidate_cache()
    info = filesystem.info(path)
    if int(info["size"]) != source.size or object_version(info) != source.version:
        raise StorageError(
            f"{source.url} changed after the job had begun (it had {source.size} bytes, now {info['size']}); "
            "run the job again when nothing writes to it"
        )


def _s3_chunks(
    filesystem: Any, path: str, source: InputObject, begin: int, end: int | None, chunk_bytes: int
) -> Iterator[bytes]:
    """Ranges of an object, of the listed version or not at all: several at once as far as ``end``, then one by one."""
    end = source.size if end is None else min(end, source.size)
    spans = [(at, min(at + chunk_bytes, end)) for at in range(begin, end, chunk_bytes)]
    if len(spans) > 1:
        with ThreadPoolExecutor(CHUNKS_AT_ONCE) as pool:
            under_way: deque[Future[bytes]] = deque()
            try:
                for span in spans:
                    under_way.append(pool.submit(s3.get_range, filesystem, path, *span, source.version))
                    if len(under_way) == CHUNKS_AT_ONCE:
                        yield under_way.popleft().result()
                while under_way:
                    yield under_way.popleft().result()
            finally:
                for one in under_way:
                    one.cancel()
    elif spans:
        yield s3.get_range(filesystem, path, *spans[0], source.version)
    step = min(BEHIND_BYTES, chunk_bytes)
    for at in count(max(end, begin), step):
        if at >= source.size:
            return
        yield s3.get_range(filesystem, path, at, min(at + step, source.size), source.version)


class _RawStream(io.RawIOBase):
    """Chunks as a file that is read from its beginning to its end."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        n_bytes = min(len(self._rest), len(buffer))
        buffer[:n_bytes] = self._rest[:n_bytes]
        self._rest = self._rest[n_bytes:]
        return n_bytes


def _decompressed_chunks(raw: Iterator[bytes], source: InputObject, chunk_bytes: int) -> Iterator[bytes]:
    if source.compression is None:
        raise AssertionError("only a compressed object is decompressed")
    with damage_errors(source.url, source.compression):
        content = decompressed(io.BufferedReader(_RawStream(raw)), source.compression)
        while chunk := content.read(chunk_bytes):
            yield bytes(chunk)


def read_text(url: str) -> str:
    """A small text object, such as a job file.

    Raises:
        StorageError: it cannot be read, or is not UTF-8.
    """
    filesystem, path = open_filesystem(url)
    with storage_errors("read", url):
        return read_whole(filesystem, path).decode()


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
        if is_local(filesystem):
            return Path(path) if Path(path).exists() else None
        names = [path] if kind_of(filesystem, path) == "file" else sorted(find_below(filesystem, path))
        return _fetched(filesystem, path, names, folder) if names else None


def _fetched(filesystem: Any, path: str, names: Sequence[str], folder: Path) -> Path:
    """Objects as files in a folder of their versions, which one process of a machine fetches, once."""
    versions = "".join(object_version(info_of(filesystem, name)) + name for name in names)
    target = folder / hashlib.sha256(versions.encode()).hexdigest()[:32]

    def fetch_all(place: Path) -> None:
        for name in names:
            file = place / (name.removeprefix(path).strip("/") or path.rpartition("/")[2])
            file.parent.mkdir(parents=True, exist_ok=True)
            _fetch(filesystem, name, file)

    keep(target, fetch_all)
    return target / path.rpartition("/")[2] if names == [path] else target


def _fetch(filesystem: Any, name: str, place: Path) -> None:
    """An object as a file, all of it."""

    def fetch() -> None:
        filesystem.get_file(name, str(place))
        missing = 0 if s3.is_s3(filesystem) else (filesystem.info(name)["size"] or 0) - place.stat().st_size
        if missing > 0:
            raise BrokenOffError(name, missing)

    retry(fetch)
