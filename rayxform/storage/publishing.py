"""Output that appears whole or not at all, and a job's state beside it.

Everything is first written below ``<output>/.rayxform/<job name>/`` and then renamed, which on one disk is atomic
(POSIX rename), or put together there by S3. Parts are written by many tasks at once, under names that depend on the
records alone, so that a part that is written twice is the same part.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayxform.core.naming import STATE_FOLDER, output_key
from rayxform.errors import OutputRefusedError, StorageError
from rayxform.storage import s3
from rayxform.storage.edge import is_local, open_filesystem, storage_errors
from rayxform.storage.growing import Appender
from rayxform.storage.retrying import kind_of, remove_file
from rayxform.storage.writing import join_whole, write_whole

REQUESTS_AT_ONCE = 32
"""Small objects that are written or published at once to a store that takes its time to answer."""


@dataclass(frozen=True)
class OutputFolder:
    """A job's output prefix with its state folder.

    Attributes:
        url: S3OutputPath.
        job_name: the job's name, which names its state folder.
        kms_key_id: the key that encrypts what is written to S3 (TransformOutput.KmsKeyId), or None.
    """

    url: str
    job_name: str
    kms_key_id: str | None = None

    def check(self) -> None:
        """Find out, without writing anything, whether a disk can be written or a bucket is there.

        Raises:
            OutputRefusedError: it cannot, or is not.
            StorageError: the protocol is unknown, or its package is not installed.
        """
        filesystem, root = open_filesystem(self.url)
        try:
            with storage_errors("write to", self.url):
                if is_local(filesystem):
                    _check_disk(root)
                elif s3.is_s3(filesystem):
                    _check_bucket(filesystem, root.partition("/")[0])
        except StorageError as error:
            raise OutputRefusedError(f"TransformOutput.S3OutputPath: {error}") from error

    def write_parts(self, parts: Sequence[tuple[str, Sequence[bytes]]]) -> list[StorageError | None]:
        """Write parts, each piece by piece; the last complete write of a name wins.

        Args:
            parts: name and pieces of each.

        Returns:
            For each part what kept it from being written, of which nothing is left then, or None.
        """
        at_once = 1 if len(parts) == 1 or is_local(open_filesystem(self.url)[0]) else REQUESTS_AT_ONCE
        if at_once == 1:
            return [self._write_part(*part) for part in parts]
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda part: self._write_part(*part), parts))

    def _write_part(self, name: str, pieces: Sequence[bytes]) -> StorageError | None:
        filesystem, root = open_filesystem(self.url)
        try:
            with storage_errors("write", f"{self.state_url}/parts/{name}"):
                write_whole(filesystem, f"{self._state(root)}/parts/{name}", pieces, self.encryption)
        except StorageError as error:
            return error
        return None

    def appender(self) -> Appender | None:
        """What appends parts to outputs that grow in place; None where outputs cannot, but on a disk."""
        filesystem, root = open_filesystem(self.url)
        return Appender(f"{self.state_url}/parts", f"{self._state(root)}/parts") if is_local(filesystem) else None

    @property
    def publishers(self) -> int:
        """How many outputs to publish at once; each mostly waits for its store."""
        return 4 if is_local(open_filesystem(self.url)[0]) else REQUESTS_AT_ONCE

    @property
    def keeps_parts(self) -> bool:
        """Whether the parts of an output are still there when it was published."""
        return not is_local(open_filesystem(self.url)[0])

    def publish(self, key: str, parts: Sequence[tuple[str, int]]) -> None:
        """Make an input's output appear, whole, from its parts.

        Args:
            key: the input's key.
            parts: name and size in bytes of each of its parts, in order; none for an empty output. The first may be the output
                as far as it has grown in place.

        Raises:
            StorageError: it cannot be written; the output does not appear.
        """
        filesystem, root = open_filesystem(self.url)
        folder = f"{self._state(root)}/parts"
        with storage_errors("publish", self.output_url(key)):
            paths = [(f"{folder}/{name}", n_bytes) for name, n_bytes in parts]
            scratch = f"{folder}/{uuid.uuid4().hex}"
            join_whole(filesystem, paths, f"{root}/{output_key(key)}", scratch, self.encryption)

    def withdraw(self, key: str) -> None:
        """Remove the output that an earlier run left of an input, which failed now.

        Raises:
            StorageError: it cannot be removed.
        """
        filesystem, root = open_filesystem(self.url)
        path = f"{root}/{output_key(key)}"
        with storage_errors("remove", self.output_url(key)):
            if kind_of(filesystem, path) is not None:
                remove_file(filesystem, path)

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

    @property
    def encryption(self) -> s3.Encryption:
        """How what is written to S3 is encrypted."""
        return s3.encryption(self.kms_key_id)


def _check_disk(root: str) -> None:
    place = next(folder for folder in (Path(root), *Path(root).parents) if folder.exists())
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{place} is a file")
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, f"{place} is on a read-only file system")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"{place} may not be written by this user")


def _check_bucket(filesystem: Any, bucket: str) -> None:
    try:
        filesystem.call_s3("head_bucket", Bucket=bucket)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, f"there is no bucket {bucket}") from None
    except PermissionError:
        return  # who may write objects need not be allowed to ask for their bucket
