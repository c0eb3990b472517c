"""Behind the model: cut responses back to records, join and filter them, and write them as parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rayxform.core.assembling import assemble, cut_response
from rayxform.core.batching import Seam
from rayxform.core.media import is_json_lines
from rayxform.core.naming import part_name
from rayxform.core.ranges import Recipe
from rayxform.errors import RayxformError, RecordError
from rayxform.pipeline.planning import make_recipe
from rayxform.pipeline.rows import MANIFEST_SCHEMA, Stopwatch, encode_error, error_entry, to_table
from rayxform.spec import TransformJob
from rayxform.storage.publishing import OutputFolder

_SUMMED = ("n_records", "n_requests", "input_bytes", "read_s", "model_s", "join_s")


@dataclass
class _Part:
    """Consecutive mini-batches of one file: their manifest row so far, and their output."""

    row: dict[str, Any]
    data: list[bytes]

    def is_followed_by(self, row: dict[str, Any]) -> bool:
        end = self.row["first_record"] + self.row["n_records"]
        return (self.row["file"], end) == (row["file"], row["first_record"])

    def add(self, row: dict[str, Any], data: bytes) -> None:
        self.data.append(data)
        for name in _SUMMED:
            self.row[name] += row[name]
        self.row["finished_at"] = max(self.row["finished_at"], row["finished_at"])


def write_block(block: pa.Table, *, job: TransformJob, output: OutputFolder) -> pa.Table:
    """Write the parts of a block of responses; gives a manifest row for each part, error and object's end."""
    return _PartWriter(job, output).write(block)


class _PartWriter:
    def __init__(self, job: TransformJob, output: OutputFolder) -> None:
        self._job = job
        self._output = output
        self._recipe = make_recipe(job)

    def write(self, block: pa.Table) -> pa.Table:
        rows: list[dict[str, Any]] = []
        part: _Part | None = None
        for response in block.to_pylist():
            row, data = self._finish(response)
            if part is not None and data is not None and part.is_followed_by(row):
                part.add(row, data)
                continue
            if part is not None:
                rows.append(self._write(part))
            part = _Part(row, [data]) if data is not None else None
            if part is None:
                rows.append(row)
        if part is not None:
            rows.append(self._write(part))
        return to_table(rows, MANIFEST_SCHEMA)

    def _finish(self, response: dict[str, Any]) -> tuple[dict[str, Any], bytes | None]:
        """A mini-batch's manifest row, and its output unless it failed or marks the object's end."""
        watch = Stopwatch()
        row = {name: response[name] for name in _CARRIED}
        row |= {"n_requests": int(response["started_at"] is not None), "input_bytes": response["payload_bytes"] or 0}
        if response["error"] is not None:
            return row | {"error": response["error"]}, None
        if response["response"] is None:
            return row | {"total_records": response["first_record"]}, None
        try:
            data = finish_response(self._recipe, self._job, response["response"], response["n_records"], response["source"])
        except RayxformError as error:
            return row | {"error": encode_error(_entry(error, response))}, None
        first = {"first_finished_at": row["finished_at"], "first_finished_records": row["n_records"]}
        return row | first | {"join_s": watch.lap()}, data

    def _write(self, part: _Part) -> dict[str, Any]:
        """Write a part; its row, or its file's error if it cannot be written."""
        watch = Stopwatch()
        row = part.row
        name = part_name(row["file"], row["first_record"], row["n_records"])
        data = b"".join(part.data)
        try:
            self._output.write_part(name, data)
        except RayxformError as error:
            return row | {"error": encode_error(error_entry(error))}
        return row | {"part": name, "output_bytes": len(data), "write_s": watch.lap()}


_CARRIED = ("file", "first_record", "n_records", "read_s", "model_s", "started_at", "finished_at", "worker")


def finish_response(recipe: Recipe, job: TransformJob, response: bytes, n_records: int, source: bytes | None) -> bytes:
    """A mini-batch's output: its response cut to records, joined, filtered and assembled.

    Args:
        recipe: the job's recipe.
        job: the job.
        response: the model's answer.
        n_records: how many records the request held.
        source: what the join needs of them, one a line.

    Raises:
        ResponseError: the response cannot be cut back into as many records.
        RecordError: a prediction cannot be joined or filtered; its record counts from the mini-batch's first.
    """
    processing = recipe.processing
    if not processing.cuts_responses:
        return assemble([response], newline_ended=job.assemble_with == "Line")
    is_whole_object = job.split_type == "None" and source is None
    predictions = cut_response(
        response,
        n_records,
        job.effective_accept,
        multi_record=recipe.multi_record,
        may_be_several=is_whole_object and is_json_lines(job.effective_accept),
    )
    sources: list[bytes | None] = [*source.split(b"\n")] if source is not None else [None] * len(predictions)
    results = []
    for index, (prediction, own) in enumerate(zip(predictions, sources, strict=True)):
        try:
            results.append(processing.finish(prediction, own))
        except RecordError as error:
            raise RecordError(error.reason, index) from None
    return assemble(results, newline_ended=True)


def _entry(error: RayxformError, response: dict[str, Any]) -> Any:
    first = response["first_record"]
    if isinstance(error, RecordError):
        offset = response["offset"] if error.record == 0 else None
        return error_entry(RecordError(error.reason, first + error.record, offset), key=response["object"])
    seam = Seam(response["offset"], first)
    return error_entry(error, key=response["object"], seam=seam, n_records=response["n_records"])
