"""The pool that a job gets, at once or as soon as a cluster that grows has room for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from rayxform.errors import ResourceError
from rayxform.pipeline.cluster import cluster_resources, demand, engine_errors
from rayxform.pipeline.pool import MIN_WORKER_CPUS, Pool, Resources, plan_pool
from rayxform.spec import TransformJob

_POLL_S = 0.5


def find_room(job: TransformJob, there: Resources, workers: int | None, waiting: Callable[[], None]) -> Pool:
    """The job's pool, for which a cluster is waited for that brings nodes, as long as Rayxform.WaitForNodesInSeconds says.

    Args:
        job: the job.
        there: what there is now.
        workers: how many workers; None for as many as the job names, or fit.
        waiting: called twice a second while there is no room; what it raises ends the wait.

    Raises:
        ResourceError: there is no room.
        EngineError: Ray is lost meanwhile.
    """
    workers = workers or job.workers
    try:
        return _plan(job, there, workers)
    except ResourceError as error:
        if not there.may_grow:
            raise
        if not job.wait_for_nodes_s:
            raise ResourceError(f"{error}; where nodes are still to come, set Rayxform.WaitForNodesInSeconds") from None
        missing = error
    give_up_at = time.monotonic() + job.wait_for_nodes_s
    with engine_errors(), demand(_bundle(job), workers or 1):
        while time.monotonic() < give_up_at:
            waiting()
            time.sleep(_POLL_S)
            try:
                return _plan(job, cluster_resources(), workers)
            except ResourceError as error:
                missing = error
    raise ResourceError(f"{missing}; no more came in the {job.wait_for_nodes_s} s of Rayxform.WaitForNodesInSeconds")


def _bundle(job: TransformJob) -> dict[str, float]:
    """What one of the job's workers needs of a cluster: Ray's names of resources → amounts."""
    needs = {
        "CPU": job.cpus_per_worker or (MIN_WORKER_CPUS if job.endpoint else 1.0),
        "GPU": job.gpus_per_worker or 0.0,
        "memory": float(job.memory_per_worker_bytes or 0),
    }
    return {name: amount for name, amount in needs.items() if amount}


def _plan(job: TransformJob, there: Resources, workers: int | None) -> Pool:
    return plan_pool(
        there,
        workers=workers,
        cpus_per_worker=job.cpus_per_worker,
        gpus_per_worker=job.gpus_per_worker,
        memory_per_worker_bytes=job.memory_per_worker_bytes,
        server="Endpoint" if job.endpoint else "Command" if job.command else None,
        requests_per_worker=job.requests_per_worker,
        stage_input=job.stage_input,
    )
