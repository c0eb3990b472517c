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


def test_each_result_ends_with_exactly_one_newline_where_lines_are_assembled():
    assert assemble([b"a", b"b\n"], newline_ended=True) == b"a\nb\n"
    assert assemble([b"a", b"b\n"], newline_ended=False) == b"ab\n"
