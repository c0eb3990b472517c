"""``Rayxform.StageInput``: input_fn in workers of its own, on cores that the model's workers leave, before the model's pool.

What it makes of a request travels beside the body. The body still goes along: a request that fails is cut, and asked again
from its records, in the model's own worker, which says what went wrong and where.
"""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa

from rayxform.errors import InvocationError, ModelLoadError, RayxformError
from rayxform.model import Model
from rayxform.pipeline.blocks import pack_batches, unpack_batches
from rayxform.pipeline.heap import keep_freed_memory
from rayxform.pipeline.model_source import request_context, start_model
from rayxform.pipeline.rows import fatal_entry
from rayxform.spec import TransformJob


class InputWorker:
    """One actor of the pool that reads input; called by Ray Data with one block at a time."""

    def __init__(self, job: TransformJob) -> None:
        keep_freed_memory()
        self._job = job
        self._model: Model | None = None
        self._load_error: str | None = None
        try:
            self._model = start_model(job, 1, "", reads_input=True)
        except RayxformError as error:
            self._load_error = fatal_entry(error)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Read the input of a block's mini-batches; gives the block, with what became of each as its ``staged``."""
        rows = []
        for batch, payload in unpack_batches(block):
            row = batch | {"payload": payload}
            if payload is not None and batch["error"] is None:
                began = time.perf_counter()
                row["staged"] = self._read(batch, payload)
                row["read_s"] += time.perf_counter() - began
                if self._load_error is not None:
                    row |= {"error": self._load_error, "n_records": 0}
            rows.append(row)
        return pack_batches(rows)

    def _read(self, batch: dict[str, Any], payload: memoryview) -> bytes | None:
        """What input_fn makes of a request; None where it fails, which the model's worker then sees for itself."""
        if self._model is None:
            return None
        place = (batch["object"], batch["first_record"], batch["n_records"])
        context = request_context(self._job, self._model.model_dir, *place)
        try:
            return self._model.transform(payload, context.content_type, context.accept, context).body
        except InvocationError:
            return None
        except ModelLoadError as error:
            self._load_error = fatal_entry(error)
            return None
