"""How many workers a job gets and what each may use: a pure decision from the job and what there is.

A pool that reserves every CPU leaves none for readers and would hang Ray Data for ever, silently. So a worker reserves a
share of the cores it computes on, and some CPUs, enough for one reader at the least, stay free.

Where nobody said how many workers there are to be, machines that join while the job runs get some too. Ray Data then starts
one wherever there is room, so what stays free on the machines that are there must be less than a worker reserves.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Literal

from rayxform.core.batching import MIB
from rayxform.errors import ResourceError

READER_CPUS = 0.5
"""What a reader mostly reserves; the quarter of the CPUs that is kept for them then gives one for two cores. One reads as fast
as two workers echo. A second one on two cores took 1.3 s of a core to start, and 0.8 s off the first mini-batch.

No more read at a time than that, though there may be room: so many wait for small objects of a store. Ray Data would begin as
many as there are CPUs left, beside one GPU some thirty, and then count what each of them may have ready as memory in use, so
that it lets out a block only where a worker has none: 24 readers kept four workers busy three quarters of the time."""

MOST_GROWTH = 8
"""Where machines may join with workers of their own: what is set once is set for so many times the first workers. Ray Data
keeps it within half of the object stores that there are."""

MIN_WORKER_CPUS = 0.25
"""How far workers may share cores."""

_BELOW = 0.98
"""How much less than a worker reserves stays free."""

_CPU_STEPS = (1_000, 10_000)
"""What is reserved is rounded off to thousandths; where many workers then leave too much, to Ray's own ten-thousandths."""


@dataclass(frozen=True)
class Resources:
    """What there is.

    Attributes:
        cpus: CPUs.
        gpus: GPUs.
        memory_bytes: memory that Ray may hand out.
        node_cpus: CPUs of the smallest machine that has any; None where there is one machine.
        may_grow: whether machines may join.
    """

    cpus: float
    gpus: float
    memory_bytes: float
    node_cpus: float | None = None
    may_grow: bool = True


@dataclass(frozen=True)
class Pool:
    """The actor pool.

    Attributes:
        workers: how many.
        reserved_cpus: what each reserves of Ray's CPUs.
        gpus: GPUs of each.
        memory_bytes: memory that each reserves; None for no reservation.
        threads: how many threads the model's arithmetic may use in each; None leaves it to the libraries.
        requests_per_worker: how many requests each has under way at a time.
        reader_cpus: what a reader reserves of Ray's CPUs.
        readers: how many may read at a time.
        grows: whether machines that join get workers too.
        input_workers: how many workers read input before the model's (StageInput).
        input_cpus: what each of them reserves of Ray's CPUs.
        is_on_one_machine: whether all workers are on this machine, and no other will join.
    """

    workers: int
    reserved_cpus: float
    gpus: float
    memory_bytes: int | None
    threads: int | None
    requests_per_worker: int = 1
    reader_cpus: float = READER_CPUS
    readers: int = 1
    grows: bool = False
    input_workers: int = 0
    input_cpus: float = 0.0
    is_on_one_machine: bool = False

    @property
    def most_workers(self) -> int:
        """How many workers there may be when machines have joined."""
        return self.workers * (MOST_GROWTH if self.grows else 1)

    @property
    def requests_at_once(self) -> int:
        """How many requests all workers have under way at a time."""
        return self.workers * self.requests_per_worker


def plan_pool(
    there: Resources,
    *,
    workers: int | None = None,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
    memory_per_worker_bytes: int | None = None,
    server: Literal["Endpoint", "Command"] | None = None,
    requests_per_worker: int = 1,
    stage_input: bool = False,
) -> Pool:
    """The pool for a job: as many workers as it names, else one a GPU, else one a core.

    The worker of a model server is a client, with many requests under way. One is enough for an Endpoint, and hardly needs
    a CPU. A Command has one server a GPU, else a single one, which uses the machine's cores itself.

    Workers that share cores (more of them than cores, and no CpusPerWorker) are fine down to a quarter of a core each.

    With StageInput the cores that are left read input: beside GPUs nearly all there are, else half of them.

    Args:
        there: what there is.
        workers: how many workers; None to decide here.
        cpus_per_worker: cores of each; None for a fair share, one at the most.
        gpus_per_worker: GPUs of each; None for one where there are any, though none for the client of an Endpoint.
        memory_per_worker_bytes: memory of each; None for no reservation.
        server: the member that names the model server; None for an inference.py.
        requests_per_worker: how many requests each has under way at a time.
        stage_input: whether input_fn runs in workers of its own.

    Raises:
        ResourceError: there is not enough; says of what, how much, and what to write instead.
    """
    default_gpus = 1.0 if there.gpus and server != "Endpoint" else 0.0
    gpus = default_gpus if gpus_per_worker is None else gpus_per_worker
    count = workers or _default_workers(there, gpus, cpus_per_worker or 1.0, server)
    if stage_input and not workers and not gpus:
        count = max(1, count // 2)
    fair = MIN_WORKER_CPUS if server == "Endpoint" else max(min(1.0, there.cpus / count), MIN_WORKER_CPUS)
    share = cpus_per_worker or fair
    _check("CPUs", count, share, there.cpus, "lower Rayxform.CpusPerWorker or the number of workers")
    _check("GPUs", count, gpus, there.gpus, "lower Rayxform.GpusPerWorker or the number of workers")
    memory = memory_per_worker_bytes
    if memory is not None:
        remedy = "lower Rayxform.MemoryPerWorkerInMB or the number of workers"
        _check("MiB of memory", count, memory / MIB, there.memory_bytes / MIB, remedy)
    reserve, reader_cpus = max(READER_CPUS, there.cpus / 4), READER_CPUS
    readers = reserve / READER_CPUS
    may_grow = workers is None and server is None and (gpus > 0 or not stage_input)
    reserved = floor(1000 * share * (there.cpus - reserve) / there.cpus) / 1000
    if may_grow and not gpus and count * share > there.cpus - share / 2 and (tight := _reserve_tightly(there.cpus, count)):
        # In what else stays free another worker would find room. As many readers run, but each reserves less.
        reserved, reserve = tight
        reader_cpus = reserve / readers
    if not gpus:
        # What a machine's workers leave is all that a reader finds there, and none would find room on machines of one CPU.
        node_cpus = there.node_cpus or there.cpus
        left = node_cpus - floor(node_cpus / share + 1e-9) * reserved
        reader_cpus = min(reader_cpus, max(floor(1000 * left), 1) / 1000)
    free_cpus = there.cpus - count * reserved
    grows = may_grow and there.may_grow and (there.gpus - count * gpus < gpus if gpus else free_cpus < reserved)
    threads = None if gpus or (server and not cpus_per_worker) else max(1, floor(share))
    input_workers, input_cpus = _share_input(free_cpus - reserve) if stage_input else (0, 0.0)
    if grows:
        readers = max(readers, count * MOST_GROWTH / 2)
    else:
        readers = max(1.0, min(readers, (free_cpus - input_workers * input_cpus) / reader_cpus + 1e-9))
    return Pool(
        workers=count,
        reserved_cpus=reserved,
        gpus=gpus,
        memory_bytes=memory,
        threads=threads,
        requests_per_worker=requests_per_worker,
        reader_cpus=reader_cpus,
        readers=floor(readers),
        grows=grows,
        input_workers=input_workers,
        input_cpus=input_cpus,
        is_on_one_machine=not there.may_grow,
    )


def _reserve_tightly(cpus: float, workers: int) -> tuple[float, float] | None:
    """What each worker reserves, and about how much stays free, which is less; None where they are too many for Ray's steps."""
    free = min(READER_CPUS, _BELOW * cpus / (workers + 1))
    for steps in _CPU_STEPS:
        reserved = floor(steps * (cpus - free) / workers) / steps
        if cpus - workers * reserved < reserved:
            return reserved, free
    return None


def _share_input(left_cpus: float) -> tuple[int, float]:
    """How many workers read input, and what each reserves, of the CPUs that are left."""
    if left_cpus < MIN_WORKER_CPUS:
        raise ResourceError(
            f"Rayxform.StageInput needs {MIN_WORKER_CPUS:g} CPUs for a worker that reads input, but the model's workers and "
            f"the readers leave {max(left_cpus, 0):g}; lower the number of workers or Rayxform.CpusPerWorker, "
            "or leave StageInput out"
        )
    workers = max(1, floor(left_cpus))
    return workers, floor(1000 * min(left_cpus / workers, 1.0)) / 1000


def _default_workers(there: Resources, gpus: float, cpus: float, server: str | None) -> int:
    if server == "Endpoint" or (server and not gpus):
        return 1
    return max(1, floor(there.gpus / gpus) if gpus else floor(there.cpus / cpus))


def _check(unit: str, workers: int, each: float, there: float, remedy: str) -> None:
    if workers * each > there + 1e-9:
        raise ResourceError(
            f"{workers} workers with {each:g} {unit} each need {workers * each:g} {unit}, but there are {there:g}; {remedy}"
        )
