"""Filters: operators, their order of attributes, and what is refused with a caret."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayxform.core.jsonpath import compile_path, encode_value
from rayxform.errors import JsonPathError, RecordError
from tests.support import cases

CASES = [(group["given"], case) for group in cases("jsonpath") for case in group["cases"]]


@pytest.mark.parametrize(("value", "case"), CASES, ids=lambda part: part.get("expression", "") if "expression" in part else "")
def test_case(value, case):
    if "path_error" in case:
        with pytest.raises(JsonPathError) as caught:
            compile_path(case["expression"])
        assert case["path_error"] in caught.value.reason
        assert caught.value.column == case["column"]
        assert str(caught.value).splitlines()[-1] == " " * (4 + case["column"]) + "^"
        return
    select = compile_path(case["expression"]).select
    raw = msgspec.Raw(json.dumps(value).encode())
    if "record_error" in case:
        with pytest.raises(RecordError) as caught:
            select(raw)
        assert case["record_error"] in caught.value.reason
    else:
        selected = encode_value(select(raw))
        assert list_items(json.loads(selected)) == list_items(case["result"])


def list_items(value):
    """Objects as lists of pairs, so that their order counts."""
    return [list(map(list_items, item)) for item in value.items()] if isinstance(value, dict) else value


@given(st.text(alphabet="$.[]'\",:*ab019-_ ()?@", max_size=12))
def test_any_text_is_a_path_or_refused_with_its_column(text):
    try:
        compiled = compile_path(text)
    except JsonPathError as error:
        assert 0 <= error.column <= len(text)
    else:
        assert compiled.expression == text


@given(st.dictionaries(st.text(max_size=3), st.integers()), st.integers(-4, 4), st.integers(-4, 4))
def test_a_range_takes_attributes_as_python_slices_do(value, start, end):
    selected = compile_path(f"$[{start}:{end}]").select(msgspec.Raw(json.dumps(value).encode()))
    assert json.loads(encode_value(selected)) == dict(list(value.items())[start:end])
