"""``events.jsonl``: what happens in a job, a JSON object a line, in the order in which the driver saw it.

It is what a job goes on from after it was cut short, and what ``rayxform status`` reads. On a disk it is one file that grows.
Objects on other stores do not grow, so there a new one is written every few seconds: ``events-00000001.jsonl`` and so on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from rayxform.errors import StorageError
from rayxform.storage import s3
from rayxform.storage.edge import is_local, open_filesystem, storage_errors
from rayxform.storage.objects import object_version
from rayxform.storage.retrying import kind_of, retry
from rayxform.storage.tailing import LineTail
from rayxform.storage.writing import GrowingFile, write_whole

SEGMENT_S: Final = 10.0
"""How long events wait for their object, where objects do not grow."""


def _member(name: str) -> str:
    """``reading_s`` → ``ReadingSeconds``."""
    return "".join(word.capitalize() for word in name.split("_")) + ("econds" if name.endswith("_s") else "")


class Event(msgspec.Struct, rename=_member, omit_defaults=True):
    """One line.

    Attributes:
        event: what happened: ``Plan``, ``Start``, ``Part``, ``FileComplete`` (all its parts are in), ``FileDone`` (its output
            has appeared), ``FileFailed``, ``Error``, ``Warning``, ``Retry``, ``WorkerLost`` or ``End``.
        time: when, as Unix time in seconds.
        file: the input's number in the plan.
        object: its key.
        first_record: of a part, or of a failed request, from 0.
        records: how many.
        requests: how many were sent.
        input_bytes: what was sent.
        output_bytes: what was written.
        reading_s: seconds of work, as the three that follow.
        model_s: see above.
        joining_s: see above.
        writing_s: see above.
        kind: an error's class.
        message: what is said of it.
        files: of a plan, how many inputs; of a start, how many are done already.
        workers: the size of the pool.
        host: where the driver runs.
        pid: its process.
        status: TransformJobStatus at the end.
    """

    event: str
    time: float
    file: int | None = None
    object: str | None = None
    first_record: int = 0
    records: int = 0
    requests: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    reading_s: float = 0.0
    model_s: float = 0.0
    joining_s: float = 0.0
    writing_s: float = 0.0
    kind: str | None = None
    message: str | None = None
    files: int | None = None
    workers: int | None = None
    host: str | None = None
    pid: int | None = None
    status: str | None = None


class EventLog:
    """A log that only grows; one process writes it."""

    def __init__(self, state_url: str, encrypted: s3.Encryption) -> None:
        """Name a log; ``state_url`` is the state folder's, ``encrypted`` says how it is encrypted on S3."""
        self._state_url = state_url
        self._encrypted = encrypted
        self._encoder = msgspec.json.Encoder()
        self._file: GrowingFile | None = None
        self._segment = 0
        self._waiting = bytearray()
        self._written_at = time.monotonic()

    def open(self) -> None:
        """Begin behind what is there.

        Raises:
            StorageError: it cannot be looked for.
        """
        filesystem, folder = open_filesystem(self._state_url)
        if is_local(filesystem):
            self._file = GrowingFile(f"{folder}/events.jsonl")
            return
        infos = _segments(self._state_url)
        self._segment = int(infos[-1]["name"].rpartition("-")[2].partition(".")[0]) if infos else 0

    def append(self, event: Event) -> None:
        """Add a line; on a disk it is there at once, elsewhere within SEGMENT_S.

        Raises:
            StorageError: it cannot be written.
        """
        line = self._encoder.encode(event) + b"\n"
        if self._file is not None:
            with storage_errors("write", f"{self._state_url}/events.jsonl"):
                self._file.append(line)
            return
        self._waiting += line
        if time.monotonic() - self._written_at > SEGMENT_S:
            self.flush()

    def flush(self) -> None:
        """Write what waits.

        Raises:
            StorageError: it cannot be written.
        """
        self._written_at = time.monotonic()
        if not self._waiting:
            return
        filesystem, folder = open_filesystem(self._state_url)
        name = f"events-{self._segment + 1:08d}.jsonl"
        with storage_errors("write", f"{self._state_url}/{name}"):
            write_whole(filesystem, f"{folder}/{name}", [bytes(self._waiting)], self._encrypted)
        self._segment += 1
        self._waiting.clear()

    def close(self) -> None:
        """Write what waits, and end.

        Raises:
            StorageError: it cannot be written.
        """
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None


class EventTail:
    """The log of a job that may go on: each time what is new of it."""

    def __init__(self, state_url: str) -> None:
        """Name a log; nothing is read yet."""
        self._state_url = state_url
        self._decoder = msgspec.json.Decoder(Event)
        self._begin()

    def _begin(self) -> None:
        self._names: list[str] = []
        self._first: str | None = None
        self._tail: LineTail | None = None
        self._tail_name = ""

    def refresh(self) -> bool:
        """Look for what is new.

        Returns:
            Whether the log was begun anew since, as by ``--restart``, so that what was read of it counts no more.

        Raises:
            StorageError: it cannot be read.
        """
        infos = _segments(self._state_url)
        # A file that grows is told by its first line, which its tail looks at; an object that does not, by its version.
        is_local_log = is_local(open_filesystem(self._state_url)[0])
        first = infos[0]["name"] + ("" if is_local_log else object_version(infos[0])) if infos else ""
        is_anew = self._first not in (None, "", first) or (self._tail is not None and self._tail.refresh())
        if is_anew:
            self._begin()
        self._first, self._names = first, [info["name"] for info in infos]
        return is_anew

    def read(self) -> Iterator[Event]:
        """The events behind those that it gave before, in order, as of the last ``refresh``.

        A last line that was cut short is left out.

        Raises:
            StorageError: they cannot be read, or are none.
        """
        for name in self._names:
            if name < self._tail_name:
                continue
            url = f"{self._state_url}/{name.rpartition('/')[2]}"
            if self._tail is None or name != self._tail_name:
                self._tail, self._tail_name = LineTail(url), name
                self._tail.refresh()
            for line in self._tail.lines():
                try:
                    yield self._decoder.decode(line)
                except msgspec.MsgspecError as error:
                    raise StorageError(f"cannot read {url}: it is no log of events ({error})") from None


def read_events(state_url: str) -> Iterator[Event]:
    """The events of a job, in order; none where there is no log. A last line that was cut short is left out.

    Raises:
        StorageError: it cannot be read, or is not a log.
    """
    tail = EventTail(state_url)
    tail.refresh()
    yield from tail.read()


def is_event_log(name: str) -> bool:
    """Whether an object of the state folder is the log, or a piece of it."""
    last = name.rpartition("/")[2]
    return last.startswith("events") and last.endswith(".jsonl")


def _segments(state_url: str) -> list[dict[str, Any]]:
    """Fsspec's information on the log's objects, in order."""
    filesystem, folder = open_filesystem(state_url)
    with storage_errors("list", state_url):
        filesystem.invalidate_cache()
        there: list[dict[str, Any]] = (
            [] if kind_of(filesystem, folder) is None else retry(lambda: filesystem.ls(folder, detail=True))
        )
    return sorted((info for info in there if is_event_log(info["name"])), key=lambda info: str(info["name"]))
