"""DataProcessing for CSV: a record is a row, filters select its fields by position, and a join adds the prediction's.

Rows are those of RFC 4180, but for line breaks within a field, which SplitType Line has no room for. Fields stay the bytes
that they were, quotes and spaces included. Source: AWS, "Associate Prediction Results with Input Records": the input's
columns come first, then the prediction's, and JSONPath sees a row as an array.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from rayxform.core.batching import Prepared
from rayxform.core.joining import PassThrough, Processing
from rayxform.core.jsonpath import JsonPath, Position, Positions, Range, check_position, compile_path
from rayxform.core.splitting import Records
from rayxform.errors import JsonPathError, RecordError

_FIELD = re.compile(rb'(?:"(?:[^"]|"")*"|[^",]*)(,|$)')
_Select = Callable[[list[bytes]], list[bytes]]


@dataclass(frozen=True)
class CsvProcessing:
    """Filters and join for rows of CSV.

    Attributes:
        input_filter: what of the row is sent.
        output_filter: what of the joined row is written.
        join: whether the input row is joined (``JoinSource: Input``).
    """

    input_filter: JsonPath
    output_filter: JsonPath
    join: bool

    @property
    def sends_raw_records(self) -> bool:
        """Whether InputFilter is ``$``."""
        return self.input_filter.is_identity

    @property
    def reads_records(self) -> bool:
        """Whether there is a filter of the input, or a join."""
        return self.join or not self.sends_raw_records

    @property
    def cuts_responses(self) -> bool:
        """Whether anything is done to a prediction."""
        return self.join or not self.output_filter.is_identity

    def prepare(self, records: Records) -> Prepared:
        """Filter rows; a join takes them as they are."""
        if not self.reads_records:
            return Prepared(records.data, None, records.offsets)
        select = compile_positions(self.input_filter)
        prepared = Prepared([], records.data if self.join else None, records.offsets)
        for index, row in enumerate(records.data):
            sent = row
            try:
                if not records.is_lost(index):
                    sent = self._sent(row, select)
            except RecordError as error:
                prepared.errors[index] = error
            prepared.sent.append(sent)
        return prepared

    def _sent(self, row: bytes, select: _Select) -> bytes:
        if not self.sends_raw_records:
            return b",".join(select(split_row(row)))
        if b'"' in row:
            split_row(row)  # where quotes do not fit, the prediction's columns would become part of a field
        return row

    def finish(self, prediction: bytes, source: bytes | None) -> bytes:
        """One joined, filtered row.

        Raises:
            RecordError: the row or the prediction is not CSV, or has no such field; without a place.
        """
        joined = prediction if source is None else b",".join((source, prediction))
        if self.output_filter.is_identity:
            return joined
        return b",".join(compile_positions(self.output_filter)(split_row(joined)))


def csv_processing(input_filter: str, output_filter: str, *, join: bool) -> Processing:
    """The processing of CSV rows for a job's DataProcessing.

    Args:
        input_filter: a JSONPath of positions.
        output_filter: a JSONPath of positions.
        join: whether JoinSource is Input.

    Raises:
        JsonPathError: a filter is not supported, or names attributes, which a row does not have.
    """
    before, after = compile_path(input_filter), compile_path(output_filter)
    for path in (before, after):
        compile_positions(path)
    return PassThrough() if before.is_identity and after.is_identity and not join else CsvProcessing(before, after, join)


def split_row(row: bytes) -> list[bytes]:
    """A row's fields as they stand there.

    Raises:
        RecordError: a quote is where RFC 4180 has none; without a place.
    """
    if b'"' not in row:
        return row.split(b",")
    fields: list[bytes] = []
    at = 0
    while True:
        found = _FIELD.match(row, at)
        if found is None:
            raise RecordError(
                f"field {len(fields) + 1} of the CSV row, at its byte {at}, has a quote that does not fit: a field with quotes "
                'stands in quotes as a whole, on one line, and doubles those within ("a ""b"" c", RFC 4180)'
            )
        fields.append(row[at : found.start(1)])
        at = found.end()
        if not found[1]:
            return fields


@lru_cache(maxsize=64)
def compile_positions(path: JsonPath) -> _Select:
    """A filter as a function from a row's fields to the selected ones.

    Raises:
        JsonPathError: the filter has more than one step, or names attributes.
    """
    if path.is_identity:
        return lambda fields: fields
    step = path.steps[0]
    if len(path.steps) > 1 or not isinstance(step, (Position, Positions, Range)):
        reason = "a CSV row has fields by position only; write [n], [n,m] or [start:end], positions from 0"
        raise JsonPathError(path.expression, min(1, len(path.expression) - 1), reason)
    if isinstance(step, Range):
        bounds = slice(step.start, step.end)
        return lambda fields: fields[bounds]
    indices = step.indices if isinstance(step, Positions) else (step.index,)

    def take(fields: list[bytes]) -> list[bytes]:
        for index in indices:
            check_position(index, len(fields))
        return [fields[index] for index in indices]

    return take
