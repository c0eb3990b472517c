"""The job as a plain PyTorch script: one process, torch's own threads, files one after another.

It reads a batch of lines, decodes them, predicts, and writes each prediction beside its record's id and date, in order.
With ``--same-code`` it calls the functions of rayxform's example, so that what is left between the two is rayxform.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import IO

from benchmarks.peers.images import SameCode, UsualCode, job_parser, mark


def main() -> None:
    parser = job_parser(__doc__)
    parser.add_argument("--same-code", action="store_true")
    options = parser.parse_args()

    model = (SameCode if options.same_code else UsualCode)(options.model)
    options.output.mkdir(parents=True)
    for source in sorted(options.input.iterdir()):
        with source.open("rb") as lines, (options.output / f"{source.name}.out").open("w") as output:
            for batch in batches(lines, options.batch):
                records = [json.loads(line) for line in batch]
                labels = model.predict([record["inputs"] for record in records])
                for record, label in zip(records, labels, strict=True):
                    joined = {"SageMakerOutput": {"predictions": label}, "id": record["id"], "date": record["date"]}
                    output.write(json.dumps(joined) + "\n")
                mark(options.marks, len(records))


def batches(lines: IO[bytes], size: int) -> Iterator[list[bytes]]:
    while batch := list(islice(lines, size)):
        yield batch


if __name__ == "__main__":
    main()
