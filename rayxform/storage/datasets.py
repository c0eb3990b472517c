"""A partitioned data set that appears at the job's end: staged below the state folder, then renamed into its partitions.

Staged files have names that no pattern of data files matches and lie below a folder that readers of data sets pass over. The
commit makes every folder first and then does nothing but rename, some microseconds a file on a local disk; on other stores a
rename is what fsspec makes of it, mostly a copy, many at once where the store can. Neither POSIX nor S3 renames several files
at once, so a reader that lists the output within these moments may see some files and not yet the others. A folder renamed as
a whole would not help: its files would need their last names below the state folder, where DuckDB's and Polars's ``**`` look.

Which files a job committed is kept in ``dataset.json`` in its state folder, so that the next commit can remove those that it
does not write again. It is written before the renames, too, with the files of both, so that a commit that was cut short leaves
nothing that a later one would not know of.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import msgspec

from rayxform.core.naming import DATASET_RECORD
from rayxform.errors import StorageError
from rayxform.storage import s3
from rayxform.storage.continuing import ResumingFile, read_whole
from rayxform.storage.edge import is_local, open_filesystem, storage_errors
from rayxform.storage.publishing import OutputFolder
from rayxform.storage.retrying import info_of, kind_of, remove_file, remove_folder, retry
from rayxform.storage.writing import make_folder, write_whole


class _Record(msgspec.Struct, rename="pascal"):
    """``dataset.json``.

    Attributes:
        files: the committed files' paths below S3OutputPath, in order.
    """

    files: list[str]


@dataclass(frozen=True)
class DatasetFolder:
    """A job's output as a data set.

    Attributes:
        output: where it is.
    """

    output: OutputFolder

    def read_lines(self, parts: Sequence[str]) -> Iterator[bytes]:
        """The lines of an input's parts, one after another, empty ones too.

        Args:
            parts: the parts' names, in order; each ends with a newline.

        Raises:
            StorageError: a part cannot be read.
        """
        filesystem, parts_folder = open_filesystem(self._parts_url)
        for name in parts:
            path = f"{parts_folder}/{name}"
            with (
                storage_errors("read", f"{self._parts_url}/{name}"),
                closing(ResumingFile(filesystem, path, info_of(filesystem, path)["size"])) as file,
            ):
                yield from file.lines()

    @contextmanager
    def stage(self, name: str) -> Iterator[IO[bytes]]:
        """A file to be written that ``commit`` may rename; one that was not finished is overwritten or never renamed.

        Args:
            name: its name among the staged files, with at most one folder.

        Raises:
            StorageError: it cannot be written.
        """
        filesystem, folder = open_filesystem(self._staging_url)
        path = f"{folder}/{name}"
        with storage_errors("write", f"{self._staging_url}/{name}"):
            make_folder(filesystem, path.rpartition("/")[0])
            with filesystem.open(path, "wb", **(self.output.encryption if s3.is_s3(filesystem) else {})) as file:
                yield file
                if is_local(filesystem):
                    file.flush()
                    # Without this a power failure could leave the name of a file with none of its bytes.
                    os.fsync(file.fileno())

    def unstage(self, folder: str) -> None:
        """Remove a folder of staged files, which the commit will not need.

        Raises:
            StorageError: it cannot be removed.
        """
        filesystem, staging = open_filesystem(self._staging_url)
        with storage_errors("remove", f"{self._staging_url}/{folder}"):
            remove_folder(filesystem, f"{staging}/{folder}")

    def commit(self, files: Mapping[str, str]) -> None:
        """Make staged files appear, and remove what an earlier commit of the job left and this one does not replace.

        Args:
            files: a file's path below S3OutputPath → its name among the staged files.

        Raises:
            StorageError: it could not be done, or only in part; the commit of the job's next run does the rest.
        """
        filesystem, root = open_filesystem(self.output.url)
        staging = open_filesystem(self._staging_url)[1]
        with storage_errors("commit the data set in", self.output.url):
            filesystem.invalidate_cache()
            before = self._read_record(filesystem)
            stale = [name for name in before if name not in files]
            if not files and not stale:
                return
            self._write_record(filesystem, [*files, *stale])
            renames = [(f"{staging}/{staged}", f"{root}/{name}") for name, staged in files.items()]
            _rename_all(filesystem, renames, self.output.encryption)
            _remove_all(filesystem, root, stale)
            self._write_record(filesystem, list(files))

    @property
    def _parts_url(self) -> str:
        return f"{self.output.state_url}/parts"

    @property
    def _staging_url(self) -> str:
        """Below the parts, which are removed at the job's end."""
        return f"{self._parts_url}/dataset"

    def _read_record(self, filesystem: Any) -> list[str]:
        url = f"{self.output.state_url}/{DATASET_RECORD}"
        path = open_filesystem(url)[1]
        if kind_of(filesystem, path) is None:
            return []
        try:
            files = msgspec.json.decode(read_whole(filesystem, path), type=_Record).files
        except msgspec.MsgspecError as error:
            raise StorageError(
                f"cannot read {url}, which tells the files of the data set that this one replaces: {error}; "
                "remove that data set and this file by hand, and run the job again"
            ) from None
        # What it names will be removed, so nothing but what is below the output.
        return [name for name in files if not name.startswith("/") and ".." not in PurePosixPath(name).parts]

    def _write_record(self, filesystem: Any, files: Sequence[str]) -> None:
        path = open_filesystem(f"{self.output.state_url}/{DATASET_RECORD}")[1]
        if not files:
            remove_file(filesystem, path)
            return
        data = msgspec.json.encode(_Record(sorted(files)))
        if not is_local(filesystem):
            write_whole(filesystem, path, [data], self.output.encryption)
            return
        temporary = Path(f"{path}.writing")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def _rename_all(filesystem: Any, renames: Sequence[tuple[str, str]], encrypted: s3.Encryption) -> None:
    """Rename files; the folders are there before the first one, so that the last one is not far behind it."""
    for folder in sorted({target.rpartition("/")[0] for _, target in renames}):
        make_folder(filesystem, folder)
    if is_local(filesystem):
        left = list(reversed(renames))
        retry(lambda: _rename_left(left))
    elif renames:
        sources, targets = map(list, zip(*renames, strict=True))
        retry(lambda: filesystem.copy(sources, targets, **(encrypted if s3.is_s3(filesystem) else {})))
        try:
            filesystem.rm(sources)
        except OSError:
            for source in sources:  # some of which may be gone
                remove_file(filesystem, source)


def _rename_left(left: list[tuple[str, str]]) -> None:
    while left:
        os.replace(*left[-1])  # noqa: PTH105 - two Path objects a file take longer than the rename
        left.pop()


def _remove_all(filesystem: Any, root: str, names: Sequence[str]) -> None:
    """Remove files, and the folders of partitions in which nothing is left."""
    for name in names:
        if kind_of(filesystem, f"{root}/{name}") is not None:
            remove_file(filesystem, f"{root}/{name}")
    folders = {str(folder) for name in names for folder in PurePosixPath(name).parents if str(folder) != "."}
    for folder in sorted(folders, key=len, reverse=True):
        if kind_of(filesystem, f"{root}/{folder}") == "directory":
            _remove_if_empty(filesystem, f"{root}/{folder}")


def _remove_if_empty(filesystem: Any, folder: str) -> None:
    def remove() -> None:
        if not filesystem.ls(folder, detail=False):
            filesystem.rmdir(folder)

    retry(remove)
