"""Blocks: what a reader hands to workers is every mini-batch, once and in order, in portions that shrink towards the end."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayxform.core.batching import MIB, MiniBatch
from rayxform.pipeline import reading
from rayxform.pipeline.dataset import MAX_BLOCK_BYTES, ReadGroup, block_limit_bytes, choose_block_bytes, read_group
from rayxform.pipeline.reading import NoSeams, read_range
from rayxform.pipeline.rows import BATCH_SCHEMA, BLOCK_SCHEMA, pack_block, payload_views, unpack_block


@pytest.mark.parametrize(
    ("workers", "requests", "mib"), [(1, 1, 8), (64, 1, 8), (65, 1, 16), (500, 1, 64), (1, 4, 2), (1, 2**30, 0)]
)
def test_blocks_grow_with_the_number_of_workers(workers, requests, mib):
    """500 GPUs that take 10 MB a second each are 75 blocks a second for the driver, and not 600."""
    assert block_limit_bytes(workers, requests) // MIB == mib
    assert block_limit_bytes(workers, requests) >= 1


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
    block = pack_block(batches, BATCH_SCHEMA)
    assert (block.num_rows, block.schema) == (1, BLOCK_SCHEMA)
    absent = dict.fromkeys(BATCH_SCHEMA.names)
    assert unpack_block(block, BATCH_SCHEMA).to_pylist() == [absent | batch for batch in batches]
    views = payload_views(unpack_block(block, BATCH_SCHEMA))
    assert [view if view is None else bytes(view) for view in views] == [batch["payload"] for batch in batches]
    # Ray hands a worker a slice of a block, if it joined several.
    both = pa.concat_tables([block, block]).combine_chunks()
    last = unpack_block(both.slice(1, 1), BATCH_SCHEMA)
    assert last.to_pylist() == [absent | batch for batch in batches]
    views = payload_views(last)
    assert [view if view is None else bytes(view) for view in views] == [batch["payload"] for batch in batches]


LINES = b"".join(b'{"id": %d, "x": "%s"}\n' % (i, b"y" * 1000) for i in range(60_000))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_mini_batch_is_in_a_block_once_and_the_last_blocks_are_single_mini_batches(workspace, workers):
    workspace.write("a.jsonl", LINES)
    plan = workspace.plan()
    (whole,) = plan.ranges()
    expected = [packed.payload for packed in read_range(whole, plan.recipe, NoSeams()) if isinstance(packed, MiniBatch)]
    group = ReadGroup([whole], 0)
    sizes = {"total_bytes": plan.n_bytes, "max_block_bytes": MAX_BLOCK_BYTES}
    blocks = [*read_group(group, job=plan.job, consumers=workers, seams=NoSeams(), **sizes)]
    payloads = [
        [payload for payload in unpack_block(block, BATCH_SCHEMA)["payload"].to_pylist() if payload is not None]
        for block in blocks
    ]
    assert [payload for block in payloads for payload in block] == expected
    assert max(sum(map(len, block)) for block in payloads) < MAX_BLOCK_BYTES + MIB
    sizes = [len(block) for block in payloads if block]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-workers:] == [1] * workers
    assert sizes[0] > 1 or workers > 1


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
