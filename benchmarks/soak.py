"""Does it last: jobs with random faults for so many minutes on one cluster, and what is left behind after each of them.

::

    python -m benchmarks.soak --minutes 30

Beside what ``faults`` prints: the memory of the cluster's processes and their number after the first jobs and at the end, and
the files that completed jobs left in their state folders, which is their log of events alone.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

if __package__ in {None, ""}:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil

from benchmarks.campaign import Campaign, report

SETTLE_JOBS = 3
"""Jobs before the first reading, by which all that a cluster starts once has been started."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random choices (default: %(default)s)")
    options = parser.parse_args(arguments)
    end_at = time.monotonic() + 60 * options.minutes
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder, Campaign(Path(folder) / "campaign", options.seed) as campaign:
        first = last = (0.0, 0)
        while time.monotonic() < end_at:
            campaign.run_job(rng.randint(0, 3))
            last = _processes()
            first = last if campaign.report.jobs <= SETTLE_JOBS else first
            state = Path(folder) / "campaign/output/.rayxform/job"
            left = sorted(path.name for path in state.iterdir()) if state.exists() else []
            if not all(name.startswith("events") for name in left):
                campaign.report.differences.append(f"a complete job left {left} in its state folder")
            print(f"{campaign.report.jobs} jobs, {last[0]:,.0f} MiB in {last[1]} processes", file=sys.stderr)
        code = report(campaign)
        print(f"after {SETTLE_JOBS} jobs: {first[0]:,.0f} MiB in {first[1]} processes; at the end: {last[0]:,.0f} in {last[1]}")
        return code


def _processes() -> tuple[float, int]:
    """Private memory, in MiB, and number of the processes that the cluster has."""
    total, number = 0.0, 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().uss / 2**20
            number += 1
    return total, number


if __name__ == "__main__":
    sys.exit(main())
