"""Does anything get lost: so many random faults at random moments, each job compared with the undisturbed one.

::

    python -m benchmarks.faults                      200 faults, some twenty minutes
    python -m benchmarks.faults --faults 20 --seed 7
    python -m benchmarks.faults --one-machine        a Ray of the job's own and a plain disk, on which outputs grow in place

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

from benchmarks.campaign import KINDS, OF_ONE_MACHINE, Campaign, report


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200, help="how many faults at least (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random choices (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help="which (default: all)")
    parser.add_argument(
        "--one-machine", action="store_true", help="no cluster, and nothing but the input on a store that fails"
    )
    options = parser.parse_args(arguments)
    rng = random.Random(options.seed)
    kinds = tuple(kind for kind in options.kinds if not options.one_machine or kind in OF_ONE_MACHINE)
    with (
        tempfile.TemporaryDirectory() as folder,
        Campaign(Path(folder) / "campaign", options.seed, kinds, one_machine=options.one_machine) as campaign,
    ):
        while (done := sum(campaign.report.faults.values())) < options.faults:
            print(f"{done} of {options.faults} faults, {len(campaign.report.differences)} differences", file=sys.stderr)
            campaign.run_job(rng.randint(1, min(4, options.faults - done)))
        return report(campaign)


if __name__ == "__main__":
    sys.exit(main())
