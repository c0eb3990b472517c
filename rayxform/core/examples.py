"""``tf.train.Example``, the record that TFRecord files usually hold, read and written without TensorFlow.

A feature is a list of bytes, of floats (32 bits) or of integers (64 bits). The message is that of TensorFlow's
``example.proto`` and ``feature.proto``, but for one thing that the bytes do not show: the map of features is declared as
the repeated entries that a map is on the wire (Protocol Buffers, "Maps: Backwards compatibility"), so that their order stays.
"""

from __future__ import annotations

import functools
from base64 import b64encode
from collections.abc import Callable, Container, Iterable, Mapping
from math import isfinite
from typing import Any

import msgspec

from rayxform.core.framing import TFRecordSplitter
from rayxform.errors import RecordError

FeatureValues = list[bytes] | list[float] | list[int]
"""A feature's values, all of one kind; [] for a feature that holds none."""

EXAMPLE_TYPES = frozenset({"application/x-tfexample", "application/x-tfrecord"})
"""Media types of Examples; IANA has none. The second is what AWS's own images call TFRecord."""

_encode = msgspec.json.Encoder().encode


def read_examples(body: bytes) -> list[dict[str, FeatureValues]]:
    """The Examples in a request's body: in TFRecord frames, as MultiRecord sends them, or one alone, as SingleRecord does.

    Args:
        body: what ``input_fn`` is given for ``SplitType: TFRecord``.

    Returns:
        A dict for each record: feature's name → its values, a list of bytes, float or int.

    Raises:
        RecordError: a record is no tf.train.Example, or a frame is damaged; counts from the body's first record.
    """
    splitter = TFRecordSplitter()
    data: list[bytes] = []
    errors: dict[int, RecordError] = {}
    for records in (*splitter.feed(body), splitter.flush()):
        errors |= {len(data) + index: error for index, error in records.errors.items()}
        data += records.data
    if 0 in errors:
        return [parse_example(body)]  # no frame begins here, so it is what is in one
    examples = []
    for index, record in enumerate(data):
        try:
            examples.append(parse_example(record))
        except RecordError as error:
            errors[index] = error
    if errors:
        index = min(errors)
        raise RecordError(errors[index].reason, index)
    return examples


def write_example(features: Mapping[str, Iterable[bytes] | Iterable[float] | Iterable[int]]) -> bytes:
    """A serialized tf.train.Example, without a frame.

    Args:
        features: name → values, all bytes, all float or all int (numpy's numbers too).

    Raises:
        TypeError: the values of a feature are of another kind, or of several.
    """
    example = _message()()
    for name, values in features.items():
        entry = example.features.feature.add(key=name)
        kept = list(values)
        _list_of(entry.value, kept).extend(kept)
    data: bytes = example.SerializeToString()
    return data


def parse_example(record: bytes) -> dict[str, FeatureValues]:
    """The features of a serialized tf.train.Example, in their order; of two with one name the last one counts.

    Raises:
        RecordError: it is not a tf.train.Example; without a place.
    """
    return {entry.key: _values(entry.value) for entry in _entries(record)}


def attributes_of(record: bytes, needed: Container[str] | None) -> dict[str, msgspec.Raw]:
    """The features of an Example as attributes of a JSON object.

    A feature of one value is that value, of several an array. Bytes are base64, floats the shortest number that is the same
    in 32 bits, and what JSON has no number for (NaN and the infinities) is null.

    Args:
        record: a serialized tf.train.Example.
        needed: the features that are asked for; None for all.

    Raises:
        RecordError: it is not a tf.train.Example; without a place.
    """
    return {
        entry.key: msgspec.Raw(_json(_values(entry.value)))
        for entry in _entries(record)
        if needed is None or entry.key in needed
    }


def select_features(record: bytes, select: Callable[[list[str]], list[str]]) -> bytes:
    """An Example with some of a record's features.

    Args:
        record: a serialized tf.train.Example.
        select: gives the names that are wanted, of those that are there, in the order that is wanted.

    Raises:
        RecordError: it is not a tf.train.Example, or has no such feature; without a place.
    """
    found = {entry.key: entry for entry in _entries(record)}
    example = _message()()
    example.features.feature.extend(found[name] for name in select(list(found)))
    data: bytes = example.SerializeToString(deterministic=True)
    return data


def _entries(record: bytes) -> Iterable[Any]:
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - not needed where no TFRecord is

    try:
        entries: Iterable[Any] = _message().FromString(record).features.feature
    except DecodeError as error:
        raise RecordError(f"the record is not a tf.train.Example, which filters and joins of TFRecord need: {error}") from None
    return entries


def _values(feature: Any) -> FeatureValues:
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []


def _list_of(feature: Any, values: list[Any]) -> Any:
    """The list of a feature that takes such values."""
    if all(isinstance(value, bytes) for value in values) and values:
        return feature.bytes_list.value
    import numbers  # noqa: PLC0415

    if all(isinstance(value, numbers.Integral) for value in values):
        return feature.int64_list.value
    if all(isinstance(value, numbers.Real) for value in values):
        return feature.float_list.value
    kinds = ", ".join(sorted({type(value).__name__ for value in values}))
    raise TypeError(f"a feature holds bytes, float or int, and all of its values are of one kind; these are {kinds}")


def _json(values: FeatureValues) -> bytes:
    shown = [_value_json(value) for value in values]
    return shown[0] if len(shown) == 1 else b"[" + b",".join(shown) + b"]"


def _value_json(value: float | bytes) -> bytes:
    if isinstance(value, bytes):
        return b'"' + b64encode(value) + b'"'
    if isinstance(value, float):
        if not isfinite(value):
            return b"null"
        import numpy as np  # noqa: PLC0415 - has the shortest digits of 32 bits

        return str(np.float32(value)).encode()
    return _encode(value)


@functools.cache
def _message() -> Any:
    """The class of the message tf.train.Example."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: PLC0415

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="rayxform/example.proto", package="rayxform.tensorflow", syntax="proto3")
    kinds = {"BytesList": field.TYPE_BYTES, "FloatList": field.TYPE_FLOAT, "Int64List": field.TYPE_INT64}
    for name, kind in kinds.items():
        file.message_type.add(name=name).field.add(name="value", number=1, label=field.LABEL_REPEATED, type=kind)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, kind_name) in enumerate(zip(("bytes_list", "float_list", "int64_list"), kinds, strict=True), start=1):
        feature.field.add(
            name=name,
            number=number,
            label=field.LABEL_OPTIONAL,
            type=field.TYPE_MESSAGE,
            type_name=f".rayxform.tensorflow.{kind_name}",
            oneof_index=0,
        )
    _add_message(file, "Entry", ("key", None), ("value", "Feature"))
    _add_message(file, "Features", ("feature", "*Entry"))
    _add_message(file, "Example", ("features", "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("rayxform.tensorflow.Example"))


def _add_message(file: Any, name: str, *fields: tuple[str, str | None]) -> None:
    """Declare a message of strings (None) and messages, repeated ones with a star before their type."""
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field  # noqa: PLC0415

    message = file.message_type.add(name=name)
    for number, (field_name, kind) in enumerate(fields, start=1):
        repeated = (kind or "").startswith("*")
        message.field.add(
            name=field_name,
            number=number,
            label=Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL,
            type=Field.TYPE_MESSAGE if kind else Field.TYPE_STRING,
            type_name=f".rayxform.tensorflow.{kind.lstrip('*')}" if kind else None,
        )
