"""Does anything get lost: so many random faults at random moments, each job compared with the undisturbed one.

::

    python -m benchmarks.faults                      200 faults, some twenty minutes
    python -m benchmarks.faults --faults 20 --seed 7

Faults are SIGKILL of the driver, of a model's process, of a worker, of a reader and of a whole node, SIGTERM of the driver,
errors of the input's and output's file system that pass, lost answers among them, and an input that may not be read, which has
to fail alone. A job has up to four of them, and is run again until it is complete.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

if __package__ in {None, ""}:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.campaign import KINDS, Campaign, report


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200, help="how many faults at least (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random choices (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help="which (default: all)")
    options = parser.parse_args(arguments)
    rng = random.Random(options.seed)
    kinds, nodes = tuple(options.kinds), "node killed" in options.kinds
    with (
        tempfile.TemporaryDirectory() as folder,
        Campaign(Path(folder) / "campaign", options.seed, kinds, nodes=nodes) as campaign,
    ):
        while (done := sum(campaign.report.faults.values())) < options.faults:
            print(f"{done} of {options.faults} faults, {len(campaign.report.differences)} differences", file=sys.stderr)
            campaign.run_job(rng.randint(1, min(4, options.faults - done)))
        return report(campaign)


if __name__ == "__main__":
    sys.exit(main())
