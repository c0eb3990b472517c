"""From members to a job, with everything that is wrong found at once.

Rules that span members need valid members. So where pydantic refuses some, these are taken out, an example stands in
for what is missing, and the rules look at the rest; a job that was mended in this way is only used for its problems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from rayxform.errors import JobFileError, Problem
from rayxform.spec.checks import check_job
from rayxform.spec.job import TransformJob
from rayxform.spec.members import CreateTransformJob
from rayxform.spec.problems import Path, dotted, meant_members, problems_of
from rayxform.spec.reading import check_mapping, read_members, with_overrides

_STAND_INS: Mapping[str, Any] = {
    "TransformInput": {"DataSource": {"S3DataSource": {"S3Uri": "input"}}},
    "TransformOutput": {"S3OutputPath": "output"},
    "Model": {"SourceDir": "."},
}


def load_job(text: str, *, base: str = "", overrides: Sequence[str] = (), origin: str = "job") -> TransformJob:
    """Read a job file.

    Args:
        text: the file's content, JSON or YAML.
        base: the folder that relative paths start from, a path or a URL: the job file's; "" is the current one.
        overrides: ``Path.To.Member=VALUE`` settings that replace members of the file (the command line's ``--set``).
            VALUE is JSON where it is JSON, else a string; for a member that is a string it is taken as it is.
        origin: the file's name, for messages.

    Raises:
        JobFileError: the text cannot be parsed, or members are wrong; it holds every problem found.
    """
    members, problems = with_overrides(read_members(text, origin), overrides)
    return _checked(members, base, origin, problems)


def parse_job(members: Mapping[str, Any], *, base: str = "") -> TransformJob:
    """Check a job's members, given as CreateTransformJob's JSON.

    Args:
        members: names and values as in a job file.
        base: the folder that relative paths start from, a path or a URL; "" is the current one.

    Raises:
        JobFileError: members are wrong; it holds every problem found.
    """
    return _checked(check_mapping(members, "job"), base, "job", [])


def _checked(members: Mapping[str, Any], base: str, origin: str, problems: list[Problem]) -> TransformJob:
    context = {"base": base}
    try:
        job = TransformJob(CreateTransformJob.model_validate(members, context=context))
    except ValidationError as error:
        problems = [*problems, *problems_of(error, origin), *_further_problems(members, error, context)]
    else:
        problems = [*problems, *check_job(job)]
    if problems:
        raise JobFileError(problems)
    return job


def _further_problems(members: Mapping[str, Any], error: ValidationError, context: dict[str, Any]) -> list[Problem]:
    """What the rules find in the members that are valid."""
    wrong: list[str] = []
    mended: Mapping[str, Any] = members
    for detail in error.errors(include_url=False, include_input=False):
        unknown = detail["type"] == "extra_forbidden"
        path = _to_first_item(detail["loc"] if unknown else _without_mark(detail["loc"]))
        wrong.extend(_suspects(path) if unknown else [dotted(path)])
        is_missing = detail["type"] == "missing"
        mended = _without(mended, path[:-1] if is_missing and not _stands_in(path) else path)
    try:
        job = TransformJob(CreateTransformJob.model_validate(_overlaid(_STAND_INS, mended), context=context))
    except ValidationError:  # the job as a whole is wrong, such as a name that is not Unicode
        return []
    return check_job(job, wrong)


def _suspects(path: Path) -> list[str]:
    """The members that an unknown one may have been meant to be, by their whole paths."""
    parent = dotted(path[:-1])
    return [name if "." in name or not parent else f"{parent}.{name}" for name in meant_members(path)]


def _without_mark(path: Path) -> Path:
    """The path of the variable, where pydantic marks that it means its name; an unknown member may be called so too."""
    return path[:-1] if path[-1:] == ("[key]",) else path


def _to_first_item(path: Path) -> Path:
    """The path of the member: of the whole list."""
    return path[: next((index for index, step in enumerate(path) if isinstance(step, int)), None)]


def _stands_in(path: Path) -> bool:
    node: Any = _STAND_INS
    for step in path:
        node = node.get(step) if isinstance(node, Mapping) else None
    return node is not None


def _without(members: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """A copy of the members without one; the path may end where an earlier removal has cut it off."""
    rest = {name: value for name, value in members.items() if name not in path[:1]}
    inner = members.get(str(path[0])) if len(path) > 1 else None
    return {**rest, str(path[0]): _without(inner, path[1:])} if isinstance(inner, Mapping) else rest


def _overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> Mapping[str, Any]:
    """The members of ``above``, with those of ``below`` where it has none."""
    both = {**below, **{name: value for name, value in above.items() if value is not None}}
    for name, value in below.items():
        if isinstance(value, Mapping) and isinstance(both[name], Mapping):
            both[name] = _overlaid(value, both[name])
    return both
