"""A job file's text from its members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from rayxform.spec.reading import JobLoader


class _JobDumper(yaml.SafeDumper):
    """Quotes every string that YAML 1.1, or the reader of job files, would take for something else."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - declared so by PyYAML
        first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, ()), *JobLoader.yaml_implicit_resolvers.get(first, ())]
        for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *JobLoader.yaml_implicit_resolvers}
    }

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _text(dumper: _JobDumper, text: str) -> yaml.ScalarNode:
    """What is not printable is escaped, since PyYAML loses some of it elsewhere (U+0085 at the end of a text)."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_JobDumper.add_representer(str, _text)


def to_yaml(members: Mapping[str, Any]) -> str:
    """A job file in YAML; what reads job files gives the same members back."""
    text: str = yaml.dump(dict(members), Dumper=_JobDumper, sort_keys=False, allow_unicode=True, width=120)
    return text
