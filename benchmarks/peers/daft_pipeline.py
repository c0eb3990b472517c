"""The job in Daft (``pip install daft``): ``read_json``, a class as a batch function, ``write_json``.

Written after Daft's guide to batch inference: as many instances of the model as there are cores, each with one thread, in
processes of their own, and batches of the size that the other peers have. Daft infers dates, and keeps no order.
"""

from __future__ import annotations

import daft
import torch
from daft import DataType, Series

from benchmarks.measure import core_count
from benchmarks.peers.images import UsualCode, job_parser, mark


def main() -> None:
    options = job_parser(__doc__).parse_args()

    @daft.cls(max_concurrency=core_count(), use_process=True)
    class Classifier:
        def __init__(self) -> None:
            torch.set_num_threads(1)
            self.model = UsualCode(options.model)

        @daft.method.batch(return_dtype=DataType.int64(), batch_size=options.batch)
        def predict(self, inputs: Series) -> list[int]:
            labels = self.model.predict(inputs.to_pylist())
            mark(options.marks, len(labels))
            return labels

    records = daft.read_json(f"{options.input}/*.jsonl").into_batches(options.batch)
    predicted = records.select("id", "date", Classifier().predict(records["inputs"]).alias("predictions"))
    predicted.write_json(str(options.output))


if __name__ == "__main__":
    main()
