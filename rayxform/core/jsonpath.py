"""The filters of DataProcessing: JSONPath, parsed by jsonpath-ng and compiled once to plain functions over raw JSON.

The operators are AWS's ("Associate Prediction Results with Input Records", table "Supported JSONPath operators"): ``$``,
``.name``, ``*``, ``['a','b']``, ``[n,m]`` and one ``[start:end]``. Three rules are rayxform's, after the seed document:

- A slice's end is exclusive.
- On a JSON object, positions count its attributes in their order, and what selects several gives an object again.
- After a step that selects several values, the rest of the path applies to each of them, and the shape is kept.

Values stay the bytes that they were: an object is decoded one level deep to ``dict[str, msgspec.Raw]``, an array to
``list[msgspec.Raw]``, and only along the path, so 1.0 stays 1.0 and 2^64 keeps every digit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from rayxform.errors import JsonPathError, RecordError

JsonValue = msgspec.Raw | dict[str, msgspec.Raw] | list[msgspec.Raw]
"""A JSON value, either still encoded or decoded one level deep."""

_Select = Callable[[JsonValue], JsonValue]
_T = TypeVar("_T")

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode

AWS_OPERATORS = "$, .name, *, ['a','b'], [n,m] and one [start:end]"

# What jsonpath-ng would take, or fail at with words of its own, and AWS does not have; searched outside quotes, in this order.
_UNSUPPORTED = (
    (r"\.\.", "recursive descent (..) is not supported; name every level"),
    (r"\?|@", "filter expressions (?, @) are not supported"),
    (r"\|", "unions (|) are not supported; write ['a','b'] or [n,m]"),
    (r"&", "intersections (&) are not supported"),
    (r"`", "named operators (`...`) are not supported"),
    (r"\[[^\]\[]*:[^\]\[]*:", "a step in a range is not supported; write [start:end]"),
    (r"[()+/<>=!~%^{}]", "this character is not supported outside quotes; write a name that holds it as ['name']"),
)
_TWO_RANGES = re.compile(r"\[(?=[^\]]*:)(?=[^\]]*,)[^\]]*\]")


@dataclass(frozen=True)
class Name:
    """``.name`` or ``['name']``: one attribute's value."""

    name: str


@dataclass(frozen=True)
class Names:
    """``['a','b']``: an object with those attributes that exist, in this order."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Position:
    """``[n]``: one element or attribute value; negative counts from the end."""

    index: int


@dataclass(frozen=True)
class Positions:
    """``[n,m]``: those elements or attributes."""

    indices: tuple[int, ...]


@dataclass(frozen=True)
class Range:
    """``[start:end]``, end exclusive; ``*`` is the range without bounds."""

    start: int | None
    end: int | None


Step = Name | Names | Position | Positions | Range


@dataclass(frozen=True)
class JsonPath:
    """A compiled filter.

    Attributes:
        expression: as it was written.
        steps: the path below ``$``; empty for ``$`` itself.
        select: takes a JSON value, gives the selected one; raises RecordError (without a place) where the value has no
            such attribute or position.
    """

    expression: str
    steps: tuple[Step, ...]
    select: _Select

    @property
    def is_identity(self) -> bool:
        """Whether the filter is ``$`` and changes nothing."""
        return not self.steps


@lru_cache(maxsize=64)
def compile_path(expression: str) -> JsonPath:
    """Parse a filter and compile it.

    Raises:
        JsonPathError: the expression is not JSONPath, or uses an operator that AWS does not have.
    """
    _refuse_unsupported(expression)
    try:
        steps = tuple(_steps(_parse(expression), expression))
        return JsonPath(expression, steps, _compile(steps))
    except RecursionError:
        raise JsonPathError(expression, 0, "the filter has hundreds of steps, more than can be followed") from None


def encode_value(value: JsonValue) -> bytes:
    """The value as compact JSON; what is still raw comes out as its own bytes."""
    return bytes(value) if isinstance(value, msgspec.Raw) else _encode(value)


def encode_sorted(value: JsonValue) -> bytes:
    """The value as compact JSON with the attributes of all objects in the order of their names, as SageMaker writes joins.

    Numbers and strings stay the bytes that they were.

    Raises:
        RecordError: it is nested hundreds of levels deep; without a place.
    """
    try:
        return _sorted(value)
    except RecursionError:
        raise RecordError(f"the value is nested too deeply for its keys to be sorted: {excerpt(value)}") from None


def _sorted(value: JsonValue) -> bytes:
    decoded: JsonValue = value
    if isinstance(value, msgspec.Raw):
        if bytes(memoryview(value)[:64]).lstrip()[:1] not in (b"{", b"["):
            return bytes(value).strip()
        decoded = decode_level(value)
    if isinstance(decoded, dict):
        return b"{" + b",".join(_encode(name) + b":" + _sorted(decoded[name]) for name in sorted(decoded)) + b"}"
    return b"[" + b",".join(map(_sorted, decoded)) + b"]"  # type: ignore[arg-type] # a Raw has been returned above


def _parse(expression: str) -> Any:
    from jsonpath_ng import parse  # noqa: PLC0415 - its parser tables cost start-up time that jobs without filters need not pay
    from jsonpath_ng.exceptions import JSONPathError  # noqa: PLC0415

    try:
        return parse(expression)
    except JSONPathError as error:
        place = re.search(r"(?:at 1:|col )(\d+)", str(error))
        column = int(place[1]) if place else len(expression)
        raise JsonPathError(expression, column, f"not a JSONPath; supported operators: {AWS_OPERATORS}") from None
    except ValueError:  # Python refuses to read numbers of thousands of digits
        raise JsonPathError(expression, 0, "a position in it is too large") from None


def _refuse_unsupported(expression: str) -> None:
    outside_quotes = re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", lambda quoted: "_" * len(quoted[0]), expression)
    if not outside_quotes.startswith("$"):
        raise JsonPathError(expression, 0, "a filter starts with $, the whole record")
    if ranges := _TWO_RANGES.search(outside_quotes):
        found = expression[ranges.start() : ranges.end()]
        reason = f"only single range filters of format (eg: [1:5]) are supported. Format {found} is not supported"
        raise JsonPathError(expression, ranges.start(), f"Invalid JsonPath: {expression}: {reason}")
    for pattern, reason in _UNSUPPORTED:
        if found_at := re.search(pattern, outside_quotes):
            raise JsonPathError(expression, found_at.start(), reason)


def _steps(node: Any, expression: str) -> Iterable[Step]:
    """The steps of jsonpath-ng's tree, outermost first; it is left-deep, and the types are told apart by their names."""
    kind = type(node).__name__
    if kind == "Root":
        return
    if kind == "Child":
        yield from _steps(node.left, expression)
        yield from _steps(node.right, expression)
    elif kind == "Fields" and node.fields != ("*",):
        yield Name(node.fields[0]) if len(node.fields) == 1 else Names(tuple(node.fields))
    elif kind in ("Wildcard", "Fields"):
        yield Range(None, None)
    elif kind == "Index":
        yield Position(node.indices[0]) if len(node.indices) == 1 else Positions(tuple(node.indices))
    elif kind == "Slice" and node.step is None:
        yield Range(node.start, node.end)
    else:
        raise JsonPathError(expression, 0, f"{kind} is not supported; supported operators: {AWS_OPERATORS}")


def _compile(steps: tuple[Step, ...]) -> _Select:
    if not steps:
        return lambda value: value
    here, rest = steps[0], _compile(steps[1:])
    last = len(steps) == 1
    if isinstance(here, (Name, Position)):
        pick = _pick_name(here.name) if isinstance(here, Name) else _pick_position(here.index)
        return pick if last else lambda value: rest(pick(value))
    several = _SEVERAL[type(here)](here)
    return several if last else lambda value: _each(rest, several(value))


def _each(rest: _Select, value: JsonValue) -> JsonValue:
    decoded = decode_level(value)
    if isinstance(decoded, dict):
        return {name: msgspec.Raw(encode_value(rest(item))) for name, item in decoded.items()}
    return [msgspec.Raw(encode_value(rest(item))) for item in decoded]


def decode_level(value: JsonValue) -> dict[str, msgspec.Raw] | list[msgspec.Raw]:
    """An object or array with its direct members as raw JSON.

    Raises:
        RecordError: the value is a string, a number, true, false or null; or it is nested hundreds of levels deep.
    """
    if not isinstance(value, msgspec.Raw):
        return value
    first = bytes(memoryview(value)[:64]).lstrip()[:1]
    try:
        return _decode_array(value) if first == b"[" else _decode_object(value)
    except msgspec.ValidationError:
        raise RecordError(f"the filter expects an object or an array, but the value is {excerpt(value)}") from None
    except RecursionError:  # it could just be read as a whole, with less on the stack
        raise RecordError(f"the value is nested too deeply to be filtered: {excerpt(value)}") from None


def _pick_name(name: str) -> _Select:
    def pick(value: JsonValue) -> JsonValue:
        decoded = decode_level(value)
        if not isinstance(decoded, dict):
            raise RecordError(f"the filter names the attribute {name!r}, but the value is the array {excerpt(value)}")
        try:
            return decoded[name]
        except KeyError:
            there = ", ".join(map(repr, decoded)) or "none"
            raise RecordError(f"the filter names the attribute {name!r}, which is not there; attributes: {there}") from None

    return pick


def _pick_position(index: int) -> _Select:
    def pick(value: JsonValue) -> JsonValue:
        decoded = decode_level(value)
        members = list(decoded.values()) if isinstance(decoded, dict) else decoded
        _check_position(index, len(members))
        return members[index]

    return pick


def _take_names(step: Names) -> _Select:
    names = step.names

    def take(value: JsonValue) -> JsonValue:
        decoded = decode_level(value)
        if not isinstance(decoded, dict):
            raise RecordError(f"the filter names the attributes {names}, but the value is the array {excerpt(value)}")
        return {name: decoded[name] for name in names if name in decoded}

    return take


def _take_positions(step: Positions | Range) -> _Select:
    select_items, select_elements = select_positions(step), select_positions(step)

    def take(value: JsonValue) -> JsonValue:
        decoded = decode_level(value)
        return dict(select_items(list(decoded.items()))) if isinstance(decoded, dict) else select_elements(decoded)

    return take


_SEVERAL: dict[type, Callable[[Any], _Select]] = {Names: _take_names, Positions: _take_positions, Range: _take_positions}


def select_positions(step: Position | Positions | Range) -> Callable[[list[_T]], list[_T]]:
    """The step as a function from a list to those of its elements that the step selects, in its order.

    The function raises RecordError, without a place, for a position that is not there.
    """
    if isinstance(step, Range):
        bounds = slice(step.start, step.end)
        return lambda elements: elements[bounds]
    indices = step.indices if isinstance(step, Positions) else (step.index,)

    def take(elements: list[_T]) -> list[_T]:
        for index in indices:
            _check_position(index, len(elements))
        return [elements[index] for index in indices]

    return take


def _check_position(index: int, length: int) -> None:
    if not -length <= index < length:
        raise RecordError(f"the filter asks for position {index}, but there are {length} (0 to {length - 1})")


def excerpt(value: JsonValue) -> str:
    """The value's JSON, cut at 60 characters, for a message."""
    text = encode_value(value).decode("utf-8", "replace")
    return text if len(text) <= 60 else text[:57] + "..."
