"""The variables that Ray reads when it is imported, and hands on to what it starts. It imports no Ray, to come before it."""

from __future__ import annotations

import os
from typing import Final

_QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_USAGE_DISABLED": "1",
    "RAY_verbose_spill_logs": "0",
    "RAY_TQDM": "0",
    # Ray's core logs to the terminal what concerns Ray's developers; its log files keep everything from errors on.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

_LOCAL: Final = {
    # A reader that has nothing to read for a second would end, and another start when there is.
    "RAY_idle_worker_killing_time_threshold_ms": "86400000",
    # A block that was worked on goes once a second, or when there are a hundred. Readers then fill memory that is new to them
    # instead, which the system clears page by page: with an echo model, 0.3 s of a core for each GB.
    "RAY_free_objects_period_milliseconds": "50",
    # What Ray's dashboard shows, and its developers read in its logs; the job has no dashboard, and a page of its own. Both
    # together take 4 % of what a job of an echo model does.
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "0",
    # Else workers run at 15, and beside other programs that keep all cores busy get next to none of them: three on two cores
    # made a job of 6.8 s last 168 s, at 0 15 s. Who wants that starts the command by nice.
    "RAY_worker_niceness": "0",
}


def address_of_ray(address: str | None) -> str | None:
    """Which cluster a job joins: the one it names, else that of RAY_ADDRESS; None for a Ray of this machine, for the job."""
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    return None if address == "local" else address


def set_variables(*, is_local: bool) -> None:
    """Set those that nobody has set."""
    for name, value in (_QUIET | (_LOCAL if is_local else {})).items():
        os.environ.setdefault(name, value)
