"""Media types (RFC 9110 §8.3.1) as ContentType and Accept name them, compared without case and parameters."""

from __future__ import annotations

JSON_LINES_TYPES: frozenset[str] = frozenset(
    {"application/jsonlines", "application/x-jsonlines", "application/jsonl", "application/x-ndjson"}
)
"""Every name of JSON Lines that is taken. AWS has the first; the format has none at IANA, so all four are in use."""


def media_type(content_type: str | None) -> str:
    """Return the bare type: lower-cased, without parameters.

    ``"Text/CSV; charset=utf-8"`` gives ``"text/csv"``; None, no type at all, gives ``""``.
    """
    return (content_type or "").partition(";")[0].strip().lower()


def is_json_lines(content_type: str | None) -> bool:
    """Tell whether the type is JSON Lines, under any of its names."""
    return media_type(content_type) in JSON_LINES_TYPES


def is_json(content_type: str | None) -> bool:
    """Tell whether the type is ``application/json``: one document, not lines of them."""
    return media_type(content_type) == "application/json"


def is_csv(content_type: str | None) -> bool:
    """Tell whether the type is ``text/csv``."""
    return media_type(content_type) == "text/csv"
