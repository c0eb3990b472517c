"""The model worker: holds the model, asks it for each mini-batch, and writes what becomes of the answers.

With an inference.py one block is in a worker at a time. With a model server there are as many as the server takes requests
at a time, each in a thread of its own that has one request under way.

It never raises for data: what goes wrong with a mini-batch becomes that row's error, because an exception would make Ray
send the whole block again, or end the job.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rayxform.core.batching import Seam
from rayxform.core.inference_ids import InferenceIds
from rayxform.core.ranges import Recipe
from rayxform.errors import InvocationError, ModelError, ModelLoadError, RayxformError
from rayxform.model import InvocationContext, Model, Response
from rayxform.pipeline.model_source import load_model
from rayxform.pipeline.planning import make_recipe
from rayxform.pipeline.rows import BATCH_SCHEMA, MANIFEST_SCHEMA, encode_error, error_entry, pack_block, unpack_block
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
        inference_ids: the ids of this run's results, or None.
    """

    job: TransformJob
    output: OutputFolder
    threads: int | None
    inference_ids: InferenceIds | None


class ModelWorker:
    """One actor of the pool; called by Ray Data with one block at a time, or with several in as many threads."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._job = setup.job
        self._recipe = make_recipe(setup.job)
        self._output = setup.output
        self._inference_ids = setup.inference_ids
        self._model: Model | None = None
        self._load_error: str | None = None
        self._warning: str | None = None
        try:
            # An Endpoint may be busy with the requests of other workers.
            self._model = load_model(setup.job, setup.threads, setup.job.invocations_timeout_s)
            self._warning = "\n".join(self._model.warnings) or None
        except RayxformError as error:
            self._load_error = _fatal(error)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Send a block's mini-batches to the model and write their parts; gives manifest rows of parts, errors and ends."""
        table = unpack_block(block, BATCH_SCHEMA)
        writer = PartWriter(self._job, self._recipe, self._output, self._inference_ids)
        for batch, payload in zip(table.drop_columns(["payload"]).to_pylist(), table.column("payload"), strict=True):
            if self._load_error is not None:
                batch |= {"error": self._load_error, "n_records": 0}
            if batch["error"] is not None or not payload.is_valid:
                writer.take(batch, None)
                continue
            try:
                for part, answer in self._answers(batch, payload.as_buffer().to_pybytes()):
                    writer.take(part, answer)
            except ModelLoadError as error:  # a server that died and could not be started again
                self._load_error = _fatal(error)
                writer.take(batch | {"error": self._load_error, "n_records": 0}, None)
        return pack_block([row | {"warning": self._warning} for row in writer.flush()], MANIFEST_SCHEMA)

    def _answers(
        self, batch: dict[str, Any], payload: bytes, retries: int | None = None
    ) -> Iterator[tuple[dict[str, Any], Answer]]:
        """The answer to a mini-batch, or, to find the bad records of one that failed, those to its halves.

        A half is asked once: that the error stays has been seen by then.
        """
        answer = self._ask(batch, payload, self._job.invocations_max_retries if retries is None else retries)
        is_one_record = batch["n_records"] == 1
        if answer.error is None or answer.is_servers_fault or is_one_record or self._job.stops_at_bad_record:
            yield batch, answer
            return
        for half, body in halve(self._recipe, batch, payload):
            yield from self._answers(half, body, retries=0)

    def _ask(self, batch: dict[str, Any], payload: bytes, retries: int) -> Answer:
        started_at = time.time()
        response = error = None
        is_servers_fault = False
        try:
            response = self._transform(batch, payload, retries)
        except ModelLoadError:
            raise
        except ModelError as failure:
            seam = Seam(batch["offset"], batch["first_record"])
            entry = error_entry(failure, key=batch["object"], seam=seam, n_records=batch["n_records"])
            error = encode_error(entry)
            is_servers_fault = isinstance(failure, InvocationError) and failure.is_servers_fault
        return Answer(len(payload), started_at, time.time(), response, error, is_servers_fault)

    def _transform(self, batch: dict[str, Any], payload: bytes, retries: int) -> bytes:
        """The model's answer, asked again after an error as often as ``retries`` says."""
        model = self._model
        if model is None:
            raise AssertionError("a worker without a model has a load error")
        content_type, accept = self._job.content_type or "application/octet-stream", self._job.effective_accept

        def ask(attempt: int) -> Response:
            context = InvocationContext(
                object=batch["object"],
                first_record=batch["first_record"],
                n_records=batch["n_records"],
                attempt=attempt,
                content_type=content_type,
                accept=accept,
                model_dir=model.model_dir,
            )
            return model.transform(payload, content_type, accept, context)

        return model.retry(ask, retries).body


def _fatal(error: RayxformError) -> str:
    """The encoded entry of an error after which no request can succeed."""
    entry = error_entry(error)
    entry.is_fatal = True
    return encode_error(entry)


def halve(recipe: Recipe, batch: dict[str, Any], payload: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """The two halves of a mini-batch of several records, each with its request's body; only the first knows its offset."""
    bodies = recipe.cut_payload(payload)
    sources = None if batch["source"] is None else batch["source"].split(b"\n")
    middle = len(bodies) // 2
    halves = []
    for begin, end in ((0, middle), (middle, len(bodies))):
        half = batch | {
            "first_record": batch["first_record"] + begin,
            "n_records": end - begin,
            "offset": None if begin else batch["offset"],
            "source": None if sources is None else b"\n".join(sources[begin:end]),
        }
        halves.append((half, recipe.separator.join(bodies[begin:end])))
    return halves
