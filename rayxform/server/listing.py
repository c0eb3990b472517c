"""What the List operations share: filters, order and pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Table

from rayxform.server.database import Database
from rayxform.server.shapes import Members

DEFAULT_RESULTS = 10
_SORT_COLUMNS = {"Name": "name", "CreationTime": "created_at", "Status": "status"}


def list_page(
    database: Database,
    table: Table,
    member: str,
    summary: Callable[[RowMapping], dict[str, Any]],
    members: Members,
    *conditions: ColumnElement[bool],
) -> dict[str, Any]:
    """The answer to a List request: the page that it asks for, by default the ten newest.

    Args:
        database: where the rows are.
        table: MODELS or JOBS.
        member: the answer's member that lists them.
        summary: what is told of a row.
        members: the request's.
        conditions: what else rows must meet.

    Raises:
        RequestRefusedError: NextToken is not one of this list's.
    """
    rows, token = database.page(
        table,
        *_conditions(table, members),
        *conditions,
        sort_by=_SORT_COLUMNS[members.get("SortBy", "CreationTime")],
        descending=members.get("SortOrder", "Descending") == "Descending",
        limit=members.get("MaxResults", DEFAULT_RESULTS),
        token=members.get("NextToken"),
    )
    return {member: list(map(summary, rows)), **({"NextToken": token} if token else {})}


def _conditions(table: Table, members: Members) -> Iterator[ColumnElement[bool]]:
    if "NameContains" in members:
        yield table.c.name.contains(members["NameContains"], autoescape=True)
    if "StatusEquals" in members:
        yield table.c.status == members["StatusEquals"]
    for name, column in (("CreationTime", "created_at"), ("LastModifiedTime", "modified_at")):
        if f"{name}After" in members:
            yield table.c[column] > members[f"{name}After"]
        if f"{name}Before" in members:
            yield table.c[column] < members[f"{name}Before"]
