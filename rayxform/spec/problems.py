"""What pydantic found wrong, in the job file's words: the member's path, its value, the limit, and what to write."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rayxform.errors import Problem
from rayxform.spec.schema import Node, limit_in_words, member_names, member_node, member_paths

Path = tuple[str | int, ...]
"""The steps to a member; an int is an item of a list."""

_KEY = "[key]"  # pydantic's last step where the name of a variable is wrong, not its value
_VARIABLE_LIMIT = "a name of letters, digits and _, no digit first, of at most 1024 characters"
_TEXT_LIMIT = "names and text in valid Unicode"


class Excerpt(str):
    """Part of a value that is too long to print; shown without a second pair of quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def shown(value: object) -> object:
    """Return the value itself where it prints in a few words, else an Excerpt of it."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**30:
        return Excerpt(f"a number of {value.bit_length()} bits")  # Python refuses to print those above 4,300 digits
    if isinstance(value, (bool, int, float)) or value is None or (isinstance(value, str) and len(value) <= 200):
        return value
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = 200
    brief.maxlevel = 2
    return Excerpt(brief.repr(list(value) if isinstance(value, tuple) else value))


def dotted(path: Sequence[str | int]) -> str:
    """Write a path in AWS's manner: ``TransformInput.SplitType``, ``Tags[0].Key``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (step if step and step.isprintable() else ascii(step))
    return text


def problems_of(error: ValidationError, origin: str) -> list[Problem]:
    """Translate what pydantic found; ``origin`` stands for the path where the job as a whole is wrong."""
    return [_problem(detail, origin) for detail in error.errors(include_url=False)]


def unknown_member(path: Path) -> Problem:
    """Say that the job has no such member, and which one may have been meant."""
    parent = _known_parent(path)
    siblings = list((member_node(parent) or {}).get("properties", ()))
    if not siblings:
        where = dotted(parent)
        return Problem(dotted(path), "no member", f"nothing below {where}", f"Set {where} as a whole.")
    meant = meant_members(path)
    limit = f"the members of {dotted(parent) or 'a job'}: {', '.join(siblings)}"
    remedy = f"Did you mean {' or '.join(meant)}?" if meant else "Remove it, or write one of these."
    return Problem(dotted(path), "no member", limit, remedy)


def meant_members(path: Path) -> list[str]:
    """Name the members that an unknown one may stand for: this name elsewhere, a like name here, a like name elsewhere.

    A member of the same object is named as it stands there ("SplitType"), one of another object by its whole path.
    """
    parent, name = _known_parent(path), str(path[len(_known_parent(path))])
    siblings = (member_node(parent) or {}).get("properties", ())
    if elsewhere := member_paths(name):
        return elsewhere
    if here := _nearest(name, list(siblings), cutoff=0.6):
        return [here]
    return member_paths(_nearest(name, member_names(), cutoff=0.8) or "")


def _known_parent(path: Path) -> Path:
    length = len(path) - 1
    while member_node(path[:length]) is None:
        length -= 1
    return path[:length]


def _nearest(written: str, known: list[str], cutoff: float) -> str | None:
    """The likeliest of the known names, whatever the case and the underscores: max_payload means MaxPayloadInMB."""
    plain = {name.lower(): name for name in known}
    nearest = get_close_matches(written[:100].replace("_", "").lower(), plain, n=1, cutoff=cutoff)
    return plain[nearest[0]] if nearest else None


def _problem(detail: ErrorDetails, origin: str) -> Problem:
    kind, path, value = detail["type"], detail["loc"], detail["input"]
    if not path:
        return Problem(origin, shown(value), _TEXT_LIMIT, "Remove the lone surrogate (\\ud800 to \\udfff).")
    if kind == "extra_forbidden":
        return unknown_member(path)
    if path[-1] == _KEY:
        return Problem(dotted(path[:-1]), shown(path[-2]), _VARIABLE_LIMIT, "Rename the variable.")
    node = member_node(path)
    if node is None:  # a name that is no string: no JSON file has one, a YAML file may
        return Problem(dotted(list(map(str, path))), shown(value), "a name that is a string", "Put the name in quotes.")
    if kind == "missing":
        return Problem(dotted(path), None, limit_in_words(node), _how_to_add(path, node))
    return Problem(dotted(path), shown(value), _limit(kind, node), _remedy(kind, detail.get("ctx", {}), value, node))


def _limit(kind: str, node: Node) -> str:
    return f"{limit_in_words(node)}: letters, digits, spaces and _.:/=+-@" if kind == "tag_characters" else limit_in_words(node)


def _how_to_add(path: Path, node: Node) -> str:
    example = json.dumps({path[-1]: node["examples"][0]})[1:-1]
    return f"Add {example}, for example. {node['description']}"


def _remedy(kind: str, limits: dict[str, Any], value: object, node: Node) -> str:
    if "enum" in node:
        return _choose(value, node["enum"])
    if kind == "string_type":
        return _in_quotes(value) or _instead(node)
    if kind in ("int_type", "float_type", "bool_type") and isinstance(value, str) and _is_plain(value, node["type"]):
        return f"Write it without quotes: {value.strip()}"
    if "le" in limits:
        return f"Write {limits['le']} or less."
    if "ge" in limits:
        return f"Write {limits['ge']} or more."
    return _instead(node)


def _in_quotes(value: object) -> str | None:
    """What to write where a number, true, false or null was meant as a string."""
    if value is None:
        return 'Write "" for an empty value.'
    is_short = isinstance(value, (bool, int, float)) and not isinstance(shown(value), Excerpt)
    return f'Put it in quotes: "{json.dumps(value)}".' if is_short else None


def _choose(value: object, allowed: list[str]) -> str:
    nearest = _nearest(value, allowed, cutoff=0.75) if isinstance(value, str) else None
    return f'Did you mean "{nearest}"?' if nearest else f"Write {' or '.join(map(json.dumps, allowed))}."


def _is_plain(text: str, kind: str) -> bool:
    """Whether the text, without its quotes, would be of the wanted type."""
    try:
        value = json.loads(text, parse_constant=str)  # NaN and its like are no numbers here
    except ValueError:
        return False
    return type(value) in {"integer": (int,), "number": (int, float), "boolean": (bool,)}[kind]


def _instead(node: Node) -> str:
    if node.get("default") not in (None, {}, []):
        return f"Write another value, or leave it out for the default, {json.dumps(node['default'])}."
    example = node.get("examples")
    return f"Write {json.dumps(example[0])}, for example." if example else f"Write {limit_in_words(node)}."
