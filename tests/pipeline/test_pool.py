"""How many workers a job gets, and that readers always have a share of the CPUs left."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rayxform.core.batching import MIB
from rayxform.errors import ResourceError
from rayxform.pipeline.pool import READER_CPUS, Resources, plan_pool
from tests.support import cases


@pytest.mark.parametrize("case", cases("pool"), ids=lambda case: case["source"])
def test_case(case):
    cpus, gpus, memory_mib, *node_cpus = case["there"]
    there = Resources(cpus, gpus, memory_mib * MIB, *node_cpus, may_grow=case.get("may_grow", True))
    if "error" in case:
        with pytest.raises(ResourceError, match=case["error"]):
            plan_pool(there, **case.get("asked", {}))
        return
    pool = plan_pool(there, **case.get("asked", {}))
    assert {name: getattr(pool, name) for name in case["pool"]} == case["pool"]


@given(st.integers(1, 512), st.integers(0, 16), st.none() | st.integers(1, 600), st.none() | st.floats(0.1, 64), st.booleans())
@example(2, 0, None, 0.25, False)
@example(512, 0, None, 0.25, False)
@example(96, 0, None, 0.3, False)
def test_a_pool_never_takes_every_cpu(cpus, gpus, workers, cpus_per_worker, stage_input):
    there = Resources(cpus, gpus, 2**40)
    try:
        pool = plan_pool(there, workers=workers, cpus_per_worker=cpus_per_worker, stage_input=stage_input)
    except ResourceError:
        return
    assert pool.workers >= 1
    assert (pool.input_workers > 0) == stage_input
    free_cpus = cpus - pool.workers * pool.reserved_cpus - pool.input_workers * pool.input_cpus
    # A reader's half, or, in a pool that grows and where a worker reserves less than that, nearly as much as a worker.
    least_free_cpus = min(READER_CPUS, 0.96 * pool.reserved_cpus) if pool.grows and not pool.gpus else READER_CPUS
    assert free_cpus >= least_free_cpus - 1e-6
    assert min(free_cpus + 1e-6, READER_CPUS) >= pool.reader_cpus > 0
    assert 1 <= pool.readers <= max(1, cpus // 2, pool.most_workers // 2)
    assert pool.grows or pool.readers * pool.reader_cpus <= free_cpus + 1e-6
    # On the machines that are there a pool that grows finds no room for one more.
    assert not pool.grows or (gpus - pool.workers * pool.gpus < pool.gpus if pool.gpus else free_cpus < pool.reserved_cpus)
