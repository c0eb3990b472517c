"""A job's state beside its output: what it was planned to do, what is written of it, and whether it is to stop.

::

    <S3OutputPath>/.rayxform/<TransformJobName>/
        plan.json        what the bytes of the output depend on; there as long as the job can go on from where it was
        inputs.jsonl     the objects of the plan, a line each: key, size, version
        parts/           what is written of files that are not published: parts, and outputs that grow in place
        events.jsonl     what happened; stays when the job has ended
        errors.jsonl     what went wrong; stays, too
        dataset.json     which files a partitioned data set has; stays, too
        lease.json       who runs the job now
        stop.json        written by whoever wants it to stop
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import msgspec

from rayxform.core.naming import DATASET_RECORD, ERRORS_SUFFIX, growing_name, is_growing
from rayxform.errors import StorageError
from rayxform.storage.continuing import read_whole
from rayxform.storage.edge import open_filesystem, storage_errors
from rayxform.storage.event_log import is_event_log
from rayxform.storage.growing import written
from rayxform.storage.objects import InputObject
from rayxform.storage.publishing import OutputFolder
from rayxform.storage.retrying import find_below, info_of, kind_of, remove_file, remove_folder, retry
from rayxform.storage.writing import make_folder, write_whole

_PART: Final = re.compile(r"(?P<name>(?P<file>\d{8})/(?P<first>\d{15})-(?P<count>\d{9})\.part)(?P<errors>\.errors)?")
_LINES_AT_ONCE: Final = 100_000


@dataclass(frozen=True)
class WrittenPart:
    """A part that an earlier run left.

    Attributes:
        file: its input's number in the plan.
        first_record: its first record, from 0.
        n_records: how many it holds.
        name: below the folder of parts.
        n_bytes: how long it is.
        has_errors: whether bad records that OnRecordError let pass are listed beside it.
    """

    file: int
    first_record: int
    n_records: int
    name: str
    n_bytes: int
    has_errors: bool = False

    @property
    def end(self) -> int:
        """The first record behind it."""
        return self.first_record + self.n_records


@dataclass(frozen=True)
class StateFolder:
    """The state folder of a job's output."""

    output: OutputFolder

    def read_plan(self) -> bytes | None:
        """``plan.json``, or None where no job was cut short.

        Raises:
            StorageError: it cannot be read.
        """
        return self._read("plan.json")

    def read_inputs(self) -> Iterator[tuple[str, int, str]]:
        """Key, size in bytes and version of each planned object.

        Raises:
            StorageError: they cannot be read, or are not what was written.
        """
        lines = (self._read("inputs.jsonl") or b"").splitlines()
        decoder = msgspec.json.Decoder(tuple[str, int, str])
        try:
            yield from map(decoder.decode, lines)
        except msgspec.MsgspecError as error:
            raise StorageError(
                f"cannot read {self.output.state_url}/inputs.jsonl: {error}; run the job with --restart"
            ) from None

    def begin(self, plan: bytes, inputs: Sequence[InputObject]) -> None:
        """Make the folder anew for a job; of an earlier one only the record of its data set stays, and who runs it.

        Raises:
            StorageError: it cannot be written.
        """
        self._clear(keep=lambda name: name in {DATASET_RECORD, "lease.json"})
        filesystem, folder = open_filesystem(self.output.state_url)
        with storage_errors("write to", self.output.url):
            make_folder(filesystem, f"{folder}/parts")
        self.write_inputs(inputs)
        # Last, since it says that all of the others is there.
        self._write("plan.json", [plan])

    def write_inputs(self, inputs: Sequence[InputObject]) -> None:
        """Note the objects of the plan.

        Raises:
            StorageError: they cannot be written.
        """
        encoder = msgspec.json.Encoder()
        lines = (encoder.encode((one.key, one.size, one.version)) + b"\n" for one in inputs)
        self._write("inputs.jsonl", [b"".join(islice(lines, _LINES_AT_ONCE)) for _ in range(0, len(inputs), _LINES_AT_ONCE)])

    def parts(self) -> Iterator[WrittenPart]:
        """What an earlier run wrote and did not publish, in order.

        Raises:
            StorageError: it cannot be listed.
        """
        filesystem, folder = open_filesystem(f"{self.output.state_url}/parts")
        with storage_errors("list", f"{self.output.state_url}/parts"):
            found = find_below(filesystem, folder)
        grown = {part.file: part for part in _grown_outputs(folder, found)}
        yield from grown.values()
        matches = {path: _PART.fullmatch(path.removeprefix(f"{folder}/")) for path in found}
        with_errors = {match["name"] for match in matches.values() if match and match["errors"]}
        for path, match in sorted(matches.items()):
            if match and not match["errors"]:
                numbers = int(match["file"]), int(match["first"]), int(match["count"])
                part = WrittenPart(*numbers, match["name"], int(found[path]["size"]), match["name"] in with_errors)
                if part.file not in grown or part.end > grown[part.file].end:  # else it was written twice
                    yield part

    def read_part_errors(self, part: WrittenPart) -> list[str]:
        """The encoded entries of the bad records in a part.

        Raises:
            StorageError: they cannot be read.
        """
        return (self._read(f"parts/{part.name}{ERRORS_SUFFIX}") or b"").decode().splitlines()

    def remove_parts(self, names: Sequence[str]) -> None:
        """Remove parts that are of no use any more; the lists of bad records beside them stay to the job's end.

        With an output that grows in place goes all that is written of its file: parts that are in it, too, are not told of.

        Raises:
            StorageError: they cannot be removed.
        """
        filesystem, folder = open_filesystem(f"{self.output.state_url}/parts")
        grown = {name.rpartition("/")[0] for name in names if is_growing(name)}
        alone = [f"{folder}/{name}" for name in names if name.rpartition("/")[0] not in grown]
        with storage_errors("remove parts from", self.output.state_url):
            for name in grown:
                remove_folder(filesystem, f"{folder}/{name}")
            if alone:
                retry(lambda: filesystem.rm(alone))

    def output_bytes(self, key: str) -> int | None:
        """How long an input's output is, or None where there is none.

        Raises:
            StorageError: that cannot be found out.
        """
        url = self.output.output_url(key)
        filesystem, path = open_filesystem(url)
        with storage_errors("look for", url):
            return None if kind_of(filesystem, path) is None else int(info_of(filesystem, path)["size"])

    def ask_to_stop(self) -> None:
        """Tell the run that goes on, wherever it is, to stop.

        Raises:
            StorageError: it cannot be written.
        """
        self._write("stop.json", [b"{}\n"])

    def is_asked_to_stop(self) -> bool:
        """Whether somebody wants the run to stop.

        Raises:
            StorageError: that cannot be found out.
        """
        filesystem, path = open_filesystem(f"{self.output.state_url}/stop.json")
        with storage_errors("read", f"{self.output.state_url}/stop.json"):
            filesystem.invalidate_cache()
            return bool(filesystem.exists(path))

    def forget_stop(self) -> None:
        """Whoever wanted it to stop has been heard.

        Raises:
            StorageError: that cannot be written.
        """
        filesystem, path = open_filesystem(f"{self.output.state_url}/stop.json")
        with storage_errors("remove", f"{self.output.state_url}/stop.json"):
            remove_file(filesystem, path)

    def end(self) -> None:
        """The job is complete: keep only what tells of it.

        Raises:
            StorageError: something cannot be removed.
        """
        self._clear(keep=lambda name: name in {DATASET_RECORD, "lease.json", "errors.jsonl"} or is_event_log(name))

    def _clear(self, keep: Callable[[str], bool]) -> None:
        filesystem, folder = open_filesystem(self.output.state_url)
        with storage_errors("clean up", self.output.state_url):
            filesystem.invalidate_cache()
            names = () if kind_of(filesystem, folder) is None else retry(lambda: filesystem.ls(folder, detail=False))
            # The plan first: without it nobody takes the rest for a job that can go on.
            for name in sorted(names, key=lambda name: not name.endswith("/plan.json")):
                if not keep(name.rstrip("/").rpartition("/")[2]):
                    remove_folder(filesystem, name)

    def _read(self, name: str) -> bytes | None:
        url = f"{self.output.state_url}/{name}"
        filesystem, path = open_filesystem(url)
        with storage_errors("read", url):
            filesystem.invalidate_cache()
            return None if kind_of(filesystem, path) is None else read_whole(filesystem, path)

    def _write(self, name: str, pieces: Sequence[bytes]) -> None:
        url = f"{self.output.state_url}/{name}"
        filesystem, path = open_filesystem(url)
        with storage_errors("write", url):
            write_whole(filesystem, path, pieces, self.output.encryption)


def _grown_outputs(folder: str, found: Iterable[str]) -> Iterator[WrittenPart]:
    """What counts of outputs that grow in place, as parts."""
    for path in sorted(path for path in found if is_growing(path)):
        file = int(path.removeprefix(f"{folder}/").partition("/")[0])
        n_records, n_bytes = written(path)
        if n_records:
            yield WrittenPart(file, 0, n_records, growing_name(file), n_bytes)
