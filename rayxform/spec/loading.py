"""From a job file's text, or a mapping, to a job; or to all of its problems at once."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from rayxform.errors import JobFileError, Problem
from rayxform.spec.checks import filter_problems, find_problems
from rayxform.spec.job import TransformJob
from rayxform.spec.members import CreateTransformJob
from rayxform.spec.schema import limit_in_words, member_node, member_paths

_OBJECT = "an object with the members of CreateTransformJob, Model and Rayxform"


class _Loader(yaml.SafeLoader):
    """YAML without dates: 2022-01-01 stays the text that it is."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def load_job(text: str, *, base: str = "", overrides: Sequence[str] = (), origin: str = "job") -> TransformJob:
    """Read a job file.

    Args:
        text: JSON or YAML.
        base: the folder that relative paths start from; "" for the current one.
        overrides: ``Path.To.Member=VALUE``, each replacing a member.
        origin: the file's name, for messages.

    Raises:
        JobFileError: it is neither JSON nor YAML, or members are wrong; with every problem that was found.
    """
    try:
        # JSON first: YAML would take it too, but ten times as slowly and with errors that speak of YAML.
        members = json.loads(text) if text.lstrip()[:1] == "{" else yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise JobFileError([Problem(origin, f"{error.msg} at {place}", "JSON or YAML", "Correct it there.")]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        reason = f"{getattr(error, 'problem', None) or error}{place}"
        raise JobFileError([Problem(origin, reason, "JSON or YAML", "Correct it there.")]) from None
    if not isinstance(members, Mapping):
        raise JobFileError([Problem(origin, members, _OBJECT, "Write the job's members there.")])
    return parse_job(_overridden(members, overrides), base=base)


def parse_job(members: Mapping[str, Any], *, base: str = "") -> TransformJob:
    """Check a job's members.

    Args:
        members: as in a job file.
        base: the folder that relative paths start from; "" for the current one.

    Raises:
        JobFileError: members are wrong; with every problem that was found.
    """
    try:
        job = TransformJob(CreateTransformJob.model_validate(members, context={"base": base}))
    except ValidationError as error:
        problems = [_problem(one, members) for one in error.errors(include_url=False)]
        filters = members.get("DataProcessing") if isinstance(members, Mapping) else None
        if isinstance(filters, Mapping):
            problems += filter_problems(filters)
        raise JobFileError(problems) from None
    if problems := list(find_problems(job)):
        raise JobFileError(problems)
    return job


def _problem(error: Any, members: Mapping[str, Any]) -> Problem:
    location = [step for step in error["loc"] if step != "[key]"]
    path = ".".join(map(str, location))
    if error["type"] == "extra_forbidden":
        return _unknown(path)
    node = member_node(location) if location else None
    limit = limit_in_words(node) if node is not None else _OBJECT
    if error["type"] == "missing":
        remedy = f"Add it{_example(node)}."
        if path == "Model" and members.get("ModelName") is not None:
            remedy = f"ModelName alone names nothing outside SageMaker. {remedy}"
        return Problem(path, None, limit, remedy)
    found = error["input"] if isinstance(error["input"], (str, int, float, bool)) else type(error["input"]).__name__
    return Problem(
        path or "job",
        found,
        limit,
        f"Write one of these{_example(node)}." if "enum" in (node or {}) else f"Write that{_example(node)}.",
    )


def _example(node: Mapping[str, Any] | None) -> str:
    if node is None:
        return ""
    examples = [*node.get("examples", []), *([node["default"]] if node.get("default") is not None else [])]
    return f", such as {json.dumps(examples[0])}" if examples else ""


def _unknown(path: str) -> Problem:
    parent, _, name = path.rpartition(".")
    node = member_node(parent.split(".")) if parent else member_node([])
    there = list((node or {}).get("properties", {}))
    limit = "the members " + ", ".join(there) if there else "nothing"
    if elsewhere := [place for place in member_paths(name) if place != path]:
        return Problem(path, "no member", limit, f"Write it as {elsewhere[0]}.")
    close = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
    remedy = f"Did you mean {close[0]}?" if close else "Leave it out."
    return Problem(path, "no member", limit, remedy)


def _overridden(members: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(json.dumps(members, default=str))
    problems = []
    for override in overrides:
        path, equals, text = override.partition("=")
        node = member_node(path.split(".")) if path else None
        if not equals or node is None:
            problems.append(
                Problem(f"--set {override}", path, "Path.To.Member=VALUE with the path of a member", _close_paths(path))
            )
            continue
        *parents, last = path.split(".")
        place = changed
        for step in parents:
            inner = place.get(step)
            place[step] = inner if isinstance(inner, dict) else {}
            place = place[step]
        place[last] = _value_of(text, node)
    if problems:
        raise JobFileError(problems)
    return changed


def _close_paths(path: str) -> str:
    places = member_paths(path.rpartition(".")[2])
    return f"Did you mean {places[0]}?" if places else "rayxform schema lists all members."


def _value_of(text: str, node: Mapping[str, Any]) -> Any:
    if node.get("type") == "string" or "enum" in node:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
