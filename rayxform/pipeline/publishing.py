"""How outputs appear: one ``.out`` for each input, as soon as its parts are in. ``partitioning`` has the other way."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from rayxform.errors import RayxformError
from rayxform.pipeline.planning import Plan
from rayxform.pipeline.rows import ErrorEntry, error_entry


@dataclass(frozen=True)
class Published:
    """What became of an input whose parts are complete.

    Attributes:
        file: the input's index in the plan.
        seconds: how long it took.
        error: what made it fail, or None.
        passed_over: the bad records that were found on the way, and that OnRecordError lets pass.
        left_parts: the names of its parts that are still there, and of no use.
    """

    file: int
    seconds: float = 0.0
    error: ErrorEntry | None = None
    passed_over: Sequence[ErrorEntry] = ()
    left_parts: Sequence[str] = ()


class Publisher(Protocol):
    """Makes outputs of parts; a context that ends what is still going on when it is left by an exception.

    Attributes:
        withholds: whether nothing of what is published has appeared yet.
    """

    withholds: bool

    def take(self, file: int, parts: Sequence[tuple[str, int]]) -> None:
        """An input's parts are complete: name and size in bytes of each, in order."""

    def fail(self, file: int) -> None:
        """An input failed, so nothing of it may appear, nor stay of an earlier run.

        Raises:
            StorageError: that cannot be done.
        """

    def collect(self, *, done_only: bool) -> Iterator[Published]:
        """What became of the inputs that were taken; of all of them, unless only those that are done are wanted."""

    def commit(self) -> None:
        """No more inputs come: make appear what has not yet.

        Raises:
            StorageError: that cannot be done.
        """

    def outputs(self, files: Sequence[int]) -> list[str]:
        """The URLs of what has appeared of some inputs."""

    def __enter__(self) -> object: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class OutPublisher:
    """One ``.out`` for each input; threads of the driver put it together from its parts."""

    withholds = False

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._threads = ThreadPoolExecutor(plan.output.publishers)
        self._keeps_parts = plan.output.keeps_parts
        self._running: list[Future[Published]] = []

    def __enter__(self) -> object:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._threads.shutdown()

    def take(self, file: int, parts: Sequence[tuple[str, int]]) -> None:
        """Publish it, while other things go on."""
        self._running.append(self._threads.submit(self._publish, file, parts))

    def fail(self, file: int) -> None:
        """Remove what an earlier run left of it."""
        self._plan.output.withdraw(self._plan.inputs[file].key)

    def collect(self, *, done_only: bool) -> Iterator[Published]:
        """What became of publishing."""
        waiting = [future for future in self._running if done_only and not future.done()]
        ended = [future for future in self._running if future not in waiting]
        self._running = waiting
        for future in ended:
            yield future.result()

    def commit(self) -> None:
        """Every output has appeared on its own."""

    def outputs(self, files: Sequence[int]) -> list[str]:
        """One for each input."""
        return [self._plan.output.output_url(self._plan.inputs[file].key) for file in files]

    def _publish(self, file: int, parts: Sequence[tuple[str, int]]) -> Published:
        began = time.perf_counter()
        try:
            self._plan.output.publish(self._plan.inputs[file].key, parts)
        except RayxformError as error:
            return Published(file, time.perf_counter() - began, error_entry(error, key=self._plan.inputs[file].key))
        left = [name for name, _ in parts] if self._keeps_parts else ()
        return Published(file, time.perf_counter() - began, left_parts=left)


def make_publisher(plan: Plan, workers: int) -> Publisher:
    """What makes a job's outputs; ``workers`` is the size of its pool."""
    if not plan.job.partition_by:
        return OutPublisher(plan)
    from rayxform.pipeline.partitioning import DatasetPublisher  # noqa: PLC0415 - other jobs need nothing of it

    return DatasetPublisher(plan, workers)
