"""A job's members as a table: by their paths, without what may be a secret."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from rayxform.spec import TransformJob
from rayxform.spec.job import to_members

HIDDEN = "hidden"
_LONGEST = 2000
_SECRET_NAME = re.compile(r"key|token|secret|passw|credential|auth|signature", re.IGNORECASE)
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
_SECRET_IN_URL = re.compile(r"([?&][^=&\s]*(?:key|token|secret|sig|credential)[^=&\s]*=)[^&\s]+", re.IGNORECASE)


def settings_of(job: TransformJob) -> tuple[tuple[str, str], ...]:
    """The members that the job file sets: path and value. A report is passed on, so passwords and keys are not in it."""
    return tuple(_flat(to_members(job), ""))


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{path}.{name}" if path else name)
        return
    parent, _, name = path.rpartition(".")
    if parent.endswith("Environment") and _SECRET_NAME.search(name):
        yield path, HIDDEN
        return
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = _SECRET_IN_URL.sub(rf"\1{HIDDEN}", _USER_IN_URL.sub(f"{HIDDEN}@", text))
    yield path, text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
