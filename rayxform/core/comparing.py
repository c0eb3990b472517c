"""Whether two predictions for one record say the same, though their digits differ."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

TOLERANCE: Final = 0.01
"""Single numbers that differ by no more than this share, or by no more than this where both are that small, are the same."""


def says_the_same(one: bytes, other: bytes) -> bool:
    """Tell whether two predictions come to the same: scores name the same class (top-1), other values are alike.

    Args:
        one: a prediction as JSON, as a line of CSV, or as anything else, which has to be the same bytes.
        other: another prediction for the same record.
    """
    if one == other:
        return True
    values = _values(one), _values(other)
    return None not in values and _are_alike(*values)


def _values(prediction: bytes) -> Any:
    """What it holds; None if it is neither JSON nor numbers between commas."""
    try:
        return msgspec.json.decode(prediction)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        return [float(field) for field in prediction.split(b",")]
    except ValueError:
        return None


def _are_alike(one: Any, other: Any) -> bool:
    if _are_scores(one) and _are_scores(other):
        return len(one) == len(other) and _top(one) == _top(other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_are_alike(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_are_alike, one, other))
    if isinstance(one, float) or isinstance(other, float):
        return _is_number(one) and _is_number(other) and math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(one == other)


def _are_scores(value: Any) -> bool:
    """Whether it is a list, or an object, of two numbers or more, and not whole ones alone."""
    numbers = list(value.values()) if isinstance(value, dict) else value
    return (
        isinstance(numbers, list)
        and len(numbers) > 1
        and all(map(_is_number, numbers))
        and any(isinstance(one, float) for one in numbers)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _top(scores: Any) -> Any:
    places = scores if isinstance(scores, dict) else range(len(scores))
    return max(places, key=lambda place: scores[place])
