"""How large the blocks are, and how many of them lie between the stages of the pipeline.

Ray's scheduler looks ten times a second, and passes 200 blocks a second at the most. So there have to be enough blocks for each
stage to have something to do until it looks again, large enough for it not to be what the job waits for, and so few that memory
is bounded whatever the input's size; and at the end small ones, so that all workers end together.

A reader that is lost is started again, and Ray takes its first blocks for those that there were. So what it cuts depends on the
plan and the pool, and on nothing that it measures but what was settled for the job once for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rayxform.core.batching import MIB
from rayxform.pipeline.planning import Plan
from rayxform.pipeline.pool import Pool

MAX_BLOCK_BYTES = 24 * MIB
"""A block is what a worker takes at a time, and costs all processes together some 10 ms of a core. With 16 MiB an echo model
passed a tenth less, with 32 no more. Ray's scheduler looks ten times a second, so this times the blocks that wait at a worker
bounds what one can pass: 720 MiB/s. Requests that a worker has under way together share it."""

WORKERS_OF_SMALL_BLOCKS = 64
GROWTH_BYTES = 16 * MIB
"""With many workers a block has so much for each 64 of them, if that is more: whatever their number, the driver then has to
pass some 50 blocks a second at the most, of 200 that it can (``benchmarks/scale.py``), where a GPU takes 10 MB of images a
second."""

BLOCKS_LEFT_PER_WORKER = 8
"""A block is at most this share of a worker's part of what is still to come, so that all end together (guided
self-scheduling; Polychronopoulos and Kuck, IEEE Trans. Computers C-36, 1987). It has to be well above TASKS_IN_FLIGHT, or
all that is left would wait at one worker or the other, whichever is then faster; each step above costs blocks, which an echo
model feels: with 16 it passed a tenth less."""

LEAST_BLOCK_S = 0.01
"""A block is not smaller than what the workers take in so much time, about what it costs; none is so fast that they would not
end together then. An echo model, of which the last 400 MB came in 67 blocks, passed a tenth less."""

TASKS_IN_FLIGHT = 3
"""Blocks that a worker has for each request that it has under way, that of the request among them, so that it need not wait
for the scheduler."""

BLOCKS_IN_WORKER = 2
"""One is with the model while the other is written, or waits and has its first request read."""

BLOCKS_AHEAD = 4
"""Blocks that a reader may have ready before the scheduler looks. With Ray's own 2, and blocks half as large, 2 GB through an
echo model took 12.6 s instead of 8.7 s."""

MOST_BLOCKS_AHEAD = 16
"""With many workers a reader may have ready one for every second of them, and up to so many: what one reader has ready bounds
how many blocks a second come of one object, of which the last hold a mini-batch each. With 4, one object kept 8 of 32 workers
busy that took 0.3 s a mini-batch, in the end: 0.52 of the ideal, instead of 0.90. With 32, no more: what is ready was cut when
more was left, so the workers end less alike."""

BLOCKS_OF_LARGE_PAYLOADS = 2
"""TASKS_IN_FLIGHT and BLOCKS_AHEAD of mini-batches that are larger than a block: each is work enough, and memory enough."""

STAGED_GROWTH = 8
"""How many times as long as a payload what input_fn makes of it is taken to be: an image's pixels, beside its JPEG."""

READ_AHEAD_BYTES = 128 * MIB
"""How much may lie between the stages, or what workers and readers have if that is more; bounds memory whatever the input's
size."""

_SHARE_OF_READERS = 3 / 4
"""What Ray Data lets a job's first stage have of it: it keeps a quarter for the second one."""


class LeastBlock:
    """How many bytes a reader's last blocks hold at least."""

    def __init__(self, ahead_bytes: int, settle: Callable[[int], int]) -> None:
        """Begin to read.

        Args:
            ahead_bytes: how much may lie between the reader and what is done; so much is read as fast as it can be.
            settle: takes a number of bytes for the job; gives it, or the one that was taken first.
        """
        self._ahead_bytes = ahead_bytes
        self._settle = settle
        self._given_bytes = 0
        self._began: tuple[float, int] | None = None
        self._settled: int | None = None

    def gave(self, n_bytes: int) -> None:
        """Note a block, when there is room for the next one."""
        self._given_bytes += n_bytes
        if self._began is None and self._given_bytes >= self._ahead_bytes:
            self._began = time.monotonic(), self._given_bytes

    def n_bytes(self) -> int:
        """What is taken in LEAST_BLOCK_S, if that was seen when it is first asked for; else 0."""
        if self._settled is None:
            self._settled = self._settle(int(self._taken_bytes_s() * LEAST_BLOCK_S))
        return self._settled

    def _taken_bytes_s(self) -> float:
        """How many bytes were taken in a second; 0 while too few were for it to be known how much was only read ahead."""
        began_at, before = self._began or (0.0, self._given_bytes)
        taken_bytes = self._given_bytes - before
        if taken_bytes < self._ahead_bytes // 2:
            return 0.0
        return taken_bytes / max(time.monotonic() - began_at, LEAST_BLOCK_S)


def choose_block_bytes(left_bytes: int, consumers: int, max_block_bytes: int = MAX_BLOCK_BYTES) -> int:
    """How many bytes of mini-batches a block should hold at least, when ``left_bytes`` of the input are still to come."""
    return min(max(left_bytes // (consumers * BLOCKS_LEFT_PER_WORKER), 1), max_block_bytes)


def read_ahead_bytes(plan: Plan, pool: Pool) -> int:
    """How much may lie between the stages: what all workers and readers may have, for with less Ray Data holds back both."""
    in_workers = pool.most_workers * blocks_in_flight(plan, pool)
    ahead = (pool.readers + pool.input_workers) * blocks_in_reader(plan, pool)
    return max(READ_AHEAD_BYTES, int((in_workers + ahead) * largest_bytes(plan, pool) / _SHARE_OF_READERS))


def block_limit(pool: Pool) -> int:
    """How many bytes a block is filled to at the most."""
    limit = block_limit_bytes(pool.workers, pool.requests_per_worker)
    return max(limit // STAGED_GROWTH, 1) if pool.input_workers else limit


def block_limit_bytes(workers: int, requests_per_worker: int) -> int:
    """How many bytes a block is filled to at the most, when so many workers have so many requests under way each."""
    for_all = max(MAX_BLOCK_BYTES, GROWTH_BYTES * -(-workers // WORKERS_OF_SMALL_BLOCKS))
    return max(for_all // requests_per_worker, 1)


def blocks_ahead(workers: int, requests_per_worker: int) -> int:
    """How many blocks a reader may have ready, when so many workers have so many requests under way each."""
    return max(BLOCKS_AHEAD * requests_per_worker, min(workers * requests_per_worker // 2, MOST_BLOCKS_AHEAD))


def largest_bytes(plan: Plan, pool: Pool) -> int:
    """The most bytes that a block is expected to hold."""
    return max(block_limit(pool), plan.job.max_payload_bytes or 0)


def blocks_in_flight(plan: Plan, pool: Pool) -> int:
    """How many blocks a worker may have."""
    waiting = BLOCKS_OF_LARGE_PAYLOADS if _has_large_payloads(plan, pool) else TASKS_IN_FLIGHT
    return waiting * pool.requests_per_worker


def blocks_in_reader(plan: Plan, pool: Pool) -> int:
    """How many blocks a reader, or who stages input, may have ready."""
    if _has_large_payloads(plan, pool):
        return BLOCKS_OF_LARGE_PAYLOADS * pool.requests_per_worker
    return blocks_ahead(pool.workers, pool.requests_per_worker)


def _has_large_payloads(plan: Plan, pool: Pool) -> bool:
    """Whether a mini-batch may be larger than a block is filled to."""
    return largest_bytes(plan, pool) > block_limit(pool)
