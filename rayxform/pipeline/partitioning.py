"""``Rayxform.Partition``: from the parts of an input to its files in a data set, and the data set as a whole.

The parts of an input, once they are complete, become files by a Ray task, so that the cluster's cores do it while the driver
and the model workers go on. The task reserves no CPU: it would wait for a reader, which keeps its own for as long as the model
has not caught up. Everything a file holds depends on the input's results and the data set's columns alone, so it is the same
for any number of workers.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from types import TracebackType
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from rayxform.core.batching import MIB
from rayxform.core.columns import fitting, infer_schema
from rayxform.core.naming import data_file_name
from rayxform.core.partitioning import SEPARATOR
from rayxform.errors import RayxformError, RecordError
from rayxform.pipeline.planning import Plan
from rayxform.pipeline.publishing import Published
from rayxform.pipeline.rows import ErrorEntry, error_entry
from rayxform.storage.datasets import DatasetFolder
from rayxform.storage.grouping import GroupedLines

SAMPLE_RECORDS = 10_000
SAMPLE_BYTES = 32 * MIB
"""So many of the first records settle the columns of a Parquet data set; whichever ends first."""

CONVERTED_BYTES = 4 * MIB
"""How much JSON becomes Arrow columns at a time; as Python's objects it is a multiple of that."""

WORKERS_PER_TASK = 4
"""While the model runs, one partitioning task for so many model workers."""

_LONGEST_CANCEL_S = 1.0


@dataclass(frozen=True)
class PartitionSetup:
    """What a task needs to know.

    Attributes:
        dataset: where the parts are and the files go.
        extension: of the files, which is their format.
        stops_at_bad_record: whether a record that does not fit fails its input.
        held_bytes: how much of an input's results is held in memory, to be grouped by partition; more goes to a temporary file.
        row_group_bytes: how much JSON becomes a row group of Parquet.
    """

    dataset: DatasetFolder
    extension: str
    stops_at_bad_record: bool
    held_bytes: int = 64 * MIB
    row_group_bytes: int = 32 * MIB


@dataclass(frozen=True)
class PartitionedInput:
    """What became of an input.

    Attributes:
        files: each file's path below S3OutputPath → its name among the staged files.
        schema: the columns of the data set; None for JSON Lines, or while no record has settled them.
        seconds: how long it took.
        error: what made it fail; then there are no files.
        passed_over: the records that do not fit, where OnRecordError lets them pass, in order.
    """

    files: dict[str, str] = field(default_factory=dict)
    schema: pa.Schema | None = None
    seconds: float = 0.0
    error: ErrorEntry | None = None
    passed_over: Sequence[ErrorEntry] = ()


def partition_input(setup: PartitionSetup, key: str, parts: Sequence[str], schema: pa.Schema | None) -> PartitionedInput:
    """Stage an input's files, one for each partition that its records belong to.

    Args:
        setup: where, and how.
        key: the input's key.
        parts: the names of its parts, in order.
        schema: the columns of the data set, if they are known; else this input's records settle them.
    """
    began = time.perf_counter()
    attempt = uuid.uuid4().hex
    writer = _InputWriter(setup, key, attempt, schema)
    try:
        with closing(GroupedLines(setup.held_bytes)) as groups:
            writer.read(groups, setup.dataset.read_lines(parts))
            files = {name: staged for group in groups.groups() for name, staged in writer.write(group, groups.lines(group))}
    except Exception as error:  # noqa: BLE001 - what fails, a defect of rayxform included, fails this input and no other
        with suppress(RayxformError):
            setup.dataset.unstage(attempt)
        return PartitionedInput({}, writer.schema, time.perf_counter() - began, error_entry(error, key=key))
    errors = [error_entry(error, key=key) for error in sorted(writer.errors, key=lambda error: error.record)]
    return PartitionedInput(files, writer.schema, time.perf_counter() - began, None, errors)


class _InputWriter:
    """One input on its way to its files."""

    def __init__(self, setup: PartitionSetup, key: str, attempt: str, schema: pa.Schema | None) -> None:
        self._setup = setup
        self._name = data_file_name(key, setup.extension)
        self._attempt = attempt
        self._staged = 0
        self.schema = schema
        self.errors: list[RecordError] = []

    def read(self, groups: GroupedLines, lines: Iterable[bytes]) -> None:
        """Group an input's lines by partition, each behind its record's number; settle the columns if they are not known."""
        numbered = _numbered(lines)
        if self._setup.extension == "parquet" and self.schema is None:
            sample = list(_first(islice(numbered, SAMPLE_RECORDS), SAMPLE_BYTES))
            self.schema = infer_schema([record for _, _, record in sample]) if sample else None
            numbered = chain(sample, numbered)
        for number, folder, record in numbered:
            groups.add(folder, b"%d%b%b" % (number, SEPARATOR, record))

    def write(self, folder: bytes, lines: Iterator[bytes]) -> Iterator[tuple[str, str]]:
        """Stage a partition's file; give its path and its staged name, unless no record is left for it."""
        numbered = ((int(number), record) for number, _, record in (line.partition(SEPARATOR) for line in lines))
        pieces = self._tables(numbered) if self._setup.extension == "parquet" else self._texts(numbered)
        first = next(pieces, None)
        if first is None:
            return
        staged = f"{self._attempt}/{self._staged:08d}"
        self._staged += 1
        write = self._write_parquet if self._setup.extension == "parquet" else _write_text
        with self._setup.dataset.stage(staged) as file:
            write(file, chain([first], pieces))
        yield f"{folder.decode()}/{self._name}", staged

    def _texts(self, numbered: Iterator[tuple[int, bytes]]) -> Iterator[bytes]:
        for chunk in _chunks(numbered, CONVERTED_BYTES):
            yield b"".join(record + b"\n" for _, record in chunk)

    def _tables(self, numbered: Iterator[tuple[int, bytes]]) -> Iterator[pa.Table]:
        """A table for each row group."""
        tables: list[pa.Table] = []
        n_bytes = 0
        for chunk in _chunks(numbered, min(CONVERTED_BYTES, self._setup.row_group_bytes)):
            numbers, records = zip(*chunk, strict=True)
            tables += fitting(records, self.schema, self._bad_record(numbers))
            n_bytes += sum(map(len, records))
            if tables and n_bytes >= self._setup.row_group_bytes:
                yield pa.concat_tables(tables)
                tables, n_bytes = [], 0
        if tables:
            yield pa.concat_tables(tables)

    def _bad_record(self, numbers: Sequence[int]) -> Callable[[int, RecordError], None]:
        def take(index: int, error: RecordError) -> None:
            placed = RecordError(error.reason, numbers[index])
            if self._setup.stops_at_bad_record:
                raise placed
            self.errors.append(placed)

        return take

    def _write_parquet(self, file: IO[bytes], tables: Iterable[pa.Table]) -> None:
        with pq.ParquetWriter(file, self.schema) as writer:
            for table in tables:
                writer.write_table(table)


def _write_text(file: IO[bytes], pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        file.write(piece)


def _numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes, bytes]]:
    """Each record's number, partition and rest; a line that is empty stands for a record that was passed over."""
    for number, line in enumerate(lines):
        if line:
            folder, record = line.split(SEPARATOR, 1)
            yield number, folder, record


_Numbered = TypeVar("_Numbered", bound=tuple[Any, ...])


def _first(numbered: Iterable[_Numbered], max_bytes: int) -> Iterator[_Numbered]:
    """The first records, up to the one that fills ``max_bytes``."""
    n_bytes = 0
    for one in numbered:
        yield one
        n_bytes += len(one[-1])
        if n_bytes >= max_bytes:
            return


def _chunks(numbered: Iterator[tuple[int, bytes]], max_bytes: int) -> Iterator[list[tuple[int, bytes]]]:
    while chunk := list(_first(numbered, max_bytes)):
        yield chunk


class DatasetPublisher:
    """The job's results as one data set, of which nothing appears before all inputs are through.

    The columns of a Parquet data set come from the first input of the plan that is complete and holds a record. The others wait
    until it is, so that the columns do not depend on who came first.
    """

    def __init__(self, plan: Plan, workers: int) -> None:
        extension = plan.job.partition_extension
        self.withholds = True
        self._keys = [source.key for source in plan.inputs]
        self._setup = PartitionSetup(DatasetFolder(plan.output), extension, plan.job.stops_at_bad_record)
        self._task = ray.remote(num_cpus=0, scheduling_strategy="SPREAD")(partition_input)
        self._workers = workers
        self._files: dict[int, dict[str, str]] = {}
        self._schema: pa.Schema | None = None
        self._next_for_schema = 0 if extension == "parquet" else None
        self._failed: set[int] = set()
        self._waiting: dict[int, Sequence[str]] = {}
        self._ready: deque[tuple[int, Sequence[str]]] = deque()
        self._running: dict[Any, int] = {}

    def __enter__(self) -> object:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._running:
            for task in self._running:
                ray.cancel(task, force=True)
            ray.wait(list(self._running), num_returns=len(self._running), timeout=_LONGEST_CANCEL_S)

    def take(self, file: int, parts: Sequence[tuple[str, int]]) -> None:
        """Partition an input, as soon as the columns are known."""
        self._waiting[file] = [name for name, _ in parts]
        self._advance(limit=max(1, self._workers // WORKERS_PER_TASK))

    def fail(self, file: int) -> None:
        """Leave an input out."""
        self._failed.add(file)
        self._files.pop(file, None)

    def collect(self, *, done_only: bool) -> Iterator[Published]:
        """What became of inputs; at the end of the job all cores are there for them."""
        limit = max(1, self._workers // WORKERS_PER_TASK if done_only else self._workers)
        self._advance(limit)
        while self._running:
            ended, _ = ray.wait(list(self._running), num_returns=1, timeout=0 if done_only else None)
            for task in ended:
                yield self._take_result(self._running.pop(task), ray.get(task))
            self._advance(limit)
            if done_only and not ended:
                return

    def commit(self) -> None:
        """Make the data set appear."""
        self._setup.dataset.commit({name: staged for files in self._files.values() for name, staged in files.items()})
        self.withholds = False

    def outputs(self, files: Sequence[int]) -> list[str]:
        """The files of the data set that hold what some inputs gave."""
        url = self._setup.dataset.output.url.rstrip("/")
        return [f"{url}/{name}" for file in files for name in self._files.get(file, ())]

    def _take_result(self, file: int, done: PartitionedInput) -> Published:
        if self._schema is None and self._next_for_schema is not None:
            self._schema = done.schema
            self._next_for_schema = file + 1 if done.schema is None else None
        self._files[file] = done.files
        return Published(file, done.seconds, done.error, done.passed_over)

    def _advance(self, limit: int) -> None:
        """Start tasks: of all that wait if the columns are known, else of the one that settles them."""
        if self._next_for_schema is None:
            self._ready += self._waiting.items()
            self._waiting.clear()
        elif not self._running:
            while self._next_for_schema in self._failed:
                self._next_for_schema += 1
            if (parts := self._waiting.pop(self._next_for_schema, None)) is not None:
                self._ready.append((self._next_for_schema, parts))
        while self._ready and len(self._running) < limit:
            file, parts = self._ready.popleft()
            self._running[self._task.remote(self._setup, self._keys[file], parts, self._schema)] = file
