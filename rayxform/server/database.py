"""What the endpoint remembers: models, jobs and tags, in SQLite (write-ahead log) through SQLAlchemy.

One server writes it. Every change is one transaction that is on the disk when the call is answered, so a server that is
killed finds what it has promised.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    RowMapping,
    String,
    Table,
    create_engine,
    delete,
    event,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DatabaseError, IntegrityError

from rayxform.errors import RequestRefusedError, ServerSettingsError

_TABLES: Final = MetaData()

MODELS: Final = Table(
    "models",
    _TABLES,
    Column("number", Integer, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("created_at", Float, nullable=False, index=True),
    Column("members", JSON, nullable=False),
)
"""``members`` are CreateModel's, without tags; times are Unix times in seconds."""

JOBS: Final = Table(
    "jobs",
    _TABLES,
    Column("number", Integer, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("status", String, nullable=False, index=True),
    Column("created_at", Float, nullable=False, index=True),
    Column("modified_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("failure_reason", String),
    Column("result", JSON),
    Column("members", JSON),
    Column("job", JSON, nullable=False),
    Column("job_file", String),
    Column("attempt", Integer, nullable=False, default=0),
    Column("is_begun", Boolean, nullable=False, default=False),
    Column("deaths", Integer, nullable=False, default=0),
)
"""``members`` are CreateTransformJob's, without tags, or null where a job file was given to ``rayxform serve``; ``job`` is what
runs, and ``result`` what ``rayxform run --json`` printed last. ``attempt`` counts the runs that were begun, ``is_begun`` tells
whether the last of them is the one that counts, and ``deaths`` how many in a row ended without a word."""

TAGS: Final = Table(
    "tags",
    _TABLES,
    Column("arn", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("value", String, nullable=False),
)

UNFINISHED: Final = ("InProgress", "Stopping")
RESUMABLE: Final = ("Failed", "Stopped")


class Database:
    """The three tables.

    Attributes:
        generation: changes with every change of them, so that an answer may be kept as long as it stays the same.
    """

    def __init__(self, path: Path) -> None:
        """Open them, and make what is not there.

        Raises:
            ServerSettingsError: the file cannot be opened, or is no database.
        """
        self.generation = 0
        self._engine: Engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})
        event.listen(self._engine, "connect", _settle)
        try:
            _TABLES.create_all(self._engine)
        except DatabaseError as error:
            raise ServerSettingsError(
                f"cannot open {path}: {error.orig}; choose another --state, or move that file away"
            ) from None

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        """A transaction; what was read before it ends does not count for the time after it."""
        try:
            with self._engine.begin() as connection:
                yield connection
        finally:
            self.generation += 1

    def insert(self, table: Table, **values: Any) -> bool:
        """Add a row; False where its name is taken."""
        try:
            with self._changing() as connection:
                connection.execute(insert(table).values(**values))
        except IntegrityError:
            return False
        return True

    def find(self, table: Table, name: str) -> RowMapping | None:
        """The row of a name."""
        with self._engine.connect() as connection:
            return connection.execute(select(table).where(table.c.name == name)).mappings().first()

    def remove(self, table: Table, name: str) -> bool:
        """Remove the row of a name; False where there is none."""
        with self._changing() as connection:
            return connection.execute(delete(table).where(table.c.name == name)).rowcount > 0

    def change_job(self, name: str, *conditions: ColumnElement[bool], **values: Any) -> bool:
        """Change a job where the conditions hold; False where they do not, or there is none."""
        statement = update(JOBS).where(JOBS.c.name == name, *conditions)
        with self._changing() as connection:
            return connection.execute(statement.values(modified_at=time.time(), **values)).rowcount > 0

    def unfinished_jobs(self) -> Sequence[RowMapping]:
        """Jobs that run or wait, the oldest first."""
        with self._engine.connect() as connection:
            found = select(JOBS).where(JOBS.c.status.in_(UNFINISHED)).order_by(JOBS.c.number)
            return connection.execute(found).mappings().all()

    def page(
        self,
        table: Table,
        *conditions: ColumnElement[bool],
        sort_by: str,
        descending: bool,
        limit: int,
        token: str | None = None,
    ) -> tuple[Sequence[RowMapping], str | None]:
        """Rows in order, and the token of the next page, or None at the end.

        Args:
            table: MODELS or JOBS.
            conditions: which rows.
            sort_by: the column.
            descending: the order; equal rows are in that of their creation, or the reverse.
            limit: how many rows.
            token: where to go on, as an earlier page told.

        Raises:
            RequestRefusedError: the token is not one of these.
        """
        place = tuple_(table.c[sort_by], table.c.number)
        if token is not None:
            after = _read_token(token, sort_by, descending)
            conditions = (*conditions, place < after if descending else place > after)
        order = [column.desc() if descending else column.asc() for column in (table.c[sort_by], table.c.number)]
        with self._engine.connect() as connection:
            query = select(table).where(*conditions).order_by(*order).limit(limit + 1)
            rows = connection.execute(query).mappings().all()
        if len(rows) <= limit:
            return rows, None
        last = rows[limit - 1]
        return rows[:limit], _make_token(sort_by, descending, [last[sort_by], last["number"]])

    def tags(self, arn: str) -> dict[str, str]:
        """The tags of a resource, in the order of their keys."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(TAGS.c.key, TAGS.c.value).where(TAGS.c.arn == arn).order_by(TAGS.c.key))
            return {row.key: row.value for row in rows}

    def set_tags(self, arn: str, tags: Sequence[Mapping[str, str]]) -> None:
        """Add tags, each with AWS's Key and Value; those that are there are replaced."""
        if not tags:
            return
        statement = upsert(TAGS)
        statement = statement.on_conflict_do_update(index_elements=["arn", "key"], set_={"value": statement.excluded.value})
        with self._changing() as connection:
            connection.execute(statement, [{"arn": arn, "key": tag["Key"], "value": tag["Value"]} for tag in tags])

    def remove_tags(self, arn: str, keys: Sequence[str] | None = None) -> None:
        """Remove some tags, or all."""
        condition = [TAGS.c.arn == arn] if keys is None else [TAGS.c.arn == arn, TAGS.c.key.in_(keys)]
        with self._changing() as connection:
            connection.execute(delete(TAGS).where(*condition))


_Token = tuple[str, bool, tuple[str | float, int]]
"""The column, whether it is descending, and the last row's value and number."""


def _settle(connection: Any, record: object) -> None:
    del record
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "case_sensitive_like = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _make_token(sort_by: str, descending: bool, place: list[Any]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([sort_by, descending, place])).decode()


def _read_token(token: str, sort_by: str, descending: bool) -> tuple[Any, Any]:
    try:
        text = base64.urlsafe_b64decode(token.encode("ascii"))
        named, order, (value, number) = msgspec.json.decode(text, type=_Token)
        if (named, order) == (sort_by, descending) and abs(number) < 2**63:
            return value, number
    except (ValueError, msgspec.MsgspecError):
        pass
    raise RequestRefusedError.invalid("NextToken is not one of this list's, in this order; begin without it")
