"""The job as a Ray Data pipeline: readers → pool of model workers, which write parts → manifest rows for the driver.

With StageInput a pool of workers that run input_fn stands between the first two.
"""

from __future__ import annotations

import functools
import threading
import time
from bisect import bisect_right
from collections.abc import Container, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import accumulate
from operator import itemgetter
from typing import Any

import msgspec
import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Datasource, ExecutionResources, ReadTask
from ray.data._internal.execution.resource_manager import ResourceManager
from ray.data.block import BlockMetadata

from rayxform.core.batching import MIB
from rayxform.core.ranges import Recipe
from rayxform.errors import RayxformError
from rayxform.pipeline.blocks import BATCHES_SCHEMA, pack_batches, unpack_manifest
from rayxform.pipeline.flow import (
    BLOCKS_IN_WORKER,
    BLOCKS_OF_LARGE_PAYLOADS,
    LeastBlock,
    block_limit,
    blocks_in_flight,
    blocks_in_reader,
    choose_block_bytes,
    read_ahead_bytes,
)
from rayxform.pipeline.heap import keep_freed_memory
from rayxform.pipeline.input_stage import InputWorker
from rayxform.pipeline.own_ray import without_actors_of_clusters
from rayxform.pipeline.planning import ByteRange, Plan, Spans, group_ranges, make_recipe
from rayxform.pipeline.pool import Pool
from rayxform.pipeline.reading import Seams, read_range
from rayxform.pipeline.rows import Stopwatch, batch_row, encode_error, error_entry
from rayxform.pipeline.seams import shared_seams
from rayxform.pipeline.worker import ModelWorker, WorkerSetup
from rayxform.spec import TransformJob
from rayxform.storage.reading import ObjectReader

LONE_GROUP_BYTES = 1024 * MIB
"""What one read task reads where one runs at a time, as there is nobody to share the work with. From the end of one to the next
Ray's scheduler takes a tenth of a second, in which a reader reads 100 MB, or hundreds of small objects."""

LONE_GROUP_OBJECTS = 4096
"""The most objects of such a task."""

THREADS_END_S = 1.0
"""How long Ray Data's threads may take to end, which mostly is some milliseconds; a stop takes three seconds at the most."""

_RAY_DATA_THREADS = ("iter_threaded", "StreamingExecutor")


@dataclass(frozen=True)
class ReadGroup:
    """What one read task reads.

    Attributes:
        ranges: in order.
        begin: how many bytes of the plan come before them.
        covered: file → which of its records an earlier run wrote.
    """

    ranges: Sequence[ByteRange]
    begin: int
    covered: Mapping[int, Spans] = field(default_factory=dict)

    @property
    def n_bytes(self) -> int:
        """How many bytes they cover."""
        return sum(one.n_bytes for one in self.ranges)


class _LimitsInterval:
    """How often Ray Data asks what the cluster has: ten times a second until it knows.

    Before, it lets one worker at a time have a block, and readers go on without a limit; and once a second it would find that
    out by half a second after the first mini-batch.
    """

    def __get__(self, manager: Any, owner: Any) -> float:
        del owner
        is_known = manager is not None and manager._global_limits.object_store_memory > 0  # noqa: SLF001 - no public way
        return 1.0 if is_known else 0.1


ResourceManager.GLOBAL_LIMITS_UPDATE_INTERVAL_S = _LimitsInterval()


# Ray Data has no types, so a subclass of its class is one of Any.
class RangeSource(Datasource):  # type: ignore[misc]
    """Ray Data's view of a plan: one read task for each group of ranges."""

    def __init__(self, plan: Plan, groups: Sequence[ReadGroup], pool: Pool, seams: Seams) -> None:
        super().__init__()
        self._n_bytes = sum(group.n_bytes for group in groups)
        self._groups = groups
        self._read = functools.partial(
            read_group,
            job=plan.job,
            total_bytes=self._n_bytes,
            consumers=pool.requests_at_once,
            max_block_bytes=block_limit(pool),
            ahead_bytes=read_ahead_bytes(plan, pool),
            seams=seams,
        )

    def estimate_inmemory_data_size(self) -> int:
        """The inputs' bytes."""
        return self._n_bytes

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """One a group, whatever the parallelism: the plan has settled that."""
        del parallelism, per_task_row_limit, data_context
        return [
            ReadTask(functools.partial(self._read, group), _metadata(group), schema=BATCHES_SCHEMA) for group in self._groups
        ]


def _metadata(group: ReadGroup) -> BlockMetadata:
    return BlockMetadata(num_rows=None, size_bytes=group.n_bytes, exec_stats=None, input_files=None)


def read_group(
    group: ReadGroup,
    *,
    job: TransformJob,
    total_bytes: int,
    consumers: int,
    max_block_bytes: int,
    ahead_bytes: int,
    seams: Seams,
) -> Iterator[pa.Table]:
    """The mini-batches of some ranges as blocks; an object that cannot be read becomes an error row.

    Args:
        group: the ranges.
        job: the job.
        total_bytes: the size of all inputs.
        consumers: how many blocks are worked on at a time.
        max_block_bytes: a block is complete when it holds so much.
        ahead_bytes: how much may lie between the stages.
        seams: where mini-batches begin in ranges that others read.
    """
    keep_freed_memory()
    recipe = make_recipe(job)
    batches: list[dict[str, Any]] = []
    least = LeastBlock(ahead_bytes, seams.settle)
    done = size = 0
    reader = ObjectReader(one.source for one in group.ranges if (one.index, one.end) == (0, None))
    for one in group.ranges:
        spans = group.covered.get(one.file, ())
        for batch in _batches(one, recipe, seams, reader, stop_at_error=job.stops_at_bad_record):
            if spans and _is_covered(batch, spans):
                continue
            batches.append(batch)
            size += len(batch.get("payload") or b"") + len(batch.get("source") or b"")
            # What a compressed object holds is not known before its end: then guess that a quarter more is to come.
            left = max(total_bytes - group.begin - done, done // 4 if one.source.compression else 0)
            enough = choose_block_bytes(left, consumers, max_block_bytes)
            if size >= enough and (enough == max_block_bytes or size >= min(least.n_bytes(), max_block_bytes)):
                yield pack_batches(batches)
                least.gave(size)
                done += size
                batches, size = [], 0
    if batches:
        yield pack_batches(batches)


def _batches(
    one: ByteRange, recipe: Recipe, seams: Seams, reader: ObjectReader, *, stop_at_error: bool
) -> Iterator[dict[str, Any]]:
    watch = Stopwatch()
    place = {"file": one.file, "object": one.source.key, "input": msgspec.json.encode(one.source).decode()}
    try:
        for packed in read_range(one, recipe, seams, stop_at_error=stop_at_error, reader=reader):
            yield batch_row(place, packed, watch.lap(), stop_at_error=stop_at_error)
            watch.lap()
    except RayxformError as error:
        entry = error_entry(error, key=one.source.key)
        yield {**place, "n_records": 0, "first_record": 0, "error": encode_error(entry)}


def _is_covered(batch: Mapping[str, Any], spans: Spans) -> bool:
    """Whether all records of a mini-batch, or a bad record, are in parts that an earlier run wrote."""
    first, end = batch["first_record"], batch["first_record"] + batch["n_records"]
    at = bisect_right(spans, first, key=itemgetter(0)) - 1
    return end > first and at >= 0 and end <= spans[at][1]


def manifest(
    plan: Plan,
    pool: Pool,
    *,
    model_digest: str = "",
    without: Container[int] = (),
    covered: Mapping[int, Spans] | None = None,
) -> Generator[dict[str, Any], None, None]:
    """Run the pipeline; give a manifest row for each part, error and object's end, as soon as it is known, in no order.

    Args:
        plan: the job's plan.
        pool: the workers.
        model_digest: names the content of the model's files.
        without: files of which nothing need be read.
        covered: file → which of its records need not be sent.
    """
    ranges = plan.ranges(without)
    if not ranges:
        return
    groups = _groups(plan, ranges, pool, covered or {})
    # The parts of a data set are sorted into its files one by one.
    grows_in_place = pool.is_on_one_machine and not plan.job.partition_by
    setup = WorkerSetup(plan.job, plan.output, pool.threads, plan.inference_ids, model_digest, grows_in_place)
    is_own = pool.is_on_one_machine
    with without_actors_of_clusters(is_own=is_own), shared_seams() as seams, DataContext.current(_context(plan, pool)):
        dataset = ray.data.read_datasource(
            RangeSource(plan, groups, pool, seams),
            override_num_blocks=len(groups),
            num_cpus=pool.reader_cpus,
            concurrency=pool.readers,
        )
        if pool.input_workers:
            dataset = dataset.map_batches(
                InputWorker,
                fn_constructor_args=(plan.job,),
                compute=ActorPoolStrategy(size=pool.input_workers, max_tasks_in_flight_per_actor=BLOCKS_OF_LARGE_PAYLOADS),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=pool.input_cpus,
            )
        dataset = dataset.map_batches(
            ModelWorker,
            fn_constructor_args=(setup,),
            compute=_compute(plan, pool),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=pool.reserved_cpus,
            num_gpus=pool.gpus or None,
            memory=pool.memory_bytes,
        )
        tables = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
        try:
            with closing(tables):
                for table in tables:
                    yield from unpack_manifest(table)
        finally:
            _await_threads()


def _await_threads() -> None:
    """Wait for Ray Data's own threads, which are told to end but not waited for.

    One that still asks Ray for something when the driver leaves it ends the process, with code 1 and without a word: a job
    that was stopped would then not say so.
    """
    give_up_at = time.monotonic() + THREADS_END_S
    for thread in threading.enumerate():
        if thread.name.startswith(_RAY_DATA_THREADS):
            thread.join(max(give_up_at - time.monotonic(), 0))


def _groups(plan: Plan, ranges: Sequence[ByteRange], pool: Pool, covered: Mapping[int, Spans]) -> list[ReadGroup]:
    """The ranges as read tasks: few enough to cost little, enough of them for the readers to share the work."""
    if pool.readers == 1:
        groups = group_ranges(ranges, LONE_GROUP_BYTES, LONE_GROUP_OBJECTS)
    else:
        n_bytes = sum(one.n_bytes for one in ranges)
        groups = group_ranges(ranges, min(plan.range_bytes, max(n_bytes // (4 * pool.workers), MIB)))
    begins = accumulate((sum(one.n_bytes for one in group) for group in groups), initial=0)
    return [
        ReadGroup(group, begin, {one.file: covered[one.file] for one in group if one.file in covered})
        for group, begin in zip(groups, begins, strict=False)
    ]


def _context(plan: Plan, pool: Pool) -> DataContext:
    context = DataContext.get_current().copy()
    # A block leaves as it is yielded; with a larger target Ray would gather rows and cut them anew.
    context.target_max_block_size = 1
    context._max_num_blocks_in_streaming_gen_buffer = blocks_in_reader(plan, pool)  # noqa: SLF001 - there is no public way to say it
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.memory_usage_poll_interval_s = None
    # A slow model is no fault, and a request may take InvocationsTimeoutInSeconds as often as it is retried.
    context.execution_no_progress_timeout_s = -1
    context.execution_options.preserve_order = False
    # Workers all have as much as they can work on at once: another one is worth starting where a machine has joined.
    context.autoscaling_config = replace(context.autoscaling_config, actor_pool_util_upscaling_threshold=1.0)
    context.execution_options.resource_limits = ExecutionResources(object_store_memory=read_ahead_bytes(plan, pool))
    return context


def _compute(plan: Plan, pool: Pool) -> ActorPoolStrategy:
    """The actors: two blocks at a time in each, or with a model server as many as it has requests under way, a thread each."""
    workers = {"min_size": pool.workers, "initial_size": pool.workers} if pool.grows else {"size": pool.workers}
    strategy = functools.partial(ActorPoolStrategy, **workers, max_tasks_in_flight_per_actor=blocks_in_flight(plan, pool))
    at_once = max(pool.requests_per_worker, BLOCKS_IN_WORKER)
    return strategy(max_concurrent_calls_per_actor=at_once, enable_true_multi_threading=True)
