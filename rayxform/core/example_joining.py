"""DataProcessing for TFRecord files of ``tf.train.Example``, which AWS does not have: a record's features are its attributes.

InputFilter selects features, and what is sent is an Example with those. The join sees an Example as the JSON object that
``examples.attributes_of`` makes of it, and the result is JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import msgspec

from rayxform.core.examples import attributes_of, select_features
from rayxform.core.joining import JsonProcessing, Processing, json_processing
from rayxform.core.jsonpath import JsonPath, Name, Names, compile_path, select_positions
from rayxform.core.sources import OUTPUT
from rayxform.errors import JsonPathError, RecordError

_encode = msgspec.json.Encoder().encode
_Select = Callable[[list[str]], list[str]]


@dataclass(frozen=True)
class ExampleProcessing(JsonProcessing):
    """Filters and join for records that are tf.train.Example; what becomes of a prediction is what does with JSON."""

    def _look_into(self, record: bytes) -> tuple[bytes, bytes]:
        sent = record if self.sends_raw_records else select_features(record, self._selected)
        return sent, self._source(record) if self.join else b""

    def _source(self, record: bytes) -> bytes:
        attributes = attributes_of(record, self._needed)
        attributes.pop(OUTPUT, None)
        if self._needed is not None:  # in the filter's order
            attributes = {name: attributes[name] for name in self._needed if name in attributes}
        return _encode(attributes)

    @cached_property
    def _selected(self) -> _Select:
        return compile_features(self.input_filter)


def example_processing(
    input_filter: str,
    output_filter: str,
    *,
    join: bool,
    envelope: bool,
    sorts_keys: bool = False,
    stamps: bool = False,
    also_needed: frozenset[str] = frozenset(),
) -> Processing:
    """The processing of Examples for a job's DataProcessing.

    Args:
        input_filter: a JSONPath that selects features.
        output_filter: a JSONPath.
        join: whether JoinSource is Input.
        envelope: whether an unjoined prediction gets its ``SageMakerOutput`` envelope.
        sorts_keys: whether what is joined has its attributes in the order of their names.
        stamps: whether results get an inference id and time.
        also_needed: attributes of the record that the join keeps whatever OutputFilter asks for.

    Raises:
        JsonPathError: a filter is not supported.
    """
    before, after = compile_path(input_filter), compile_path(output_filter)
    compile_features(before)
    if before.is_identity and not join:  # then nothing has to be an Example
        return json_processing("$", output_filter, join=False, envelope=envelope, stamps=stamps)
    return ExampleProcessing(before, after, join, stamps, envelope, sorts_keys, also_needed)


def compile_features(path: JsonPath) -> _Select:
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
    if isinstance(step, Name):
        return lambda names: _named(step.name, names)
    return select_positions(step)


def _named(name: str, names: list[str]) -> list[str]:
    if name not in names:
        there = ", ".join(map(repr, names)) or "none"
        raise RecordError(f"the filter names the feature {name!r}, which is not there; features: {there}")
    return [name]
