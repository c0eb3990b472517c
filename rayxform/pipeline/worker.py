"""The model worker: holds the model, and turns each mini-batch's payload into a response.

It never raises for data: what goes wrong with a mini-batch becomes that row's error, because an exception would make Ray
send the whole block again, or end the job.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rayxform.core.batching import Seam
from rayxform.errors import ModelError, RayxformError
from rayxform.model import Handler, InvocationContext, Response
from rayxform.pipeline.model_source import load_handler
from rayxform.pipeline.rows import RESPONSE_SCHEMA, encode_error, error_entry, to_table
from rayxform.spec import TransformJob


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs to know.

    Attributes:
        job: the job.
        threads: how many threads the model's arithmetic may use; None leaves it to the libraries.
    """

    job: TransformJob
    threads: int | None


class ModelWorker:
    """One actor of the pool; called by Ray Data with one block at a time."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._job = setup.job
        self._name = f"{os.uname().nodename}/{os.getpid()}"
        self._handler: Handler | None = None
        self._load_error: str | None = None
        try:
            self._handler = load_handler(setup.job, setup.threads)
        except RayxformError as error:
            entry = error_entry(error)
            entry.is_fatal = True
            self._load_error = encode_error(entry)

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """The responses to a block's mini-batches, one table a row, each as soon as it is there."""
        kept = {name: block.column(name) for name in block.column_names if name != "payload"}
        payloads = block.column("payload")
        for index in range(block.num_rows):
            row = {name: column[index].as_py() for name, column in kept.items()}
            payload = payloads[index].as_buffer() if payloads[index].is_valid else None
            if self._load_error is not None:
                row |= {"error": self._load_error}
            elif payload is not None and row["error"] is None:
                row |= self._invoke(row, payload.to_pybytes())
            yield to_table([row], RESPONSE_SCHEMA)

    def _invoke(self, row: dict[str, Any], payload: bytes) -> dict[str, Any]:
        started_at = time.time()
        result: dict[str, Any] = {"worker": self._name, "payload_bytes": len(payload), "started_at": started_at}
        try:
            result["response"] = self._transform(row, payload).body
        except ModelError as error:
            seam = Seam(row["offset"], row["first_record"])
            result["error"] = encode_error(error_entry(error, key=row["object"], seam=seam, n_records=row["n_records"]))
        result["finished_at"] = time.time()
        result["model_s"] = result["finished_at"] - started_at
        return result

    def _transform(self, row: dict[str, Any], payload: bytes) -> Response:
        """The handler's answer, asked again after an error as often as ModelClientConfig says."""
        if self._handler is None:
            raise AssertionError("a worker without a model has a load error")
        content_type = self._job.content_type or "application/octet-stream"
        for attempt in range(1, self._job.invocations_max_retries + 2):
            context = InvocationContext(
                object=row["object"],
                first_record=row["first_record"],
                n_records=row["n_records"],
                attempt=attempt,
                content_type=content_type,
                accept=self._job.effective_accept,
                model_dir=self._handler.model_dir,
            )
            try:
                return self._handler.transform(payload, content_type, self._job.effective_accept, context)
            except ModelError:
                if attempt > self._job.invocations_max_retries:
                    raise
        raise AssertionError("the last attempt returns or raises")
