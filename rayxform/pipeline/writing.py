"""Behind the model: cut responses back to records, join and filter them, and write them as parts.

It runs in the model worker. As a stage of its own it cost a copy of every response through the object store, a process for
each writer, and, since Ray Data hands out tasks ten times a second, most of the throughput of a fast model.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from rayxform.core.assembling import assemble, cut_json_lines, cut_response
from rayxform.core.batching import Seam
from rayxform.core.inference_ids import InferenceIds, Stamp
from rayxform.core.media import is_json, is_json_lines
from rayxform.core.naming import ERRORS_SUFFIX, part_name
from rayxform.core.ranges import Recipe
from rayxform.errors import RayxformError, RecordError, StorageError
from rayxform.pipeline.offsets import Offsets
from rayxform.pipeline.rows import ErrorEntry, Stopwatch, decode_error, encode_error, error_entry
from rayxform.spec import TransformJob
from rayxform.storage.growing import Appender
from rayxform.storage.publishing import OutputFolder

_SUMMED = ("n_records", "n_requests", "input_bytes", "read_s", "model_s", "join_s")


@dataclass(frozen=True)
class Answer:
    """What the model made of a mini-batch.

    Attributes:
        payload_bytes: the request's size.
        started_at: when it was asked, as Unix time in seconds.
        finished_at: when it had answered.
        response: the response's body, or None after an error.
        error: the encoded entry of what went wrong, or None.
        is_servers_fault: whether the error is no record's, so that its file fails whatever OnRecordError says.
        n_requests: how many requests it took, those that failed among them.
    """

    payload_bytes: int
    started_at: float
    finished_at: float
    response: bytes | None = None
    error: str | None = None
    is_servers_fault: bool = False
    n_requests: int = 1


@dataclass
class _Part:
    """Consecutive mini-batches of one file: their manifest row so far, their output, and whether the file ends with them."""

    row: dict[str, Any]
    data: list[bytes]
    is_last: bool = False

    @property
    def name(self) -> str:
        return part_name(self.row["file"], self.row["first_record"], self.row["n_records"])

    @property
    def error_lines(self) -> list[bytes]:
        """The encoded entries of its bad records, a line each."""
        return [f"{entry}\n".encode() for entry in self.row["record_errors"]]

    def appended(self, appender: Appender) -> int | StorageError | None:
        """What comes of appending it, unless it is all of its file, or has a list of bad records, which goes by its name."""
        row = self.row
        if (self.is_last and row["first_record"] == 0) or row.get("record_errors"):
            return None
        return appender.append(row["file"], row["first_record"], row["n_records"], self.data)

    def written(self, outcome: int | StorageError | None, write_s: float) -> dict[str, Any]:
        """Its row once it is written, with what its output has grown to where it was appended; or its file's error."""
        if isinstance(outcome, StorageError):
            return self.row | {"error": encode_error(error_entry(outcome))}
        n_bytes = sum(map(len, self.data))
        return self.row | {"part": self.name, "output_bytes": n_bytes, "write_s": write_s, "grown_to": outcome}

    def is_followed_by(self, row: dict[str, Any]) -> bool:
        end = self.row["first_record"] + self.row["n_records"]
        return (self.row["file"], end) == (row["file"], row["first_record"])

    def add(self, row: dict[str, Any], data: list[bytes]) -> None:
        self.data += data
        self.row["record_errors"] = [*self.row.get("record_errors", ()), *row.get("record_errors", ())]
        for name in _SUMMED:
            self.row[name] += row[name]
        self.row["finished_at"] = max(self.row["finished_at"], row["finished_at"])


class PartWriter:
    """Takes the answers to a block in the order of its mini-batches; consecutive ones of a file become one part."""

    def __init__(
        self,
        job: TransformJob,
        recipe: Recipe,
        output: OutputFolder,
        inference_ids: InferenceIds | None,
        offsets: Offsets,
        appender: Appender | None = None,
    ) -> None:
        """Begin a block.

        Args:
            job: the job.
            recipe: its recipe.
            output: where parts are written.
            inference_ids: the ids of this run's results, or None.
            offsets: finds where in its object a bad record begins.
            appender: appends parts that come in turn to their outputs; None to write each as a file of its own.
        """
        self._job = job
        self._offsets = offsets
        self._ids = inference_ids
        self._recipe = recipe
        self._output = output
        self._appender = appender
        self._taken: list[_Part | dict[str, Any]] = []

    def take(self, batch: dict[str, Any], answer: Answer | None) -> None:
        """Take an answer.

        Args:
            batch: the mini-batch's row, as a reader gave it; its payload is not needed.
            answer: the model's answer; None for a row that passes the model by.
        """
        row, data = self._finish(batch, answer)
        last = self._taken[-1] if self._taken else None
        if data is None:
            if isinstance(last, _Part) and last.row["file"] == row["file"]:
                last.is_last = True
            self._taken.append(row)
        elif isinstance(last, _Part) and last.is_followed_by(row):
            last.add(row, data)
        else:
            self._taken.append(_Part(row, data))

    def flush(self) -> list[dict[str, Any]]:
        """Write the parts of what was taken; give the manifest rows of all of it, in order."""
        watch = Stopwatch()
        parts = [one for one in self._taken if isinstance(one, _Part)]
        # The list of a part's bad records is there before the part, since a run that goes on takes a part for all there is.
        lists = [(part.name + ERRORS_SUFFIX, part.error_lines) for part in parts if part.row.get("record_errors")]
        unlisted = dict(zip((name for name, _ in lists), self._output.write_parts(lists), strict=True)) if lists else {}
        outcomes: dict[str, int | StorageError | None] = {}
        if self._appender is not None:
            outcomes = {part.name: end for part in parts if (end := part.appended(self._appender)) is not None}
        alone = [part for part in parts if part.name not in outcomes]
        written = self._output.write_parts([(part.name, part.data) for part in alone])
        outcomes |= {part.name: error for part, error in zip(alone, written, strict=True)}
        outcomes |= {name.removesuffix(ERRORS_SUFFIX): error for name, error in unlisted.items() if error is not None}
        write_s = watch.lap() / max(len(parts), 1)
        rows = {id(part): part.written(outcomes[part.name], write_s) for part in parts}
        taken, self._taken = self._taken, []
        return [rows[id(one)] if isinstance(one, _Part) else one for one in taken]

    def _finish(self, batch: dict[str, Any], answer: Answer | None) -> tuple[dict[str, Any], list[bytes] | None]:
        """A mini-batch's manifest row, and its output unless it failed or marks the object's end."""
        row = {name: batch[name] for name in ("file", "first_record", "n_records", "read_s")}
        if answer is None:
            return self._pass_by(row, batch["error"])
        row |= _figures(answer, batch["n_records"])
        if answer.response is None:
            ends_file = self._job.stops_at_bad_record or answer.is_servers_fault
            return (row | {"error": answer.error}, None) if ends_file else self._stand_in(row, answer.error)
        watch = Stopwatch()
        errors: list[RecordError] = []
        entry = functools.partial(self._entry, batch)
        try:
            data = finish_response(
                self._recipe,
                self._job,
                answer.response,
                batch["n_records"],
                batch["source"],
                errors.append,
                stamps_of(self._ids, batch["object"], batch["first_record"]),
            )
        except RayxformError as error:
            return row | {"error": encode_error(entry(error))}, None
        return row | {"join_s": watch.lap(), "record_errors": [encode_error(entry(error)) for error in errors]}, data

    def _entry(self, batch: dict[str, Any], error: RayxformError) -> ErrorEntry:
        first = batch["first_record"]
        if isinstance(error, RecordError):
            offset, _ = self._offsets.of(batch, first + error.record)
            return error_entry(RecordError(error.reason, first + error.record, offset), key=batch["object"])
        return error_entry(error, key=batch["object"], seam=Seam(batch["offset"], first), n_records=batch["n_records"])

    def _pass_by(self, row: dict[str, Any], error: str | None) -> tuple[dict[str, Any], list[bytes] | None]:
        """What becomes of a row that the model is not asked about: an object's end, its error, or a bad record."""
        if error is None:
            return row | {"total_records": row["first_record"]}, None
        if row["n_records"] == 0:
            return row | {"error": error}, None
        now = time.time()
        times = dict.fromkeys(("started_at", "finished_at", "first_finished_at"), now)
        return self._stand_in(
            row | times | dict.fromkeys(("n_requests", "input_bytes", "model_s", "join_s", "first_finished_records"), 0), error
        )

    def _stand_in(self, row: dict[str, Any], error: str | None) -> tuple[dict[str, Any], list[bytes]]:
        """A bad record's row, and what OnRecordError puts in its place."""
        reason = decode_error(error or "").message
        return row | {"record_errors": [error]}, [stand_in(self._job, reason)]


def _figures(answer: Answer, n_records: int) -> dict[str, Any]:
    return {
        "n_requests": answer.n_requests,
        "join_s": 0.0,
        "input_bytes": answer.payload_bytes,
        "model_s": answer.finished_at - answer.started_at,
        "started_at": answer.started_at,
        "finished_at": answer.finished_at,
        "first_finished_at": answer.finished_at,
        "first_finished_records": n_records,
    }


def stand_in(job: TransformJob, reason: str) -> bytes:
    """What stands in the output for a bad record, with OnRecordError skip or placeholder.

    In the parts of a data set it is an empty line, so that lines can still be counted as records.
    """
    if job.on_record_error == "skip":
        return b"\n" if job.partition_by else b""
    return msgspec.json.encode({"error": reason}) + b"\n"


def finish_response(
    recipe: Recipe,
    job: TransformJob,
    response: bytes,
    n_records: int,
    source: bytes | None,
    bad_record: Callable[[RecordError], None] = lambda _: None,
    stamp: Callable[[int], Stamp] | None = None,
) -> list[bytes]:
    """A mini-batch's output in pieces: its response cut to records, joined, filtered and assembled.

    Args:
        recipe: the job's recipe.
        job: the job.
        response: the model's answer.
        n_records: how many records the request held.
        source: what the join needs of them, one a line.
        stamp: gives a result's inference id and time from its place in the mini-batch; None where the job asks for none.
        bad_record: told of each record whose prediction cannot be joined or filtered, where OnRecordError lets it pass.

    Raises:
        ResponseError: the response cannot be cut back into as many records.
        RecordError: a prediction cannot be joined or filtered, and OnRecordError is fail; counts from the mini-batch's first.
    """
    processing = recipe.processing
    newline_ended = job.assemble_with == "Line"
    if not processing.cuts_responses:
        return assemble([response], newline_ended=newline_ended)
    if job.compatibility == "aws" and not job.join_input and is_json(job.effective_accept):
        # SageMaker filters a JSON document as a whole, however many records it answers.
        return assemble([processing.finish(response, None)], newline_ended=newline_ended)
    predictions = _cut(recipe, job, response, n_records, may_be_several=job.split_type == "None" and source is None)
    if stamp is None and (lines := processing.finish_lines(predictions, source)) is not None:
        return [lines]
    sources: list[bytes | None] = [*source.split(b"\n")] if source is not None else [None] * len(predictions)
    results = []
    for index, (prediction, own) in enumerate(zip(predictions, sources, strict=True)):
        try:
            results.append(processing.finish(prediction, own, stamp(index) if stamp else None))
        except RecordError as error:
            if job.stops_at_bad_record:
                raise RecordError(error.reason, index) from None
            bad_record(RecordError(error.reason, index))
            results += [line] if (line := stand_in(job, error.reason)) else []
    return assemble(results, newline_ended=True)


def _cut(
    recipe: Recipe, job: TransformJob, response: bytes, n_records: int, *, may_be_several: bool
) -> Sequence[bytes | msgspec.Raw]:
    """One prediction for each record, checked already where that is cheaper for all of them at once."""
    accept, are_lines = job.effective_accept, is_json_lines(job.effective_accept)
    if recipe.processing.takes_json and recipe.multi_record and are_lines:
        predictions = cut_json_lines(response, n_records)
        if predictions is not None:
            return predictions
    return cut_response(
        response, n_records, accept, multi_record=recipe.multi_record, may_be_several=may_be_several and are_lines
    )


def stamps_of(ids: InferenceIds | None, key: str, first_record: int) -> Callable[[int], Stamp] | None:
    """What stamps the results of a mini-batch that begins with a record of an object."""
    return None if ids is None else lambda index: ids.stamp(key, first_record + index)
