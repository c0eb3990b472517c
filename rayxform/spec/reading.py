"""The job file's text: JSON, or YAML that knows JSON's types only, and the command line's ``--set``.

YAML 1.1 would read ``2022-01-01`` as a date, ``yes`` as true, ``12:30`` as 750 and ``012`` as 10. Here a plain scalar
is what JSON would make of it (a number, true, false or null, as in YAML 1.2), and else a string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NoReturn

import yaml

from rayxform.errors import JobFileError, Problem
from rayxform.spec.problems import dotted, shown, unknown_member
from rayxform.spec.schema import member_node

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$")
_TAG = "tag:yaml.org,2002:"
_SYNTAX_LIMIT = "a JSON or YAML object"
_MAX_VALUES = 100_000
"""What a file may hold, with every alias written out: nine lines of nine aliases each would hold 387,420,489 values."""


def read_members(text: str, origin: str) -> Mapping[str, Any]:
    """Parse a job file's text to its members, unchecked.

    Args:
        text: JSON or YAML.
        origin: the file's name, for messages.

    Raises:
        JobFileError: the text is neither JSON nor YAML, names a member twice, or is not an object; the problem's path
            is the origin and the line, from 1.
    """
    text = text.removeprefix("\ufeff")
    try:
        members = _parse(text)
    except _SyntaxError as error:
        raise JobFileError([error.problem(text, origin)]) from None
    return check_mapping(members, origin)


def check_mapping(members: object, origin: str) -> Mapping[str, Any]:
    """Return the members if they are a mapping.

    Raises:
        JobFileError: they are something else; its path is the origin.
    """
    if isinstance(members, Mapping):
        return members
    found = None if members is None else shown(members)
    raise JobFileError([Problem(origin, found, "an object with CreateTransformJob's members", "Begin with TransformInput.")])


def with_overrides(members: Mapping[str, Any], overrides: Iterable[str]) -> tuple[Mapping[str, Any], list[Problem]]:
    """Apply ``Path.To.Member=VALUE`` settings to members, which stay as they are.

    VALUE is JSON where it is JSON, else a string; for a member that is a string it is always taken as it is. Missing
    parents are made. A setting that cannot be applied becomes a problem.
    """
    problems = []
    for override in overrides:
        name, equals, text = override.partition("=")
        path = tuple(name.strip().split("."))
        node = member_node(path)
        if not (equals and name.strip()):
            limit = "Path.To.Member=VALUE"
            problems.append(Problem(f"--set {override}", shown(override), limit, "Write TransformInput.SplitType=Line, say."))
        elif node is None:
            problems.append(unknown_member(path))
        else:
            members = _with_member(members, path, text if node["type"] == "string" else _json_or_text(text))
    return members, problems


def _with_member(members: Mapping[str, Any], path: tuple[str, ...], value: object) -> Mapping[str, Any]:
    """A copy of the members with one set; what is no object and stands in the way stays, to be reported as such."""
    name, rest = path[0], path[1:]
    if rest:
        inner = members.get(name)
        inner = {} if inner is None else inner
        value = _with_member(inner, rest, value) if isinstance(inner, Mapping) else inner
    return {**members, name: value}


def _json_or_text(text: str) -> object:
    try:
        value: object = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text
    return value


class _SyntaxError(Exception):
    """The text cannot be parsed.

    Attributes:
        reason: why.
        line: where, from 1, or 0 where it is not known.
    """

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason, line)
        self.reason = reason
        self.line = line

    def problem(self, text: str, origin: str) -> Problem:
        lines = ["", *text.split("\n")]
        found = lines[self.line].strip() if self.line < len(lines) else ""
        place = f"{origin}, line {self.line}" if self.line else origin
        return Problem(place, shown(found or text.strip()), _SYNTAX_LIMIT, f"{self.reason}.")


def _parse(text: str) -> object:
    """JSON where a quoted name follows the first brace, else YAML; YAML would take ``{"a": 1 "b": 2}`` for a text."""
    if not re.match(r'\s*\{\s*["}]', text):
        return _parse_yaml(text)
    try:
        return _parse_json(text)
    except _SyntaxError as error:
        if not error.line:
            _parse_yaml(text)  # raises with the line, unless only JSON refuses the text
        raise


def _parse_json(text: str) -> object:
    try:
        members: object = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise _SyntaxError(f"{error.msg} (column {error.colno})", error.lineno) from None
    except (ValueError, RecursionError) as error:
        raise _SyntaxError(str(error)) from None
    return members


def _parse_yaml(text: str) -> object:
    try:
        members: object = yaml.load(text, Loader=JobLoader)  # noqa: S506 - JobLoader constructs JSON's types only
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 1)
        raise _SyntaxError(f"{error.problem or error.context} (column {column})", line) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _SyntaxError(" ".join(str(error).split())) from None
    return members


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member is given twice in one object")  # YAML's parser, tried next, tells which one and where
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


class JobLoader(yaml.SafeLoader):
    """YAML with JSON's types; other tags (!!timestamp, !!binary, !!set) are errors, and so is a name given twice."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - declared so by PyYAML
    yaml_constructors = {  # noqa: RUF012 - the same
        tag: yaml.SafeLoader.yaml_constructors[tag] for tag in (None, _TAG + "str", _TAG + "seq", _TAG + "map")
    }

    def get_single_node(self) -> yaml.Node | None:
        """The document, unless it holds too many values."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _count_values(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """An object, unless a name comes twice."""
        names = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a name is a list or an object", key.start_mark)
            if key.value in names:
                reason = f"{dotted([key.value])} is given twice in one object"
                raise yaml.constructor.ConstructorError(None, None, reason, key.start_mark)
            names.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _count_values(node: yaml.Node, counts: dict[yaml.Node, int]) -> int:
    """How many values a node holds with its aliases written out; those of a node that is being counted are not known yet.

    Raises:
        yaml.MarkedYAMLError: they are over the limit, or without end.
    """
    if node not in counts:
        counts[node] = _MAX_VALUES
        inner = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
        counts[node] = 1 + (0 if isinstance(node, yaml.ScalarNode) else sum(_count_values(one, counts) for one in inner))
    if counts[node] > _MAX_VALUES:
        reason = f"with its aliases written out it holds more than {_MAX_VALUES:,} values"
        raise yaml.composer.ComposerError(None, None, reason, node.start_mark)
    return counts[node]


def _yaml_number(loader: JobLoader, node: yaml.ScalarNode) -> object:
    value: object = json.loads(str(loader.construct_scalar(node)), parse_constant=_no_constant)
    return value


def _yaml_bool(loader: JobLoader, node: yaml.ScalarNode) -> bool:
    return str(loader.construct_scalar(node)).lower() == "true"


def _yaml_null(_loader: JobLoader, _node: yaml.ScalarNode) -> None:
    return None


JobLoader.add_implicit_resolver(_TAG + "null", re.compile(r"(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
JobLoader.add_implicit_resolver(_TAG + "bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
JobLoader.add_implicit_resolver(_TAG + "float", _NUMBER, list("-0123456789"))
JobLoader.add_implicit_resolver(_TAG + "merge", re.compile(r"<<$"), ["<"])
JobLoader.add_constructor(_TAG + "null", _yaml_null)
JobLoader.add_constructor(_TAG + "bool", _yaml_bool)
JobLoader.add_constructor(_TAG + "float", _yaml_number)
