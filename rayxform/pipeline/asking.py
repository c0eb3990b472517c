"""One mini-batch and the model: asked, asked again, and cut where the model cannot take it whole.

What goes wrong is told apart by what follows from it. A record that ends the model's process is isolated by bisection; out
of memory, the mini-batch is halved until it fits; for any other error OnRecordError says whether the bad records are looked
for. A model server knows the last kind alone.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rayxform.core.batching import Seam
from rayxform.core.ranges import Recipe
from rayxform.errors import InvocationError, ModelError, ModelLoadError
from rayxform.model import InvocationContext, Model, Response, log_file
from rayxform.pipeline.isolating import FittingSize, isolate
from rayxform.pipeline.model_source import request_context
from rayxform.pipeline.offsets import Offsets
from rayxform.pipeline.rows import encode_error, error_entry
from rayxform.pipeline.writing import Answer
from rayxform.spec import TransformJob
from rayxform.storage.event_log import Event


@dataclass(frozen=True)
class _Outcome:
    """What became of a request, and of its retries."""

    payload_bytes: int
    started_at: float
    finished_at: float
    response: bytes | None
    failure: ModelError | None

    @property
    def ended_process(self) -> bool:
        return isinstance(self.failure, InvocationError) and self.failure.ended_process

    @property
    def is_out_of_memory(self) -> bool:
        return isinstance(self.failure, InvocationError) and self.failure.is_out_of_memory

    @property
    def is_servers_fault(self) -> bool:
        return isinstance(self.failure, InvocationError) and self.failure.is_servers_fault


_Asked = tuple[dict[str, Any], _Outcome]
_Request = tuple[dict[str, Any], bytes | memoryview]
"""A mini-batch's row and its body."""

_Next = tuple[dict[str, Any], bytes | memoryview | None] | None
"""What is asked next, which may be no request; None where that is not known."""


class Asker:
    """Asks the model about mini-batches one by one, each in as many requests as that takes."""

    def __init__(
        self,
        job: TransformJob,
        recipe: Recipe,
        model: Model,
        fitting: FittingSize,
        offsets: Offsets,
        happen: Callable[[Event], None],
    ) -> None:
        """Ask nothing yet.

        Args:
            job: the job.
            recipe: the job's recipe.
            model: the model.
            fitting: what the worker has learnt of the memory there is, and goes on learning here.
            offsets: where records begin.
            happen: takes what is to be known of retries and of lost processes.
        """
        self._job = job
        self._recipe = recipe
        self._model = model
        self._fitting = fitting
        self._offsets = offsets
        self._happen = happen
        self._retries = job.invocations_max_retries
        self._n_uncounted = 0

    def answers(
        self, batch: dict[str, Any], payload: bytes | memoryview, following: _Next = None
    ) -> Iterator[tuple[dict[str, Any], Answer]]:
        """The answer to a mini-batch, or those to its pieces, in order; an error that fails the file is the last.

        Args:
            batch: its row, of which the payload is not needed.
            payload: its request's body.
            following: the mini-batch that will be asked next, and its body, so that its input may be read meanwhile.

        Raises:
            ModelLoadError: the model could not be loaded again.
        """
        self._announce(following, after=(batch, payload))
        for piece, outcome in self._outcomes(batch, payload):
            answer = self._answer(piece, outcome)
            yield piece, answer
            if answer.error is not None and (self._job.stops_at_bad_record or answer.is_servers_fault):
                return

    def _announce(self, following: _Next, after: _Request) -> None:
        """Tell the model of the next request, unless there is none, it was read elsewhere, or the one before may be cut."""
        batch, payload = following or ({}, None)
        if payload is None or batch["staged"] is not None:
            return
        if not self._is_over((batch, payload)) and not self._is_over(after):
            context = self._context(batch, attempt=1)
            self._model.run_ahead(payload, context.content_type, context)

    def _outcomes(self, batch: dict[str, Any], payload: bytes | memoryview) -> Iterator[_Asked]:
        """What becomes of a request, which is cut before it is made if it is known to be too large for the memory there is."""
        if not self._is_over((batch, payload)):
            yield from self._settle(batch, payload, self._ask(batch, payload, self._retries))
            return
        records = _Records(self._recipe, batch, payload)
        for begin, end in self._fitting.spans(records.sizes):
            piece, body = records.piece(begin, end)
            yield from self._settle(piece, body, self._ask(piece, body, self._retries))

    def _settle(self, batch: dict[str, Any], payload: bytes | memoryview, outcome: _Outcome) -> Iterator[_Asked]:
        """The outcome, or, where cutting the request helps, those of its pieces."""
        n_records = batch["n_records"]
        if outcome.failure is None or outcome.is_servers_fault or n_records == 1:
            yield batch, outcome
        elif outcome.ended_process:
            yield from self._isolate(_Records(self._recipe, batch, payload), n_records, outcome)
        elif outcome.is_out_of_memory:
            self._fitting.note_failure(n_records, len(payload))
            for half, body in self._halves(batch, payload):
                yield from self._outcomes(half, body)
        elif self._job.stops_at_bad_record:
            yield batch, outcome
        else:
            for half, body in self._halves(batch, payload):
                yield from self._settle(half, body, self._ask(half, body, retries=0))  # that the error stays has been seen

    def _halves(self, batch: dict[str, Any], payload: bytes | memoryview) -> Iterator[tuple[dict[str, Any], bytes]]:
        records, n_records = _Records(self._recipe, batch, payload), batch["n_records"]
        yield records.piece(0, n_records // 2)
        yield records.piece(n_records // 2, n_records)

    def _isolate(self, records: _Records, n_records: int, crash: _Outcome) -> Iterator[_Asked]:
        def ask(begin: int, end: int) -> _Outcome:
            return self._ask(*records.piece(begin, end), retries=0)

        for begin, end, outcome in isolate(n_records, crash, ask, lambda outcome: outcome.ended_process):
            yield from self._settle(*records.piece(begin, end), outcome)

    def _ask(self, batch: dict[str, Any], payload: bytes | memoryview, retries: int) -> _Outcome:
        """One request, made again after an error as often as ``retries`` says."""
        model = self._model

        def ask(attempt: int) -> Response:
            self._n_uncounted += 1
            context = self._context(batch, attempt)
            try:
                staged = batch["staged"] if attempt == 1 else None
                return model.transform(payload, context.content_type, context.accept, context, staged)
            except InvocationError as error:
                if error.ended_process:
                    self._note("WorkerLost", batch, error)
                elif attempt <= retries and not error.is_final:
                    self._note("Retry", batch, error)
                raise

        started_at = time.time()
        response = failure = None
        try:
            response = model.retry(ask, retries).body
        except ModelLoadError:
            raise
        except ModelError as error:
            failure = error
        return _Outcome(len(payload), started_at, time.time(), response, failure)

    def _context(self, batch: dict[str, Any], attempt: int) -> InvocationContext:
        place = (batch["object"], batch["first_record"], batch["n_records"])
        return request_context(self._job, self._model.model_dir, *place, attempt)

    def _is_over(self, request: _Request) -> bool:
        """Whether it is known to be too large for the memory there is."""
        return self._fitting.is_over(request[0]["n_records"], len(request[1]))

    def _answer(self, batch: dict[str, Any], outcome: _Outcome) -> Answer:
        n_requests, self._n_uncounted = self._n_uncounted, 0
        error = None if outcome.failure is None else self._entry(batch, outcome.failure)
        return Answer(
            outcome.payload_bytes,
            outcome.started_at,
            outcome.finished_at,
            outcome.response,
            error,
            outcome.is_servers_fault,
            n_requests,
        )

    def _entry(self, batch: dict[str, Any], failure: ModelError) -> str:
        """The encoded entry of what went wrong, with its place."""
        offset, unknown = self._offsets.of(batch, batch["first_record"])
        seam = Seam(0, batch["first_record"])
        entry = error_entry(failure, key=batch["object"], seam=seam, n_records=batch["n_records"])
        entry.offset = offset
        log = log_file()
        entry.log = f"{socket.gethostname()}:{log}" if log else ""
        entry.message += f" (its byte offset is not known: {unknown})" if unknown else ""
        return encode_error(entry)

    def _note(self, event: str, batch: dict[str, Any], error: InvocationError) -> None:
        place = {"file": batch["file"], "object": batch["object"], "first_record": batch["first_record"]}
        message = str(error).partition("\n")[0]
        self._happen(Event(event, time.time(), **place, records=batch["n_records"], message=message))


class _Records:
    """A mini-batch cut to its records, so that any of them can be asked by themselves."""

    def __init__(self, recipe: Recipe, batch: dict[str, Any], payload: bytes | memoryview) -> None:
        self._batch = batch
        self._bodies = recipe.cut_payload(bytes(payload))
        self._sources = None if batch["source"] is None else batch["source"].split(b"\n")
        self._separator = recipe.separator

    @property
    def sizes(self) -> list[int]:
        """Each record's share of a body, in bytes."""
        return [len(body) + len(self._separator) for body in self._bodies]

    def piece(self, begin: int, end: int) -> tuple[dict[str, Any], bytes]:
        """The records from one to another, and their request's body; only the first of all knows its offset."""
        piece = self._batch | {
            "first_record": self._batch["first_record"] + begin,
            "n_records": end - begin,
            "offset": None if begin else self._batch["offset"],
            "origin": self._batch.get("origin") or (self._batch["first_record"], self._batch["offset"]),
            "staged": None,
            "source": None if self._sources is None else b"\n".join(self._sources[begin:end]),
        }
        return piece, self._separator.join(self._bodies[begin:end])
