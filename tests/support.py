"""What tests share: behaviour as data, and small jobs."""

import json
from pathlib import Path
from typing import Any

CASES = Path(__file__).parent / "cases"


def cases(name: str) -> list[dict[str, Any]]:
    """The cases of ``tests/cases/<name>.json``; each names its source."""
    loaded: list[dict[str, Any]] = json.loads((CASES / f"{name}.json").read_text())
    assert all(case["source"] for case in loaded)
    return loaded
