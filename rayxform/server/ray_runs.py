"""Runs as jobs of a Ray cluster's job server, which keeps them while the endpoint is away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayxform.ray_jobs import RayJobs
from rayxform.server.runs import Run


class RayRuns:
    """See Runs; TransformJobName is the submission id."""

    def __init__(self, address: str) -> None:
        """Connect to a job server.

        Raises:
            ClusterError: there is none at the address.
        """
        self._jobs = RayJobs(address)

    def begin(self, name: str, attempt: int, members: Mapping[str, Any], within: Sequence[str]) -> None:
        """See Runs; an id that is there already, running or ended, is that run."""
        self._jobs.submit(_submission_id(name, attempt), members, name=name, within=within)

    def look(self, name: str, attempt: int) -> Run:
        """See Runs; a job server that was started again has forgotten its jobs, and they died with it."""
        state = self._jobs.look(_submission_id(name, attempt))
        message = f"{state.message}; see its log: ray job logs {_submission_id(name, attempt)} --address {self._jobs.address}"
        return Run(goes_on=state.is_running, result=state.result, message=message)

    def stop(self, name: str, attempt: int) -> None:
        """See Runs."""
        self._jobs.stop(_submission_id(name, attempt))


def _submission_id(name: str, attempt: int) -> str:
    """No job's name has an underscore, so the second run of one is not the first of another."""
    return name if attempt == 1 else f"{name}_{attempt}"
