"""A job's errors by kind, each with the record that it is about, read from its input."""

from __future__ import annotations

from collections.abc import Sequence

from rayxform.errors import RayxformError
from rayxform.pages.advice import remedy_of
from rayxform.pages.records import RecordBudget, RecordReader, RecordView
from rayxform.pages.view import ErrorGroup, ShownError
from rayxform.pipeline.rows import ErrorEntry
from rayxform.pipeline.status import JobStatus
from rayxform.spec import TransformJob
from rayxform.storage.error_list import ErrorTail
from rayxform.storage.listing import InputFinder

SHOWN_PER_KIND = 10
SHOWN = 30
_KINDS = 20
_MESSAGE_CHARACTERS = 4096
_TRACEBACK_CHARACTERS = 16 * 1024


class ErrorBook:
    """Reads errors.jsonl as it grows, and keeps the first errors of each kind.

    Attributes:
        left_out: why errors are missing; "" if none are.
    """

    def __init__(self, job: TransformJob, url: str, finder: InputFinder) -> None:
        self._url = url
        self._finder = finder
        self._reader = RecordReader(job)
        self.left_out = ""
        self.begin_run()

    def begin_run(self) -> None:
        """The list is another one, as each run begins its own with what still holds."""
        self._tail = ErrorTail(self._url, ErrorEntry)
        self._forget()

    def _forget(self) -> None:
        self._kinds: dict[str, tuple[int, list[ShownError]]] = {}
        self._n_shown = 0
        self._budget = RecordBudget()

    def read(self) -> None:
        """Take what is new."""
        try:
            if self._tail.refresh():
                self._forget()
            for entry in self._tail.read():
                self._take(entry)
            self.left_out = ""
        except RayxformError as error:
            self.left_out = str(error)

    def groups(self, status: JobStatus) -> Sequence[ErrorGroup]:
        """The errors by kind, the most frequent first; by the events alone where the list could not be written."""
        examples = {kind: example for kind, _, example in status.errors}
        counts: dict[str, tuple[int, list[ShownError]]] = {kind: (count, []) for kind, count, _ in status.errors}
        found = self._kinds or counts
        return [
            ErrorGroup(kind, count, examples.get(kind) or _example(shown), remedy_of(kind), shown)
            for kind, (count, shown) in sorted(found.items(), key=lambda item: -item[1][0])
        ]

    def _take(self, entry: ErrorEntry) -> None:
        kind = entry.kind if entry.kind in self._kinds or len(self._kinds) < _KINDS else "other errors"
        count, shown = self._kinds.get(kind, (0, []))
        if len(shown) < SHOWN_PER_KIND and self._n_shown < SHOWN:
            entry.message = _cut(entry.message, _MESSAGE_CHARACTERS)
            entry.traceback = _cut(entry.traceback, _TRACEBACK_CHARACTERS)
            shown.append(ShownError(entry, self._record(entry)))
            self._n_shown += 1
        self._kinds[kind] = count + 1, shown

    def _record(self, entry: ErrorEntry) -> RecordView | None:
        if entry.object is None or entry.offset is None:
            return None
        try:
            source = self._finder.find(entry.object)
            if source is None:
                return RecordView(note="the input is not there any more")
            return self._budget.limit(self._reader.at(source, entry.offset))
        except RayxformError as error:
            return RecordView(note=str(error))


def _example(shown: Sequence[ShownError]) -> str:
    return str(shown[0].entry).partition("\n")[0] if shown else ""


def _cut(text: str, n_characters: int) -> str:
    return text if len(text) <= n_characters else f"{text[:n_characters]}… ({len(text):,} characters)"
