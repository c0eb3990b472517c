"""Where a record begins in its object, for the error that names it: looked up only then, since no mini-batch carries it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from rayxform.core.ranges import Recipe
from rayxform.errors import StorageError
from rayxform.storage.objects import InputObject
from rayxform.storage.reading import read_chunks


class Offsets:
    """Looks offsets up by splitting the object again from the mini-batch on; keeps those of the last mini-batch."""

    def __init__(self, recipe: Recipe) -> None:
        """Look nothing up yet; ``recipe`` is the job's."""
        self._recipe = recipe
        self._of: tuple[str, int] | None = None
        self._known: list[int] = []
        self._more: Iterator[int] = iter(())

    def of(self, batch: Mapping[str, Any], record: int) -> tuple[int | None, str]:
        """The first byte of a record, from its object's first.

        Args:
            batch: the row of its mini-batch, or of a piece of that.
            record: the record's number in its object, from 0.

        Returns:
            The offset, or None and what kept it from being found.
        """
        first, offset = batch.get("origin") or (batch["first_record"], batch["offset"])
        if record == first:
            return offset, ""
        if self._of != (batch["input"], offset):
            source = msgspec.json.decode(batch["input"], type=InputObject)
            self._of, self._known, self._more = (batch["input"], offset), [], _offsets(self._recipe, source, offset)
        try:
            while len(self._known) <= record - first:
                self._known.append(next(self._more))
        except (StorageError, StopIteration) as error:
            self._of = None
            return None, str(error) or "the object ended before it"
        return self._known[record - first], ""


def _offsets(recipe: Recipe, source: InputObject, begin: int) -> Iterator[int]:
    start = 0 if source.compression else begin
    splitter = recipe.splitter(start, aligned=True)
    for chunk in read_chunks(source, max(start - 1, 0)):
        for records in splitter.feed(chunk):
            yield from (offset for offset in records.offsets if offset >= begin)
    yield from (offset for offset in splitter.flush().offsets if offset >= begin)
