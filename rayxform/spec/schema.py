"""The JSON Schema of the job file, and what error messages read from it: a member's limits in words."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from rayxform.spec.members import PATTERNS, CreateTransformJob

Node = dict[str, Any]
"""A JSON Schema, or a part of one."""

_PATTERN_WORDS = {
    PATTERNS["hyphenated"]: "letters, digits and hyphens, a letter or digit at both ends",
    PATTERNS["hyphens"]: "letters, digits and hyphens",
    PATTERNS["http"]: "an http:// or https:// URL",
    PATTERNS["key"]: "letters, digits and :/_-",
    PATTERNS["no_nul"]: "without NUL characters",
    PATTERNS["one_line"]: "on one line",
    PATTERNS["variable"]: "letters, digits and _, no digit first",
}


def job_schema() -> Node:
    """Return the JSON Schema (draft 2020-12) of the job file, by which editors complete and check it.

    Rules that span members are not in it, nor is what this release has not built yet.
    """
    return copy.deepcopy(_schema())


def member_node(path: Sequence[str | int]) -> Node | None:
    """Return the schema of the member at a path, or None where the job file has no such member.

    An item of a list is any number; a variable of an Environment is any name.
    """
    node = _resolved(_schema())
    for step in path:
        inner = _inner_node(node, step)
        if inner is None:
            return None
        node = _resolved(inner)
    return node


def member_paths(name: str) -> list[str]:
    """Return every place, as a dotted path, at which a member of this name may stand."""
    return sorted(path for path in _all_paths() if path.rpartition(".")[2] == name)


def member_names() -> list[str]:
    """Return the names of all members, without their paths."""
    return sorted({path.rpartition(".")[2] for path in _all_paths()})


def limit_in_words(node: Node) -> str:
    """Say what a member may be: "an integer from 0 to 100", "one of "None", "Line"".

    Raises:
        KeyError: the node has neither type nor enum; none of the job's members is so.
    """
    if "enum" in node:
        return "one of " + ", ".join(map(json.dumps, node["enum"]))
    words = {
        "array": _array_in_words,
        "boolean": lambda _: "true or false",
        "integer": lambda node: "an integer" + _range_in_words(node),
        "number": lambda node: "a number" + _range_in_words(node),
        "object": _object_in_words,
        "string": _string_in_words,
    }
    return words[node["type"]](node)


class _Generator(GenerateJsonSchema):
    """Pydantic's schema with AWS's names as titles and without null, which only stands for "left out"."""

    def get_title_from_name(self, name: str) -> str:
        return name

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        node = super().dict_schema(schema)
        return {**node, "additionalProperties": False} if "patternProperties" in node else node

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        node = super().default_schema(schema)
        return {key: value for key, value in node.items() if (key, value) != ("default", None)}


@lru_cache(maxsize=1)
def _schema() -> Node:
    schema = CreateTransformJob.model_json_schema(schema_generator=_Generator)
    return {"$schema": _Generator.schema_dialect, **schema}


@lru_cache(maxsize=1)
def _all_paths() -> frozenset[str]:
    paths: list[str] = []

    def walk(node: Node, prefix: str) -> None:
        for name, member in node.get("properties", {}).items():
            paths.append(prefix + name)
            walk(_resolved(member), f"{prefix}{name}.")

    walk(_schema(), "")
    return frozenset(paths)


def _resolved(node: Node) -> Node:
    if "$ref" not in node:
        return node
    target: Node = _schema()["$defs"][node["$ref"].rpartition("/")[2]]
    return {**target, **node}


def _inner_node(node: Node, step: str | int) -> Node | None:
    if isinstance(step, int):
        items: Node | None = node.get("items")
        return items
    free_names: Node = node.get("patternProperties", {})
    inner: Node | None = node.get("properties", {}).get(step) or next(iter(free_names.values()), None)
    return inner


def _range_in_words(node: Node) -> str:
    low, high, above = node.get("minimum"), node.get("maximum"), node.get("exclusiveMinimum")
    if above is not None:
        return f" above {above:g}"
    if low is None:
        return ""
    return f" of at least {low:g}" if high is None else f" from {low:g} to {high:g}"


def _string_in_words(node: Node) -> str:
    low, high, pattern = node.get("minLength", 0), node.get("maxLength"), node.get("pattern")
    words = "a string"
    if high is not None:
        words += f" of {low} to {high} characters" if low else f" of at most {high} characters"
    elif low:
        words += " that is not empty"
    return f"{words}: {_PATTERN_WORDS[pattern]}" if pattern else words


def _array_in_words(node: Node) -> str:
    low, high = node.get("minItems"), node.get("maxItems")
    size = f" of at least {low}" if low else f" of at most {high}" if high else ""
    return f"a list{size}, each {limit_in_words(_resolved(node['items']))}"


def _object_in_words(node: Node) -> str:
    if "properties" in node:
        return "an object with the members " + ", ".join(node["properties"])
    return f"an object of at most {node['maxProperties']} strings"
