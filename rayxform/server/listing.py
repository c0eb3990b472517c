"""What the List operations share: filters, order and pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, RowMapping, Table

from rayxform.server.database import Database
from rayxform.server.shapes import Members

DEFAULT_RESULTS = 10
_SORT_COLUMNS = {"Name": "name", "CreationTime": "created_at", "Status": "status"}


def listing_conditions(table: Table, members: Members) -> list[ColumnElement[bool]]:
    """What a List request asks for."""
    return list(_conditions(table, members))


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


def page_of(
    database: Database, table: Table, conditions: Sequence[ColumnElement[bool]], members: Members
) -> tuple[Sequence[RowMapping], str | None]:
    """The page that a List request asks for: by default the ten newest.

    Raises:
        RequestRefusedError: NextToken is not one of this list's.
    """
    return database.page(
        table,
        *conditions,
        sort_by=_SORT_COLUMNS[members.get("SortBy", "CreationTime")],
        descending=members.get("SortOrder", "Descending") == "Descending",
        limit=members.get("MaxResults", DEFAULT_RESULTS),
        token=members.get("NextToken"),
    )
