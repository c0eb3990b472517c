"""Blocks: what a reader hands to workers is every mini-batch, once and in order, in portions that shrink towards the end."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayxform.core.batching import MIB, MiniBatch
from rayxform.pipeline import flow, reading
from rayxform.pipeline.blocks import BATCHES_SCHEMA, pack_batches, pack_manifest, unpack_batches, unpack_manifest
from rayxform.pipeline.cluster import ray_session
from rayxform.pipeline.dataset import ReadGroup, _compute, _context, read_group
from rayxform.pipeline.flow import MAX_BLOCK_BYTES, block_limit_bytes, blocks_ahead, choose_block_bytes
from rayxform.pipeline.pool import Resources, plan_pool
from rayxform.pipeline.reading import NoSeams, read_range
from rayxform.pipeline.seams import shared_seams


@pytest.mark.parametrize(
    ("workers", "requests", "mib"), [(1, 1, 24), (64, 1, 24), (65, 1, 32), (500, 1, 128), (1, 4, 6), (1, 2**30, 0)]
)
def test_blocks_grow_with_the_number_of_workers(workers, requests, mib):
    """500 GPUs that take 10 MB a second each are 75 blocks a second for the driver, and not 600."""
    assert block_limit_bytes(workers, requests) // MIB == mib
    assert block_limit_bytes(workers, requests) >= 1


@pytest.mark.parametrize(
    ("workers", "requests", "blocks"), [(1, 1, 4), (8, 1, 4), (9, 1, 4), (20, 1, 10), (32, 1, 16), (500, 1, 16), (2, 8, 32)]
)
def test_one_reader_keeps_many_workers_busy(workers, requests, blocks):
    """Ray looks some ten times a second, and the last blocks hold a mini-batch each."""
    assert blocks_ahead(workers, requests) == blocks


@pytest.mark.parametrize("payload_mb", [1, 50])
def test_workers_that_have_all_they_can_take_let_ray_start_more(workspace, payload_mb):
    """Ray Data asks for another worker by the blocks that the present ones have; test_nodes waits until one comes."""
    workspace.write("a.jsonl", LINES)
    plan = workspace.plan(MaxPayloadInMB=payload_mb)
    pool = plan_pool(Resources(2, 0, 2**34))
    compute, config = _compute(plan, pool), _context(plan, pool).autoscaling_config
    assert (compute.min_size, compute.max_size) == (2, float("inf"))
    full = compute.max_tasks_in_flight_per_actor / compute.max_concurrent_calls_per_actor
    assert full >= config.actor_pool_util_upscaling_threshold > config.actor_pool_util_downscaling_threshold


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "file": st.integers(0, 9),
                "object": st.text(max_size=5),
                "payload": st.none() | st.binary(max_size=50),
                "source": st.none() | st.binary(max_size=50),
                "error": st.none() | st.text(max_size=5),
            }
        ),
        min_size=1,
        max_size=20,
    )
)
def test_a_block_gives_back_its_mini_batches(batches):
    def unpacked(block):
        return [
            {name: value for name, value in (row | {"payload": payload and bytes(payload)}).items() if value is not None}
            for row, payload in unpack_batches(block)
        ]

    block = pack_batches(batches)
    assert (block.num_rows, block.schema) == (1, BATCHES_SCHEMA)
    given = [{name: value for name, value in batch.items() if value is not None} for batch in batches]
    assert unpacked(block) == given
    assert all("offset" in row and row["offset"] is None for row, _ in unpack_batches(block))  # what was not said is None
    # Ray hands a worker a slice of a block, if it joined several.
    both = pa.concat_tables([pack_batches(batches[:1]), block])
    assert unpacked(both.slice(1, 1)) == given
    assert unpacked(both.combine_chunks().slice(1, 1)) == given


def test_the_driver_may_get_the_rows_of_several_blocks_in_one():
    rows = [[{"file": 1, "record_errors": ["x"]}], [], [{"file": 2, "part": "p"}, {"file": 3}]]
    both = pa.concat_tables([pack_manifest(part) for part in rows])
    for table in (both, both.combine_chunks()):
        found = [*unpack_manifest(table)]
        assert [(row["file"], row["part"], row["record_errors"]) for row in found] == [
            (1, None, ["x"]),
            (2, "p", None),
            (3, None, None),
        ]
        assert [row["file"] for row in unpack_manifest(table.slice(2))] == [2, 3]


LINES = b"".join(b'{"id": %d, "x": "%s"}\n' % (i, b"y" * 1000) for i in range(60_000))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_mini_batch_is_in_a_block_once_and_the_last_blocks_are_single_mini_batches(workspace, workers):
    workspace.write("a.jsonl", LINES)
    plan = workspace.plan()
    (whole,) = plan.ranges()
    expected = [packed.payload for packed in read_range(whole, plan.recipe, NoSeams()) if isinstance(packed, MiniBatch)]
    group = ReadGroup([whole], 0)
    sizes = {"total_bytes": plan.n_bytes, "max_block_bytes": MAX_BLOCK_BYTES, "ahead_bytes": plan.n_bytes}
    blocks = [*read_group(group, job=plan.job, consumers=workers, seams=NoSeams(), **sizes)]
    payloads = [[bytes(payload) for _, payload in unpack_batches(block) if payload is not None] for block in blocks]
    assert [payload for block in payloads for payload in block] == expected
    assert max(sum(map(len, block)) for block in payloads) < MAX_BLOCK_BYTES + MIB
    sizes = [len(block) for block in payloads if block]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-workers:] == [1] * workers
    assert sizes[0] > 1 or workers > 1


class Board(NoSeams):
    """Holds what was settled first, as Ray's store does."""

    def __init__(self):
        self.settled = []

    def settle(self, n_bytes):
        self.settled.append(n_bytes)
        return self.settled[0]


class Clock:
    """A second passes between two blocks, or less."""

    def __init__(self, step_s):
        self.now, self.step_s = 0.0, step_s

    def monotonic(self):
        self.now += self.step_s
        return self.now


def block_sizes(plan, board, step_s, monkeypatch, ahead_bytes):
    monkeypatch.setattr(flow, "time", Clock(step_s))
    group = ReadGroup(plan.ranges(), 0)
    sizes = {"total_bytes": plan.n_bytes, "max_block_bytes": 8 * MIB, "ahead_bytes": ahead_bytes}
    blocks = read_group(group, job=plan.job, consumers=1, seams=board, **sizes)
    return [[len(payload) for _, payload in unpack_batches(block) if payload is not None] for block in blocks]


def test_the_last_blocks_hold_what_is_taken_in_a_moment_and_a_reader_that_is_started_again_cuts_alike(workspace, monkeypatch):
    for name in ("a", "b", "c"):
        workspace.write(f"{name}.jsonl", LINES)
    plan = workspace.plan()
    slow = block_sizes(plan, NoSeams(), 1000.0, monkeypatch, 20 * MIB)
    board = Board()
    fast = block_sizes(plan, board, 0.001, monkeypatch, 20 * MIB)
    assert [size for block in fast for size in block] == [size for block in slow for size in block]
    assert len(slow[-2]) == 1, "a slow model is given the last mini-batches one by one"
    assert len(fast) < len(slow)
    assert min(map(len, fast[:-1])) >= 3
    again = block_sizes(plan, board, 1000.0, monkeypatch, 20 * MIB)
    assert again == fast, "though blocks are taken a million times slower now"
    assert len(board.settled) == 2
    for ahead_bytes in (plan.n_bytes, 100 * MIB):
        unseen = Board()
        assert block_sizes(plan, unseen, 0.001, monkeypatch, ahead_bytes) == slow, "most of it may only have been read ahead"
        assert unseen.settled == [0]


def test_what_is_settled_first_is_what_all_readers_hear(ray_address):
    with ray_session(ray_address), shared_seams() as seams, shared_seams() as others:
        assert [seams.settle(n_bytes) for n_bytes in (5_000_000, 0, 7)] == [5_000_000] * 3
        assert others.settle(0) == 0


@given(st.integers(0, 10**15), st.integers(1, 10_000))
def test_a_block_is_a_share_of_what_is_left_and_never_too_large(left_bytes, workers):
    size = choose_block_bytes(left_bytes, workers)
    assert 1 <= size <= MAX_BLOCK_BYTES
    assert size * workers <= max(left_bytes, workers)


def test_a_reader_that_waits_for_its_neighbour_holds_little_and_loses_nothing(workspace, monkeypatch):
    workspace.write("a.jsonl", LINES[:3_000_000])
    whole = workspace.plan()
    expected = [packed for one in whole.ranges() for packed in read_range(one, whole.recipe, NoSeams())]
    cut = workspace.plan(range_bytes=1_000_000)
    monkeypatch.setattr(reading, "HELD_BYTES", 1)
    # Nobody tells it, so that it has to find out by itself.
    found = [packed for one in cut.ranges() for packed in read_range(one, cut.recipe, NoSeams())]
    assert found == expected
