"""Whether two predictions say the same; the behaviour is ``cases/comparing.json``."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayxform.core.comparing import says_the_same

CASES = json.loads((Path(__file__).parents[1] / "cases/comparing.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['one']} {case['other']}")
def test_cases(case):
    one, other = case["one"].encode(), case["other"].encode()
    assert says_the_same(one, other) is case["same"], case["source"]
    assert says_the_same(other, one) is case["same"]


@given(st.binary(), st.binary())
def test_any_bytes_can_be_compared(one, other):
    """A model may answer anything; only the same bytes need be the same."""
    assert says_the_same(one, one)
    assert says_the_same(one, other) == says_the_same(other, one)
