"""The model worker: holds the model, asks it for each mini-batch, and writes what becomes of the answers.

It never raises for data: what goes wrong with a mini-batch becomes that row's error, because an exception would make Ray
send the whole block again, or end the job.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rayxform.core.batching import Seam
from rayxform.errors import ModelError, RayxformError
from rayxform.model import Handler, InvocationContext
from rayxform.pipeline.model_source import load_handler
from rayxform.pipeline.rows import MANIFEST_SCHEMA, encode_error, error_entry, to_table, unpack_block
from rayxform.pipeline.writing import Answer, PartWriter
from rayxform.spec import TransformJob
from rayxform.storage.publishing import OutputFolder


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs to know.

    Attributes:
        job: the job.
        output: where parts are written.
        threads: how many threads the model's arithmetic may use; None leaves it to the libraries.
    """

    job: TransformJob
    output: OutputFolder
    threads: int | None


class ModelWorker:
    """One actor of the pool; called by Ray Data with one block at a time."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._job = setup.job
        self._writer = PartWriter(setup.job, setup.output)
        self._name = f"{os.uname().nodename}/{os.getpid()}"
        self._handler: Handler | None = None
        self._load_error: str | None = None
        self._warning: str | None = None
        try:
            self._handler = load_handler(setup.job, setup.threads)
            self._warning = "\n".join(self._handler.warnings) or None
        except RayxformError as error:
            entry = error_entry(error)
            entry.is_fatal = True
            self._load_error = encode_error(entry)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Send a block's mini-batches to the model and write their parts; gives a manifest row for each part, error and end."""
        table = unpack_block(block)
        rows: list[dict[str, Any]] = []
        for batch, payload in zip(table.drop_columns(["payload"]).to_pylist(), table.column("payload"), strict=True):
            if self._load_error is not None:
                batch["error"] = self._load_error
            passes_by = batch["error"] is not None or not payload.is_valid
            answer = None if passes_by else self._ask(batch, payload.as_buffer().to_pybytes())
            rows += self._writer.take(batch, answer)
        rows += self._writer.flush()
        return to_table([row | {"warning": self._warning} for row in rows], MANIFEST_SCHEMA)

    def _ask(self, batch: dict[str, Any], payload: bytes) -> Answer:
        started_at = time.time()
        response = error = None
        try:
            response = self._transform(batch, payload)
        except ModelError as failure:
            seam = Seam(batch["offset"], batch["first_record"])
            entry = error_entry(failure, key=batch["object"], seam=seam, n_records=batch["n_records"])
            error = encode_error(entry)
        return Answer(self._name, len(payload), started_at, time.time(), response, error)

    def _transform(self, batch: dict[str, Any], payload: bytes) -> bytes:
        """The handler's answer, asked again after an error as often as ModelClientConfig says."""
        if self._handler is None:
            raise AssertionError("a worker without a model has a load error")
        content_type = self._job.content_type or "application/octet-stream"
        for attempt in range(1, self._job.invocations_max_retries + 2):
            context = InvocationContext(
                object=batch["object"],
                first_record=batch["first_record"],
                n_records=batch["n_records"],
                attempt=attempt,
                content_type=content_type,
                accept=self._job.effective_accept,
                model_dir=self._handler.model_dir,
            )
            try:
                return self._handler.transform(payload, content_type, self._job.effective_accept, context).body
            except ModelError:
                if attempt > self._job.invocations_max_retries:
                    raise
        raise AssertionError("the last attempt returns or raises")
