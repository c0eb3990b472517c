"""Output that appears whole or not at all, and a job's state beside it.

Everything is first written below ``<output>/.rayxform/<job name>/`` and then renamed, which on one disk is atomic
(POSIX rename). Parts are written by many tasks at once, under names that depend on the records alone, so that a part that
is written twice is the same part.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from rayxform.core.naming import DATASET_RECORD, STATE_FOLDER, output_key
from rayxform.errors import OutputRefusedError, StorageError
from rayxform.storage.edge import is_local, open_filesystem, storage_errors

_COPY_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class OutputFolder:
    """A job's output prefix with its state folder.

    Attributes:
        url: S3OutputPath.
        job_name: the job's name, which names its state folder.
    """

    url: str
    job_name: str

    def check(self) -> None:
        """Find out, without writing anything, whether a local output can be written; other stores tell when they are written.

        Raises:
            OutputRefusedError: it cannot.
            StorageError: the protocol is unknown, or its package is not installed.
        """
        filesystem, root = open_filesystem(self.url)
        if not is_local(filesystem):
            return
        place = next(folder for folder in (Path(root), *Path(root).parents) if folder.exists())
        try:
            with storage_errors("write to", self.url):
                if not place.is_dir():
                    raise NotADirectoryError(errno.ENOTDIR, f"{place} is a file")
                if os.statvfs(place).f_flag & os.ST_RDONLY:
                    raise OSError(errno.EROFS, f"{place} is on a read-only file system")
                if not os.access(place, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, f"{place} may not be written by this user")
        except StorageError as error:
            raise OutputRefusedError(f"TransformOutput.S3OutputPath: {error}") from error

    def begin(self) -> None:
        """Make the state folder anew, so that nothing of an earlier run is mixed in; only the record of a data set stays.

        Raises:
            StorageError: the output cannot be written.
        """
        filesystem, root = open_filesystem(self.url)
        state = self._state(root)
        with storage_errors("write to", self.url):
            filesystem.invalidate_cache()
            for old in filesystem.ls(state, detail=False) if filesystem.exists(state) else ():
                if not old.endswith(f"/{DATASET_RECORD}"):
                    filesystem.rm(old, recursive=True)
            filesystem.makedirs(f"{state}/parts", exist_ok=True)

    def write_part(self, name: str, pieces: Iterable[bytes]) -> None:
        """Write a part, piece by piece; the last complete write of a name wins.

        Raises:
            StorageError: it cannot be written; nothing is left of it.
        """
        filesystem, root = open_filesystem(self.url)
        path = f"{self._state(root)}/parts/{name}"
        with storage_errors("write", f"{self.url}/{STATE_FOLDER}/{self.job_name}/parts/{name}"):
            _write_whole(filesystem, path, pieces)

    def publish(self, key: str, parts: Sequence[str]) -> None:
        """Make an input's output appear, whole, from its parts, and remove them.

        Args:
            key: the input's key.
            parts: the names of its parts, in order; none for an empty output.

        Raises:
            StorageError: it cannot be written; the output does not appear.
        """
        filesystem, root = open_filesystem(self.url)
        target = f"{root}/{output_key(key)}"
        paths = [f"{self._state(root)}/parts/{name}" for name in parts]
        with storage_errors("publish", self.output_url(key)):
            filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
            if len(paths) == 1:
                _rename(filesystem, paths[0], target)
                return
            temporary = f"{self._state(root)}/{uuid.uuid4().hex}.publishing"
            _concatenate(filesystem, paths, temporary)
            _rename(filesystem, temporary, target)
            for path in paths:
                filesystem.rm_file(path)

    def withdraw(self, key: str) -> None:
        """Remove the output that an earlier run left of an input, which failed now.

        Raises:
            StorageError: it cannot be removed.
        """
        filesystem, root = open_filesystem(self.url)
        path = f"{root}/{output_key(key)}"
        with storage_errors("remove", self.output_url(key)):
            if filesystem.exists(path):
                filesystem.rm_file(path)

    def append_error(self, entry: object) -> None:
        """Add a line to ``errors.jsonl`` in the state folder.

        Raises:
            StorageError: it cannot be written.
        """
        filesystem, root = open_filesystem(self.url)
        with (
            storage_errors("write", self.errors_url),
            filesystem.open(f"{self._state(root)}/errors.jsonl", "ab") as file,
        ):
            file.write(msgspec.json.encode(entry) + b"\n")

    def end(self) -> None:
        """Remove what only a running job needs: the parts; and the state folder, if nothing else is in it.

        Raises:
            StorageError: something cannot be removed.
        """
        filesystem, root = open_filesystem(self.url)
        state = self._state(root)
        with storage_errors("clean up", self.url):
            if filesystem.exists(f"{state}/parts"):
                filesystem.rm(f"{state}/parts", recursive=True)
            for folder in (state, state.rpartition("/")[0]):
                if filesystem.exists(folder) and not filesystem.ls(folder, detail=False):
                    filesystem.rmdir(folder)

    @property
    def state_url(self) -> str:
        """Where the job's state is."""
        return f"{self.url.rstrip('/')}/{STATE_FOLDER}/{self.job_name}"

    @property
    def errors_url(self) -> str:
        """Where the list of bad records is."""
        return f"{self.state_url}/errors.jsonl"

    def output_url(self, key: str) -> str:
        """Where an input's output appears."""
        return f"{self.url.rstrip('/')}/{output_key(key)}"

    def _state(self, root: str) -> str:
        return f"{root}/{STATE_FOLDER}/{self.job_name}"


def _write_whole(filesystem: Any, path: str, pieces: Iterable[bytes]) -> None:
    filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}"
    try:
        with filesystem.open(temporary, "wb") as file:
            for piece in pieces:
                file.write(piece)
        _rename(filesystem, temporary, path, durable=False)
    except BaseException:
        _remove_quietly(filesystem, temporary)
        raise


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
