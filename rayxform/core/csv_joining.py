"""DataProcessing for CSV: a record is a row, filters select its fields by position, and a join adds the prediction's.

Rows are those of RFC 4180, but for line breaks within a field, which SplitType Line has no room for. Fields stay the bytes
that they were, quotes and spaces included. Source: AWS, "Associate Prediction Results with Input Records": the input's
columns come first, then the prediction's, and JSONPath sees a row as an array.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count

import msgspec

from rayxform.core.inference_ids import Stamp
from rayxform.core.joining import FilteredProcessing, PassThrough, Processing
from rayxform.core.jsonpath import JsonPath, Position, Positions, Range, compile_path, select_positions
from rayxform.errors import JsonPathError, RecordError

# What repeats a group is matched with sixty bytes of memory a repetition, so only so many of them at once.
_QUOTED = re.compile(rb'[^"]*(?:""[^"]*){0,1000}')
_PLAIN = re.compile(rb'[^",]*')
_Select = Callable[[list[bytes]], list[bytes]]


@dataclass(frozen=True)
class CsvProcessing(FilteredProcessing):
    """Filters and join for rows of CSV; a join takes the row as it is."""

    def finish(self, prediction: bytes | msgspec.Raw, source: bytes | None, stamp: Stamp | None = None) -> bytes:
        """One joined, filtered row, with the stamp's columns last.

        Raises:
            RecordError: the row or the prediction is not CSV, or has no such field; without a place.
        """
        row = bytes(prediction)
        joined = row if source is None else b",".join((source, row))
        joined = joined if stamp is None else b",".join((joined, *stamp.columns))
        return joined if self.output_filter.is_identity else b",".join(self._written(split_row(joined)))

    def _look_into(self, record: bytes) -> tuple[bytes, bytes]:
        if not self.sends_raw_records:
            return b",".join(self._sent(split_row(record))), record
        if b'"' in record:
            for _ in _fields(record):  # where quotes do not fit, the prediction's columns would become part of a field
                pass
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
    return list(_fields(row))


def _fields(row: bytes) -> Iterator[bytes]:
    at = 0
    for number in count(1):
        end = _end_of_field(row, at)
        is_last = row[end : end + 2] in (b"", b"\n")
        if end > len(row) or not (is_last or row.startswith(b",", end)):
            raise RecordError(
                f"field {number} of the CSV row, at its byte {at}, has a quote that does not fit: a field with quotes "
                'stands in quotes as a whole, on one line, and doubles those within ("a ""b"" c", RFC 4180)'
            )
        yield row[at:end]
        if is_last:
            return
        at = end + 1


def _end_of_field(row: bytes, at: int) -> int:
    """Where the field ends that begins there, behind the row's end if its last quote is missing."""
    if not row.startswith(b'"', at):
        return _end(_PLAIN, row, at)
    at = _end(_QUOTED, row, at + 1)
    while row.startswith(b'""', at):
        at = _end(_QUOTED, row, at)
    return at + 1


def _end(pattern: re.Pattern[bytes], row: bytes, at: int) -> int:
    found = pattern.match(row, at)
    if found is None:
        raise AssertionError("the pattern matches nothing as well")
    return found.end()


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
