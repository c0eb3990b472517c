"""From a response back to its records, and from records to output bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayxform.core.assembling import assemble, cut_response
from rayxform.errors import ResponseError
from tests.support import cases


@pytest.mark.parametrize("case", cases("responses"), ids=lambda case: case["source"])
def test_case(case):
    arguments = case["response"].encode(), case["n"], case["accept"]
    options = {"multi_record": case.get("multi_record", True), "may_be_several": case.get("may_be_several", False)}
    if "error" in case:
        with pytest.raises(ResponseError, match=case["error"]):
            cut_response(*arguments, **options)
    else:
        found = cut_response(*arguments, **options)
        assert found == [line.encode() for line in case["result"]]


@given(st.lists(st.integers() | st.text() | st.lists(st.integers()), min_size=2))
def test_the_seeds_doubly_encoded_answer_is_the_same_as_its_lines(predictions):
    lines = [json.dumps({"predictions": one}) for one in predictions]
    twice = json.dumps("\n".join(lines)).encode()
    assert cut_response(twice, len(lines), "application/jsonlines", multi_record=True) == [one.encode() for one in lines]


@pytest.mark.parametrize("accept", ["application/json", "application/jsonlines"])
def test_a_response_that_is_nested_too_deeply_is_one_prediction_and_not_several(accept):
    deep = b"[" * 5000 + b"]" * 5000
    for response in (deep, b'"' + deep + b'"'):
        for options in ({"multi_record": True}, {"multi_record": False, "may_be_several": True}):
            assert cut_response(response, 1, accept, **options) == [response]
        with pytest.raises(ResponseError, match="but got 1"):
            cut_response(response, 2, accept, multi_record=True)


def test_each_result_ends_with_exactly_one_newline_where_lines_are_assembled():
    for results, lines, as_they_are in (
        ([b"a", b"b\n"], b"a\nb\n", b"ab\n"),
        ([b"a", b"b"], b"a\nb\n", b"ab"),
        ([b"a\nb"], b"a\nb\n", b"a\nb"),
        ([b"a\n"], b"a\n", b"a\n"),
        ([], b"", b""),
    ):
        assert b"".join(assemble(results, newline_ended=True)) == lines
        assert b"".join(assemble(results, newline_ended=False)) == as_they_are
