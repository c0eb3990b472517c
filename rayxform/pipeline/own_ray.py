"""What Ray Data starts for clusters, and a Ray of the job's own, on one machine and with nobody else, does without.

Each is an actor, that is a process more, which a job waits for as it starts and which wakes a hundred times a second:

- ``_StatsActor`` counts for Ray's dashboard, of which there is none, and gives data sets their numbers;
- ``_AutoscalingCoordinatorActor`` divides a cluster that grows among several data sets;
- ``ActorLocationTracker`` tells the nodes of workers, of which there is one.

Ray Data has no setting for them, so what asks for them is replaced in this process for as long as the job runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from uuid import uuid4

import ray
from ray.data import ExecutionResources
from ray.data._internal import stats
from ray.data._internal.cluster_autoscaler import ClusterAutoscaler
from ray.data._internal.execution import streaming_executor
from ray.data._internal.execution.operators import actor_pool_map_operator


# Ray Data has no types, so a subclass of its class is one of Any.
class _OneMachine(ClusterAutoscaler):  # type: ignore[misc]
    """A cluster that stays as it is."""

    def __init__(self, *_: object, **__: object) -> None:
        """Take what there is; what Ray Data tells an autoscaler is of no use here."""
        self._resources = ExecutionResources.from_resource_dict(ray.cluster_resources())

    def try_trigger_scaling(self) -> None:
        """Ask for nothing."""

    def on_executor_shutdown(self) -> None:
        """Take back nothing."""

    def get_total_resources(self) -> Any:
        """All that there is."""
        return self._resources


class _Nobody:
    """An actor that is told something, and does nothing with it."""

    @property
    def update_actor_location(self) -> _Nobody:
        """What a worker calls as it starts."""
        return self

    def remote(self, *_: object) -> None:
        """Call that."""


def _nothing(*_: object, **__: object) -> None:
    pass


_REPLACED: Final[tuple[tuple[Any, str, Any], ...]] = (
    (streaming_executor, "create_cluster_autoscaler", _OneMachine),
    (actor_pool_map_operator, "get_or_create_actor_location_tracker", _Nobody),
    (actor_pool_map_operator, "get_actor_locations", lambda _: {}),  # then a worker is where it said that it is
    (stats._StatsManager, "gen_dataset_id_from_stats_actor", staticmethod(lambda: uuid4().hex)),  # noqa: SLF001 - no other way
    (stats._StatsManager, "register_dataset_to_stats_actor", staticmethod(_nothing)),  # noqa: SLF001
    (stats._StatsManager, "update_execution_metrics", staticmethod(_nothing)),  # noqa: SLF001
    (stats._StatsManager, "update_iteration_metrics", staticmethod(_nothing)),  # noqa: SLF001
)


@contextmanager
def without_actors_of_clusters(*, is_own: bool) -> Iterator[None]:
    """Have Ray Data start none of them for as long as the context lasts.

    Args:
        is_own: whether Ray is the job's own; else nothing is replaced, nor with a release of Ray that has other names for it.
    """
    are_known = all(name in vars(place) for place, name, _ in _REPLACED)
    with ExitStack() as stack:
        for place, name, replacement in _REPLACED if is_own and are_known else ():
            stack.callback(setattr, place, name, vars(place)[name])
            setattr(place, name, replacement)
        yield
