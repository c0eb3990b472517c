"""DataProcessing for CSV: a record is a row, filters select its fields by position, and a join adds the prediction's.

Rows are those of RFC 4180, but for line breaks within a field, which SplitType Line has no room for. Fields stay the bytes
that they were, quotes and spaces included. Source: AWS, "Associate Prediction Results with Input Records": the input's
columns come first, then the prediction's, and JSONPath sees a row as an array.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from rayxform.core.inference_ids import Stamp
from rayxform.core.joining import FilteredProcessing, PassThrough, Processing
from rayxform.core.jsonpath import JsonPath, Position, Positions, Range, compile_path, select_positions
from rayxform.errors import JsonPathError, RecordError

# An alternative for each byte would keep a hundred bytes for it while it matches.
_FIELD = re.compile(rb'(?:"[^"]*(?:""[^"]*)*"|[^",]*)(,|$)')
_Select = Callable[[list[bytes]], list[bytes]]


@dataclass(frozen=True)
class CsvProcessing(FilteredProcessing):
    """Filters and join for rows of CSV; a join takes the row as it is."""

    def finish(self, prediction: bytes, source: bytes | None, stamp: Stamp | None = None) -> bytes:
        """One joined, filtered row, with the stamp's columns last.

        Raises:
            RecordError: the row or the prediction is not CSV, or has no such field; without a place.
        """
        joined = prediction if source is None else b",".join((source, prediction))
        joined = joined if stamp is None else b",".join((joined, *stamp.columns))
        return joined if self.output_filter.is_identity else b",".join(self._written(split_row(joined)))

    def _look_into(self, record: bytes) -> tuple[bytes, bytes]:
        if not self.sends_raw_records:
            return b",".join(self._sent(split_row(record))), record
        if b'"' in record:
            split_row(record)  # where quotes do not fit, the prediction's columns would become part of a field
        return record, record

    @cached_property
    def _sent(self) -> _Select:
        return compile_positions(self.input_filter)

    @cached_property
    def _written(self) -> _Select:
        return compile_positions(self.output_filter)


def csv_processing(input_filter: str, output_filter: str, *, join: bool, stamps: bool = False) -> Processing:
    """The processing of CSV rows for a job's DataProcessing.

    Args:
        input_filter: a JSONPath of positions.
        output_filter: a JSONPath of positions.
        join: whether JoinSource is Input.
        stamps: whether rows get an inference id and time.

    Raises:
        JsonPathError: a filter is not supported, or names attributes, which a row does not have.
    """
    before, after = compile_path(input_filter), compile_path(output_filter)
    for path in (before, after):
        compile_positions(path)
    if before.is_identity and after.is_identity and not (join or stamps):
        return PassThrough()
    return CsvProcessing(before, after, join, stamps)


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
    return select_positions(step)
