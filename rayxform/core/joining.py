"""DataProcessing: InputFilter before the model, JoinSource and OutputFilter after it.

The join is pushed down: when a record is read, the part of it that OutputFilter can still ask for is cut out and travels
beside the mini-batch as its *source*, so that a megabyte of image does not travel behind the model when only its id is kept.

Source: AWS, "Associate Prediction Results with Input Records"; where it and the seed document differ, the seed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, repeat
from typing import Protocol

import msgspec

from rayxform.core.batching import Prepared
from rayxform.core.inference_ids import Stamp
from rayxform.core.jsonpath import JsonPath, JsonValue, Name, Names, compile_path, encode_sorted, encode_value
from rayxform.core.lines import Lines
from rayxform.core.sources import INPUT, OUTPUT, decode_object, parse, parse_prediction, source_of, sources_of
from rayxform.core.splitting import Records
from rayxform.errors import RecordError

_ENVELOPE = b'{"' + OUTPUT.encode() + b'":'


class Processing(Protocol):
    """What a job does with a record before the model, and with its prediction after it.

    Attributes:
        sends_raw_records: whether what is sent of a record is the record itself.
        reads_records: whether ``prepare`` looks into records.
        cuts_responses: whether a response has to be cut back into records before ``finish``.
        takes_json: whether ``finish`` takes JSON that has been checked.
    """

    @property
    def sends_raw_records(self) -> bool: ...  # noqa: D102 - described above
    @property
    def reads_records(self) -> bool: ...  # noqa: D102
    @property
    def cuts_responses(self) -> bool: ...  # noqa: D102
    @property
    def takes_json(self) -> bool: ...  # noqa: D102

    def prepare(self, records: Records) -> Prepared:
        """Filter records for the model and cut out what the join needs of them."""

    def finish(self, prediction: bytes | msgspec.Raw, source: bytes | None, stamp: Stamp | None = None) -> bytes:
        """Join one prediction to its record's source, stamp it where the job asks for that, and filter the result.

        Args:
            prediction: as it came; or, where ``takes_json``, a JSON text in UTF-8 on one line that is known to be one.
            source: what ``prepare`` kept of the record, or None.
            stamp: the result's inference id and time, or None.

        Raises:
            RecordError: the prediction cannot be joined or filtered; without a place.
        """

    def finish_lines(self, predictions: Sequence[bytes | msgspec.Raw], source: bytes | None) -> bytes | None:
        r"""The results of a mini-batch, each ended by ``\n``, where they are just its predictions with something around them.

        Args:
            predictions: as of ``finish``, where ``takes_json``.
            source: what ``prepare`` kept of the records, a line each, or None.

        Returns:
            What ``finish`` gives of all of them, or None where it has to be asked for each.
        """


class PassThrough:
    """No filter, no join, no envelope: bytes go through as they are."""

    sends_raw_records = True
    reads_records = False
    cuts_responses = False
    takes_json = False

    def prepare(self, records: Records) -> Prepared:
        """The records themselves."""
        return Prepared(records.data, None, records.offsets)

    def finish(self, prediction: bytes | msgspec.Raw, source: bytes | None, stamp: Stamp | None = None) -> bytes:
        """The prediction itself."""
        del source, stamp
        return bytes(prediction)

    def finish_lines(self, predictions: Sequence[bytes | msgspec.Raw], source: bytes | None) -> bytes | None:
        """Never asked, as responses are not cut."""
        del predictions, source
        return None


@dataclass(frozen=True)
class FilteredProcessing(ABC):
    """What the formats that can be looked into have in common: filters, a join, and the way through the records.

    Attributes:
        input_filter: what of the record is sent.
        output_filter: what of the joined result is written.
        join: whether the input record is joined (``JoinSource: Input``).
        stamps: whether results get an inference id and time.
    """

    input_filter: JsonPath
    output_filter: JsonPath
    join: bool
    stamps: bool

    takes_json = False

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
        return self.join or self.stamps or not self.output_filter.is_identity

    def prepare(self, records: Records) -> Prepared:
        """Look into each record once: check it, filter it, and cut out its source."""
        if not self.reads_records:
            return Prepared(records.data, None, records.offsets)
        filtered: list[bytes] = []
        sources: list[bytes] = []
        prepared = Prepared(filtered, sources if self.join else None, records.offsets)
        if self.sends_raw_records:
            prepared.sent = records.data
        for index, record in enumerate(records.data):
            sent = source = b""
            try:
                if not records.is_lost(index):
                    sent, source = self._look_into(record)
            except RecordError as error:
                prepared.errors[index] = type(error)(error.reason)  # its traceback would hold several times the record
            if not self.sends_raw_records:
                filtered.append(sent)
            if self.join:
                sources.append(source)
        return prepared

    @abstractmethod
    def finish(self, prediction: bytes | msgspec.Raw, source: bytes | None, stamp: Stamp | None = None) -> bytes:
        """Join one prediction to its record's source, stamp it, and filter the result."""

    def finish_lines(self, predictions: Sequence[bytes | msgspec.Raw], source: bytes | None) -> bytes | None:
        """Each has to be looked at."""
        del predictions, source
        return None

    @abstractmethod
    def _look_into(self, record: bytes) -> tuple[bytes, bytes]:
        """What is sent of a record (anything if that is the record), and what the join needs of it (anything without one)."""


@dataclass(frozen=True)
class JsonProcessing(FilteredProcessing):
    """Filters and join for records that are JSON values.

    Attributes:
        envelope: whether an unjoined prediction is put in ``{"SageMakerOutput": …}``, as the seed document shows.
        sorts_keys: whether what is joined has its attributes in the order of their names, as on SageMaker.
        also_needed: attributes of the record that the join keeps whatever OutputFilter asks for.
    """

    envelope: bool
    sorts_keys: bool = False
    also_needed: frozenset[str] = frozenset()

    takes_json = True

    @property
    def cuts_responses(self) -> bool:
        """Whether anything is done to a prediction."""
        return self.envelope or super().cuts_responses

    def finish(self, prediction: bytes | msgspec.Raw, source: bytes | None, stamp: Stamp | None = None) -> bytes:
        """One joined, filtered result as compact JSON on one line."""
        if self.sorts_keys and self.join:
            return encode_sorted(self.output_filter.select(self._joined(parse_prediction(prediction), source, stamp)))
        value = parse_prediction(prediction)
        if not (self.join or self.envelope):
            return encode_value(self.output_filter.select(value))
        if stamp is None and self.output_filter.is_identity and source in (None, b"{}"):
            return b"".join((_ENVELOPE, value, b"}"))
        if stamp is None and source is not None and self._encloses and _has_attributes(source):
            before, behind = self._encloses
            own = memoryview(source)
            return b"".join((before, value, behind, own[1:]) if behind == b"," else (own[:-1], before, value, behind))
        return encode_value(self.output_filter.select(self._joined(value, source, stamp)))

    def finish_lines(self, predictions: Sequence[bytes | msgspec.Raw], source: bytes | None) -> bytes | None:
        """Checked predictions, joined to whole sources or put in their envelope by one copy of all of them."""
        if self.stamps or (self.sorts_keys and self.join) or not all(isinstance(one, msgspec.Raw) for one in predictions):
            return None
        if source is None:
            is_alone = self.envelope and self.output_filter.is_identity
            return _lines(repeat(_ENVELOPE), predictions, repeat(b"}")) if is_alone else None
        sources = source.split(b"\n")
        if not self._encloses or len(sources) != len(predictions) or not all(map(_has_attributes, sources)):
            return None
        before, behind = map(repeat, self._encloses)
        if self._encloses[1] == b",":
            return _lines(before, predictions, behind, [own[1:] for own in sources])
        return _lines([own[:-1] for own in sources], before, predictions, behind)

    def joined(self, prediction: bytes | msgspec.Raw, source: bytes | None, stamp: Stamp | None = None) -> JsonValue:
        """One result before OutputFilter: a prediction with its record's source or in its envelope, or alone without both.

        Raises:
            RecordError: the prediction is not valid JSON; without a place.
        """
        value = parse_prediction(prediction)
        return self._joined(value, source, stamp) if self.join or self.envelope else value

    def prepare(self, records: Records) -> Prepared:
        """As for any format; whole lines, of which only the sources are wanted, without a look back at each."""
        lines = records.data
        if self.sends_raw_records and self.join and isinstance(lines, Lines) and lines.is_utf8:
            with suppress(msgspec.DecodeError, RecursionError):  # one is no object, or no JSON
                return Prepared(lines, sources_of(lines, self._needed), records.offsets)
        return super().prepare(records)

    def _look_into(self, record: bytes) -> tuple[bytes, bytes]:
        value = parse(record, "record")
        sent = b"" if self.sends_raw_records else encode_value(self.input_filter.select(value))
        return sent, source_of(value, self._needed) if self.join else b""

    @cached_property
    def _needed(self) -> tuple[str, ...] | None:
        """The attributes of the record that OutputFilter, or who else needs some, can ask for; None for all of them."""
        first = self.output_filter.steps[0] if self.output_filter.steps else None
        if isinstance(first, Name | Names):
            names = (first.name,) if isinstance(first, Name) else first.names
            return tuple(name for name in dict.fromkeys((*names, *sorted(self.also_needed))) if name != OUTPUT)
        return None

    @cached_property
    def _encloses(self) -> tuple[bytes, bytes] | None:
        """What to put before and behind a prediction whose result is its source and itself; None if it is more than that.

        As ``source_of`` keeps the attributes in the filter's order, that is so where the filter names the output first or last.
        """
        if self.sorts_keys or not self.join:
            return None
        if self.output_filter.is_identity:
            return _ENVELOPE, b","
        if len(self.output_filter.steps) != 1 or self.also_needed:
            return None
        (names,) = self.output_filter.steps
        if not isinstance(names, Names) or names.names.count(OUTPUT) != 1 or len(names.names) == 1:
            return None
        return {0: (_ENVELOPE, b","), len(names.names) - 1: (b"," + _ENVELOPE[1:], b"}")}.get(names.names.index(OUTPUT))

    def _joined(self, value: msgspec.Raw, source: bytes | None, stamp: Stamp | None) -> dict[str, msgspec.Raw]:
        if source is None:
            joined = {OUTPUT: value}
        elif source.startswith(b"{"):
            joined = {OUTPUT: value, **decode_object(source)}
        else:
            joined = {INPUT: msgspec.Raw(source), OUTPUT: value}
        for name, text in stamp.attributes.items() if stamp else ():
            joined.pop(name, None)
            joined[name] = msgspec.Raw(text)
        return joined


@dataclass(frozen=True)
class TwoFormats:
    """Records of one format and predictions of another, which cannot be joined but each be filtered in their own way.

    Attributes:
        before: what is done with a record.
        after: what is done with its prediction.
    """

    before: Processing
    after: Processing

    @property
    def sends_raw_records(self) -> bool:
        """As of the records' format."""
        return self.before.sends_raw_records

    @property
    def reads_records(self) -> bool:
        """As of the records' format."""
        return self.before.reads_records

    @property
    def cuts_responses(self) -> bool:
        """As of the predictions' format."""
        return self.after.cuts_responses

    @property
    def takes_json(self) -> bool:
        """As of the predictions' format."""
        return self.after.takes_json

    def prepare(self, records: Records) -> Prepared:
        """Filter records for the model."""
        return self.before.prepare(records)

    def finish(self, prediction: bytes | msgspec.Raw, source: bytes | None, stamp: Stamp | None = None) -> bytes:
        """Filter one prediction."""
        return self.after.finish(prediction, source, stamp)

    def finish_lines(self, predictions: Sequence[bytes | msgspec.Raw], source: bytes | None) -> bytes | None:
        """As of the predictions' format."""
        return self.after.finish_lines(predictions, source)


def json_processing(
    input_filter: str,
    output_filter: str,
    *,
    join: bool,
    envelope: bool,
    sorts_keys: bool = False,
    stamps: bool = False,
    also_needed: frozenset[str] = frozenset(),
) -> Processing:
    """The processing of JSON records for a job's DataProcessing.

    Args:
        input_filter: a JSONPath.
        output_filter: a JSONPath.
        join: whether JoinSource is Input.
        envelope: whether an unjoined prediction gets its ``SageMakerOutput`` envelope.
        sorts_keys: whether what is joined has its attributes in the order of their names.
        stamps: whether results, which are objects by a join or an envelope, get an inference id and time.
        also_needed: attributes of the record that the join keeps whatever OutputFilter asks for.

    Raises:
        JsonPathError: a filter is not supported.
    """
    before, after = compile_path(input_filter), compile_path(output_filter)
    if before.is_identity and after.is_identity and not (join or envelope):
        return PassThrough()
    return JsonProcessing(before, after, join, stamps, envelope, sorts_keys, also_needed)


def _has_attributes(source: bytes) -> bool:
    """Whether a source is an object, and not an empty one."""
    return source[:1] == b"{" and len(source) > len(b"{}")


def _lines(*columns: Iterable[bytes | msgspec.Raw]) -> bytes:
    r"""Columns of texts side by side, each row of them ended by ``\n``."""
    return b"".join(chain.from_iterable(zip(*columns, repeat(b"\n"), strict=False)))
