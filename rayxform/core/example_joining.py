"""DataProcessing for TFRecord files of ``tf.train.Example``, which AWS does not have: a record's features are its attributes.

InputFilter selects features, and what is sent is an Example with those. The join sees an Example as the JSON object that
``examples.attributes_of`` makes of it, and the result is JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import msgspec

from rayxform.core.batching import Prepared
from rayxform.core.examples import attributes_of, select_features
from rayxform.core.joining import OUTPUT, JsonProcessing, Processing, json_processing, needed_attributes
from rayxform.core.jsonpath import JsonPath, Name, Names, Position, Range, check_position, compile_path
from rayxform.core.splitting import Records
from rayxform.errors import JsonPathError, RecordError

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class ExampleProcessing:
    """Filters and join for records that are tf.train.Example.

    Attributes:
        input_filter: which features are sent.
        output_filter: what of the joined result, a JSON object, is written.
        join: whether the input record is joined (``JoinSource: Input``).
        envelope: whether an unjoined prediction is put in ``{"SageMakerOutput": …}``.
        sorts_keys: whether what is joined has its attributes in the order of their names.
    """

    input_filter: JsonPath
    output_filter: JsonPath
    join: bool
    envelope: bool
    sorts_keys: bool = False

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
        return self._after.cuts_responses

    def prepare(self, records: Records) -> Prepared:
        """Parse each record, select what of it is sent, and cut out what the join needs."""
        prepared = Prepared([], [] if self.join else None, records.offsets)
        select = compile_features(self.input_filter)
        needed = needed_attributes(self.output_filter)
        for index, record in enumerate(records.data):
            sent, source = record, b""
            try:
                if not records.is_lost(index):
                    sent = record if self.sends_raw_records else select_features(record, select)
                    source = self._source(record, needed) if self.join else b""
            except RecordError as error:
                prepared.errors[index] = error
            prepared.sent.append(sent)
            if prepared.sources is not None:
                prepared.sources.append(source)
        return prepared

    def finish(self, prediction: bytes, source: bytes | None) -> bytes:
        """One joined, filtered result as compact JSON on one line.

        Raises:
            RecordError: the prediction cannot be joined or filtered; without a place.
        """
        return self._after.finish(prediction, source)

    def _source(self, record: bytes, needed: frozenset[str] | None) -> bytes:
        attributes = attributes_of(record, needed)
        attributes.pop(OUTPUT, None)
        return _encode(attributes)

    @cached_property
    def _after(self) -> JsonProcessing:
        return JsonProcessing(compile_path("$"), self.output_filter, self.join, self.envelope, self.sorts_keys)


def example_processing(
    input_filter: str, output_filter: str, *, join: bool, envelope: bool, sorts_keys: bool = False
) -> Processing:
    """The processing of Examples for a job's DataProcessing.

    Args:
        input_filter: a JSONPath that selects features.
        output_filter: a JSONPath.
        join: whether JoinSource is Input.
        envelope: whether an unjoined prediction gets its ``SageMakerOutput`` envelope.
        sorts_keys: whether what is joined has its attributes in the order of their names.

    Raises:
        JsonPathError: a filter is not supported.
    """
    before, after = compile_path(input_filter), compile_path(output_filter)
    compile_features(before)
    if before.is_identity and not join:  # then nothing has to be an Example
        return json_processing("$", output_filter, join=False, envelope=envelope)
    return ExampleProcessing(before, after, join, envelope, sorts_keys)


@lru_cache(maxsize=64)
def compile_features(path: JsonPath) -> Callable[[list[str]], list[str]]:
    """A filter as a function from the names of a record's features to the selected ones.

    Raises:
        JsonPathError: the filter looks into a feature.
    """
    if path.is_identity:
        return lambda names: names
    step = path.steps[0]
    if len(path.steps) > 1:
        raise JsonPathError(
            path.expression, 1, "InputFilter selects features of a tf.train.Example as a whole; leave out the rest"
        )
    if isinstance(step, Names):
        return lambda names: [name for name in step.names if name in names]
    if isinstance(step, Range):
        return lambda names: names[step.start : step.end]
    if isinstance(step, Name):
        return lambda names: _named(step.name, names)
    indices = (step.index,) if isinstance(step, Position) else step.indices

    def take(names: list[str]) -> list[str]:
        for index in indices:
            check_position(index, len(names))
        return [names[index] for index in indices]

    return take


def _named(name: str, names: list[str]) -> list[str]:
    if name not in names:
        there = ", ".join(map(repr, names)) or "none"
        raise RecordError(f"the filter names the feature {name!r}, which is not there; features: {there}")
    return [name]
