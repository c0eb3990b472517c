"""InputFilter, join, OutputFilter: what is sent, what travels for the join, what comes out, byte for byte."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayxform.core.joining import json_processing
from rayxform.core.lines import Lines, find_lines, offsets_of
from rayxform.core.splitting import Records
from rayxform.errors import RecordError
from tests.support import cases


def processing_of(case):
    filters = case.get("input_filter", "$"), case.get("output_filter", "$")
    return json_processing(*filters, join=case["join"], envelope=case["envelope"])


@pytest.mark.parametrize("case", cases("joining"), ids=lambda case: case["source"])
def test_case(case):
    processing = processing_of(case)
    record = bytes.fromhex(case["record_hex"]) if "record_hex" in case else case["record"].encode()
    prepared = processing.prepare(Records([record], [0]))
    if "record_error" in case:
        assert case["record_error"] in prepared.errors[0].reason
        return
    assert not prepared.errors
    assert prepared.sent == [case.get("sent", case["record"]).encode()]
    source = prepared.sources[0] if prepared.sources is not None else None
    if "source_bytes" in case:
        assert source == case["source_bytes"].encode()
    if "prediction_error" in case:
        with pytest.raises(RecordError, match=case["prediction_error"]):
            processing.finish(case["prediction"].encode(), source)
    else:
        assert processing.finish(case["prediction"].encode(), source) == case["output"].encode()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), values, max_size=5), values)
def test_a_joined_object_holds_every_attribute_and_the_prediction_first(record, prediction):
    processing = json_processing("$", "$", join=True, envelope=True)
    text = json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass")
    prepared = processing.prepare(Records([text], [0]))
    joined = json.loads(processing.finish(json.dumps(prediction).encode(), prepared.sources[0]))
    expected = {"SageMakerOutput": prediction} | {k: v for k, v in record.items() if k != "SageMakerOutput"}
    assert list(joined.items()) == list(expected.items())


names = st.lists(
    st.sampled_from(["a", "b", "é", 'q"uote', "back\\slash", "SageMakerOutput"]), min_size=1, max_size=4, unique=True
)


@given(st.lists(st.dictionaries(st.sampled_from("abcé"), values, max_size=4), min_size=1, max_size=5), names)
def test_lines_are_prepared_at_once_as_one_by_one(records, wanted):
    quoted = ",".join("'" + name.replace("\\", "\\\\") + "'" for name in wanted)
    processing = json_processing("$", f"$[{quoted}]", join=True, envelope=True)
    lines = [json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass") for record in records]
    text = b"".join(line + b"\n" for line in lines)
    (starts,) = find_lines(text, 0, 100)
    at_once = processing.prepare(Records(Lines(text, starts), offsets_of(starts, 0)))
    one_by_one = processing.prepare(Records(lines, [*offsets_of(starts, 0)]))
    assert at_once.sources == one_by_one.sources
    assert [str(error) for error in at_once.errors.values()] == [str(error) for error in one_by_one.errors.values()]


FILTERS = (
    "$",
    "$['SageMakerOutput','a']",
    "$['a','SageMakerOutput']",
    "$['a','SageMakerOutput','b']",
    "$['SageMakerOutput']",
    "$.a",
)


@given(st.lists(st.tuples(values, st.dictionaries(st.sampled_from("ab"), values)), min_size=1, max_size=4), st.data())
def test_results_that_are_put_together_at_once_are_those_of_each(pairs, data):
    join, envelope = data.draw(st.booleans()), data.draw(st.booleans())
    chosen = data.draw(st.sampled_from(FILTERS))
    processing = json_processing("$", chosen, join=join, envelope=envelope, sorts_keys=data.draw(st.booleans()))
    predictions = [msgspec.Raw(json.dumps(prediction).encode()) for prediction, _ in pairs]
    records = [json.dumps(record).encode() for _, record in pairs]
    sources = processing.prepare(Records(records, [*range(len(records))])).sources
    at_once = processing.finish_lines(predictions, None if sources is None else b"\n".join(sources))
    if at_once is not None:
        each = zip(predictions, sources or [None] * len(pairs), strict=True)
        assert at_once == b"".join(processing.finish(*one) + b"\n" for one in each)


@pytest.mark.parametrize("join", [False, True])
@pytest.mark.parametrize("chosen", ["$", "$['SageMakerOutput','a']", "$['a','SageMakerOutput']"])
def test_the_usual_jobs_results_are_put_together_at_once(chosen, join):
    """A source for each prediction, or each by itself where one is not an object or has nothing of what is wanted."""
    processing = json_processing("$", chosen, join=join, envelope=True)
    predictions = [msgspec.Raw(b"1"), msgspec.Raw(b'{"b":2}')]
    source = b'{"a":1}\n{"a":2}' if join else None
    assert (processing.finish_lines(predictions, source) is not None) == (join or chosen == "$")
    assert processing.finish_lines([b"1", b"2"], source) is None, "what is not known to be JSON is looked at"
    if join:
        assert processing.finish_lines(predictions, b'{"a":1}\n{}') is None
        assert processing.finish_lines(predictions, b'{"a":1}\nnull') is None
        assert processing.finish_lines(predictions, b'{"a":1}') is None


@given(values, values)
def test_sorting_keys_changes_their_order_and_nothing_else(record, prediction):
    processing = json_processing("$", "$", join=True, envelope=True, sorts_keys=True)
    prepared = processing.prepare(Records([json.dumps(record).encode()], [0]))
    joined = processing.finish(json.dumps(prediction, indent=1).encode(), prepared.sources[0])
    expected = (
        {k: v for k, v in record.items() if k != "SageMakerOutput"} if isinstance(record, dict) else {"SageMakerInput": record}
    )
    expected["SageMakerOutput"] = prediction
    assert json.loads(joined) == expected
    assert json.dumps(json.loads(joined), sort_keys=True) == json.dumps(json.loads(joined))


@pytest.mark.parametrize("text", [b"[" * 5000 + b"]" * 5000, b'{"id":' * 5000 + b"1" + b"}" * 5000])
@pytest.mark.parametrize("filters", [("$", "$"), ("$.id", "$['SageMakerOutput','id']"), ("$[0]", "$.SageMakerOutput.id")])
def test_a_value_that_is_nested_deeper_than_pythons_stack_is_a_record_error(text, filters):
    """RFC 8259, section 9: a parser may limit the depth."""
    processing = json_processing(*filters, join=True, envelope=True)
    assert "the record is nested too deeply" in processing.prepare(Records([text], [0])).errors[0].reason
    with pytest.raises(RecordError, match="the prediction is nested too deeply"):
        processing.finish(text, b"{}")


def test_a_value_that_is_nested_too_deeply_to_be_sorted_is_a_record_error():
    processing = json_processing("$", "$", join=True, envelope=True, sorts_keys=True)
    with pytest.raises(RecordError, match="nested too deeply|not valid JSON|recursion"):
        processing.finish(b"[" * 900 + b"]" * 900, b"{}")


@given(st.binary(max_size=40))
def test_any_bytes_are_sent_as_they_are_or_named_as_a_bad_record(record):
    prepared = json_processing("$", "$['SageMakerOutput','id']", join=True, envelope=True).prepare(Records([record], [0]))
    assert prepared.errors or prepared.sent == [record]
    try:
        json.loads(record)
    except ValueError:
        assert prepared.errors
