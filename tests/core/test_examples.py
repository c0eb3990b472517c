"""tf.train.Example: the bytes that TensorFlow writes, what filters select of them, what a join makes of them."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayxform.core.example_joining import compile_features, example_processing
from rayxform.core.examples import attributes_of, parse_example, read_examples, write_example
from rayxform.core.framing import tfrecord_frame
from rayxform.core.jsonpath import compile_path
from rayxform.core.splitting import Records
from rayxform.errors import JsonPathError, RecordError

# TensorFlow, "TFRecord and tf.train.Example", serialize_example(False, 4, b'goat', 0.9876).
GOAT = (
    b"\nR\n\x14\n\x08feature2\x12\x08\n\x06\n\x04goat\n\x11\n\x08feature0\x12\x05\x1a\x03\n\x01\x00"
    b"\n\x14\n\x08feature3\x12\x08\x12\x06\n\x04[\xd3|?\n\x11\n\x08feature1\x12\x05\x1a\x03\n\x01\x04"
)
GOAT_FEATURES = {"feature2": [b"goat"], "feature0": [0], "feature3": [pytest.approx(0.9876)], "feature1": [4]}


def test_tensorflows_own_bytes_are_read_and_written_in_their_order():
    features = parse_example(GOAT)
    assert features == GOAT_FEATURES
    assert list(features) == list(GOAT_FEATURES)
    assert write_example(features) == GOAT


def test_floats_that_are_not_packed_are_read():
    entry = b"\n\x01x" + b"\x12\x0c" + b"\x12\x0a" + b"\r\x00\x00\x80?" * 2
    features = b"\n" + bytes([len(entry)]) + entry
    assert parse_example(b"\n" + bytes([len(features)]) + features) == {"x": [1.0, 1.0]}


def test_attributes_are_json_with_bytes_as_base64_and_floats_of_32_bits():
    record = write_example(
        {"b": [b"\x00\xff"], "f": [0.1], "i": [-(2**63)], "many": [1, 2], "none": [], "odd": [math.nan, 1e30]}
    )
    raw = {name: bytes(value) for name, value in attributes_of(record, None).items()}
    assert raw == {
        "b": b'"AP8="',
        "f": b"0.1",
        "i": b"-9223372036854775808",
        "many": b"[1,2]",
        "none": b"[]",
        "odd": b"[null,1e+30]",
    }
    assert list(attributes_of(record, frozenset({"i", "nowhere"}))) == ["i"]


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.one_of(
            st.lists(st.binary(max_size=9), max_size=3),
            st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
            st.lists(st.floats(width=32), max_size=3),
        ),
        max_size=4,
    )
)
def test_what_is_written_is_read_again(features):
    record = write_example(features)
    again = parse_example(record)
    assert list(again) == list(features)
    assert str(again) == str(features)  # NaN is not equal to itself
    for name, value in attributes_of(record, None).items():
        decoded = json.loads(bytes(value))
        values = decoded if isinstance(decoded, list) else [decoded]
        for found, expected in zip(values, features[name], strict=True):
            if isinstance(expected, float) and math.isfinite(expected):
                assert np.float32(found) == np.float32(expected)


def test_a_request_of_frames_and_a_request_of_one_record_are_read():
    assert read_examples(tfrecord_frame(GOAT) * 3) == [GOAT_FEATURES] * 3
    assert read_examples(GOAT) == [GOAT_FEATURES]
    with pytest.raises(RecordError, match="record 2: the record is not a tf.train.Example"):
        read_examples(tfrecord_frame(GOAT) + tfrecord_frame(b"\xff"))
    damaged = tfrecord_frame(GOAT) * 2
    with pytest.raises(RecordError, match="record 2: the CRC-32C"):
        read_examples(damaged[:-1] + b"\0")


@pytest.mark.parametrize("values", [[1, b"a"], ["text"], [None], [1.5, "a"]])
def test_values_of_another_kind_or_of_several_are_refused(values):
    with pytest.raises(TypeError, match="a feature holds bytes, float or int"):
        write_example({"a": values})


@pytest.mark.parametrize(
    ("expression", "selected"),
    [
        ("$", ["feature2", "feature0", "feature3", "feature1"]),
        ("$.feature1", ["feature1"]),
        ("$['feature1','feature2','nowhere']", ["feature1", "feature2"]),
        ("$[-1]", ["feature1"]),
        ("$[1,0]", ["feature0", "feature2"]),
        ("$[:-1]", ["feature2", "feature0", "feature3"]),
    ],
)
def test_a_filter_sends_an_example_of_the_selected_features(expression, selected):
    prepared = example_processing(expression, "$", join=True, envelope=True).prepare(Records([GOAT], [0]))
    assert list(parse_example(prepared.sent[0])) == selected
    assert json.loads(prepared.sources[0])["feature2"] == "Z29hdA=="


@pytest.mark.parametrize("expression", ["$.nowhere", "$[4]"])
def test_a_feature_that_is_not_there_is_a_record_error(expression):
    prepared = example_processing(expression, "$", join=False, envelope=True).prepare(Records([GOAT], [0]))
    assert "not there" in prepared.errors[0].reason or "position 4, but there are 4" in prepared.errors[0].reason


def test_a_filter_into_a_feature_is_refused():
    with pytest.raises(JsonPathError, match="as a whole"):
        compile_features(compile_path("$.a[0]"))


@given(st.binary(max_size=80))
def test_any_bytes_are_an_example_or_a_record_error(record):
    prepared = example_processing("$", "$", join=True, envelope=True).prepare(Records([record], [0]))
    if prepared.errors:
        assert "is not a tf.train.Example" in prepared.errors[0].reason
    else:
        assert isinstance(json.loads(prepared.sources[0]), dict)
