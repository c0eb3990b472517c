"""The job as a Ray Data pipeline: read ranges → model pool → join and write parts → manifest rows for the driver."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Datasource, ExecutionResources, ReadTask
from ray.data.block import BlockMetadata

from rayxform.core.batching import MIB
from rayxform.core.ranges import Recipe
from rayxform.errors import RayxformError
from rayxform.pipeline.planning import ByteRange, Plan, group_ranges, make_recipe
from rayxform.pipeline.pool import STAGE_CPUS, Pool
from rayxform.pipeline.reading import NoSeams, Seams, read_range
from rayxform.pipeline.rows import BATCH_SCHEMA, BlockBuilder, Stopwatch, batch_row, encode_error, error_entry
from rayxform.pipeline.seams import SharedSeams
from rayxform.pipeline.worker import ModelWorker, WorkerSetup
from rayxform.pipeline.writing import write_block
from rayxform.spec import TransformJob

MAX_BLOCK_BYTES = 8 * MIB
BLOCKS_PER_WORKER = 32
"""A block is what a worker takes at a time: small enough that all workers end together and the first result comes soon, large
enough that Ray's scheduler, which looks ten times a second, keeps a fast model busy."""

TASKS_IN_FLIGHT = 4
"""Blocks that wait at a worker, so that it need not wait for the scheduler."""

READ_AHEAD_BYTES = 96 * MIB
"""How much may lie between the stages, beside what the workers have; bounds memory whatever the input's size."""


# Ray Data has no types, so a subclass of its class is one of Any.
class RangeSource(Datasource):  # type: ignore[misc]
    """Ray Data's view of a plan: one read task for each group of ranges."""

    def __init__(self, groups: Sequence[Sequence[ByteRange]], job: TransformJob, block_bytes: int, seams: Seams) -> None:
        super().__init__()
        self._groups = groups
        self._read = functools.partial(read_group, job=job, block_bytes=block_bytes, seams=seams)

    def estimate_inmemory_data_size(self) -> int:
        """The inputs' bytes."""
        return sum(one.n_bytes for group in self._groups for one in group)

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """One a group, whatever the parallelism: the plan has settled that."""
        del parallelism, per_task_row_limit, data_context
        return [ReadTask(functools.partial(self._read, group), _metadata(group), schema=BATCH_SCHEMA) for group in self._groups]


def _metadata(group: Sequence[ByteRange]) -> BlockMetadata:
    n_bytes = sum(one.n_bytes for one in group)
    return BlockMetadata(num_rows=None, size_bytes=n_bytes, exec_stats=None, input_files=None)


def read_group(group: Sequence[ByteRange], *, job: TransformJob, block_bytes: int, seams: Seams) -> Iterator[pa.Table]:
    """The mini-batches of some ranges as blocks; an object that cannot be read becomes an error row."""
    builder = BlockBuilder(BATCH_SCHEMA, block_bytes)
    recipe = make_recipe(job)
    for one in group:
        for row in _rows(one, recipe, seams):
            yield from builder.add(row, len(row.get("payload") or b"") + len(row.get("source") or b""))
    yield from builder.flush()


def _rows(one: ByteRange, recipe: Recipe, seams: Seams) -> Iterator[dict[str, Any]]:
    watch = Stopwatch()
    try:
        for packed in read_range(one, recipe, seams):
            yield batch_row(one.file, one.source.key, packed, watch.lap())
            watch.lap()
    except RayxformError as error:
        entry = error_entry(error, key=one.source.key)
        yield {
            "file": one.file,
            "object": one.source.key,
            "n_records": 0,
            "first_record": 0,
            "error": encode_error(entry),
        }


def manifest(plan: Plan, pool: Pool) -> Iterator[dict[str, Any]]:
    """Run the pipeline; give a manifest row for each part, error and object's end, as soon as it is known, in no order."""
    block_bytes = choose_block_bytes(plan.n_bytes, pool.workers)
    ranges = plan.ranges()
    groups = group_ranges(ranges, min(plan.range_bytes, max(plan.n_bytes // (4 * pool.workers), MIB)))
    seams = SharedSeams() if any(one.index for one in ranges) else NoSeams()
    with DataContext.current(_context(plan, pool, block_bytes)):
        dataset = ray.data.read_datasource(
            RangeSource(groups, plan.job, block_bytes, seams), override_num_blocks=len(groups), num_cpus=STAGE_CPUS
        )
        dataset = dataset.map_batches(
            ModelWorker,
            fn_constructor_args=(WorkerSetup(plan.job, pool.threads),),
            compute=ActorPoolStrategy(size=pool.workers, max_tasks_in_flight_per_actor=TASKS_IN_FLIGHT),
            # Ray Data takes no whole blocks where a GPU is asked for.
            batch_size=1 if pool.gpus else None,
            batch_format="pyarrow",
            num_cpus=pool.reserved_cpus,
            num_gpus=pool.gpus or None,
            memory=pool.memory_bytes,
        )
        dataset = dataset.map_batches(
            functools.partial(write_block, job=plan.job, output=plan.output),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=STAGE_CPUS,
        )
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from table.to_pylist()


def choose_block_bytes(total_bytes: int, workers: int) -> int:
    """How many bytes of mini-batches a block should hold; a mini-batch that is larger is a block by itself."""
    return min(max(total_bytes // (workers * BLOCKS_PER_WORKER), 1), MAX_BLOCK_BYTES)


def _context(plan: Plan, pool: Pool, block_bytes: int) -> DataContext:
    context = DataContext.get_current().copy()
    context.target_max_block_size = block_bytes
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.memory_usage_poll_interval_s = None
    # A slow model is no fault, and a request may take InvocationsTimeoutInSeconds as often as it is retried.
    context.execution_no_progress_timeout_s = -1
    context.execution_options.preserve_order = False
    largest = max(block_bytes, plan.job.max_payload_bytes or MAX_BLOCK_BYTES)
    in_workers = pool.workers * (TASKS_IN_FLIGHT + 1) * largest
    limit = max(READ_AHEAD_BYTES, 3 * in_workers)
    context.execution_options.resource_limits = ExecutionResources(object_store_memory=limit)
    return context
