"""Which process a number stands for, told from an earlier one that had the same number."""

from __future__ import annotations

import psutil

_TICK_DIGITS = 2


def started_after_boot_s(pid: int) -> float:
    """When a process was started, in seconds since its machine was.

    The same in each process that asks, at any time: Unix time is not, since psutil adds the machine's own start, which moves
    whenever the clock is set (by NTP, or after a virtual machine slept).

    Raises:
        psutil.NoSuchProcess: there is none.
    """
    process = psutil.Process(pid)
    booted_at = psutil.boot_time()
    while True:
        started_at = process.create_time()
        # psutil keeps what it said once of a process, and reads the machine's start anew: the clock may be set in between.
        if booted_at == (again := psutil.boot_time()):
            return round(float(started_at - booted_at), _TICK_DIGITS)
        process, booted_at = psutil.Process(pid), again
