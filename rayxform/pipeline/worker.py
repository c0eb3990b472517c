"""The model worker: holds the model, asks it for each mini-batch, and writes what becomes of the answers.

An inference.py runs in a process of its own, which the worker holds: what it does to that process, the worker survives, and
so Ray has no block to send again. Two blocks are in such a worker at a time, each in a thread of its own: while one is with
the model, the one before is joined and written, or the one after waits, of which the first request may be read ahead.
With a model server there are as many as the server takes requests at a time, and each has one under way.

It never raises for data: what goes wrong with a mini-batch becomes that row's error, because an exception would make Ray
send the whole block again, or end the job.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
from ray import get_runtime_context

from rayxform.core.inference_ids import InferenceIds
from rayxform.errors import ModelLoadError, RayxformError
from rayxform.model import Model
from rayxform.pipeline.asking import Asker
from rayxform.pipeline.blocks import pack_manifest, unpack_batches
from rayxform.pipeline.heap import keep_freed_memory
from rayxform.pipeline.isolating import FittingSize
from rayxform.pipeline.model_source import start_model
from rayxform.pipeline.offsets import Offsets
from rayxform.pipeline.planning import make_recipe
from rayxform.pipeline.rows import fatal_entry
from rayxform.pipeline.writing import Answer, PartWriter
from rayxform.spec import TransformJob
from rayxform.storage.event_log import Event
from rayxform.storage.publishing import OutputFolder

Request = tuple[dict[str, Any], memoryview | None]
"""A mini-batch's row and its payload."""

Answered = tuple[dict[str, Any], Answer | None]
"""A row, of a mini-batch or a piece of one, and what the model answered; None where it was not asked."""


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs to know.

    Attributes:
        job: the job.
        output: where parts are written.
        threads: how many threads the model's arithmetic may use; None leaves it to the libraries.
        inference_ids: the ids of this run's results, or None.
        model_digest: names the content of the model's files.
        grows_in_place: whether parts that come in turn are appended to their output, as on one machine they can be.
    """

    job: TransformJob
    output: OutputFolder
    threads: int | None
    inference_ids: InferenceIds | None
    model_digest: str
    grows_in_place: bool = False


class ModelWorker:
    """One actor of the pool; called by Ray Data with one block at a time, or with several in as many threads."""

    def __init__(self, setup: WorkerSetup) -> None:
        keep_freed_memory()
        self._job = setup.job
        self._recipe = make_recipe(setup.job)
        self._output = setup.output
        self._inference_ids = setup.inference_ids
        self._appender = setup.output.appender() if setup.grows_in_place else None
        self._fitting = FittingSize()
        self._model: Model | None = None
        self._load_error: str | None = None
        self._events: list[Event] = []
        self._turn = threading.Semaphore(setup.job.requests_per_worker)
        self._waiting: deque[Request | None] = deque()
        if get_runtime_context().was_current_actor_reconstructed:
            lost = "a worker's process ended, and its block goes to a new one; see Ray's log files for the reason"
            self._events.append(Event("WorkerLost", time.time(), host=socket.gethostname(), message=lost))
        try:
            # An Endpoint may be busy with the requests of other workers.
            self._model = start_model(setup.job, setup.threads, setup.model_digest, setup.job.invocations_timeout_s)
        except RayxformError as error:
            self._load_error = fatal_entry(error)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Send a block's mini-batches to the model and write their parts; gives manifest rows of parts, errors and ends."""
        # Of this block alone, since several are in here at a time.
        offsets, events = Offsets(self._recipe), self._take_events()
        writer = PartWriter(self._job, self._recipe, self._output, self._inference_ids, offsets, self._appender)
        for batch, answer in self._in_turn(unpack_batches(block), offsets, events):
            writer.take(batch, answer)
        warning = "\n".join(self._model.warnings) or None if self._model is not None else None
        rows = [row | {"warning": warning} for row in writer.flush()]
        if events and rows:
            rows[0]["events"] = [msgspec.json.encode(event).decode() for event in events]
        return pack_manifest(rows)

    def _in_turn(self, batches: list[Request], offsets: Offsets, events: list[Event]) -> list[Answered]:
        """The answers to a block's mini-batches, once the blocks before are answered but for as many as may be under way."""
        self._waiting.append(batches[0] if batches else None)
        with self._turn:
            self._waiting.popleft()
            return [*self._answers(batches, offsets, events)]

    def _answers(self, batches: list[Request], offsets: Offsets, events: list[Event]) -> Iterator[Answered]:
        """The answers to mini-batches, or to their pieces, in order; None for those that pass the model by."""
        asker: Asker | None = None
        for index, (batch, payload) in enumerate(batches):
            if self._load_error is not None:
                batch |= {"error": self._load_error, "n_records": 0}
            if batch["error"] is not None or payload is None or self._model is None:
                yield batch, None
                continue
            asker = asker or Asker(self._job, self._recipe, self._model, self._fitting, offsets, events.append)
            following = batches[index + 1] if index + 1 < len(batches) else self._next_waiting()
            try:
                yield from asker.answers(batch, payload, following)
            except ModelLoadError as error:  # what died could not be started again
                self._load_error = fatal_entry(error)
                yield batch | {"error": self._load_error, "n_records": 0}, None

    def _next_waiting(self) -> Request | None:
        """The first mini-batch of the block that is next, if one waits."""
        try:
            return self._waiting[0]
        except IndexError:
            return None

    def _take_events(self) -> list[Event]:
        """What happened before the block came in."""
        events, self._events = self._events, []
        return events
