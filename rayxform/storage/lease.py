"""One run of a job at a time: a lease in the job's state folder, which its holder renews and which ends by itself.

``lease.json`` tells who runs the job. It changes by compare-and-swap alone, so that of several runs that find it free, or its
holder dead, exactly one gets it:

- On a disk, under ``flock`` on the file itself, held for moments: the system lets go of it when a process dies, while a lock
  file made with O_EXCL would stay and need a lease of its own. Linux has ``flock`` on NFS, too; where a file system has none
  (ENOLCK), two runs that begin in the same millisecond may both get the lease, and one of them loses it at the next renewal.
- On S3, by conditional writes (If-None-Match, If-Match). A store that answers that it knows none is written to plainly and
  read after a moment, when the last of two writes shows.
- On other stores, in that plain manner.

A lease counts as expired by its age in the store's own time: a file's mtime beside that of a file written now, S3's
Last-Modified beside its Date. Only on other stores does the clock of its holder matter. Its holder counts from before each
renewal was asked for, so it gives up before anybody takes over. A holder on this machine whose process is gone is dead at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
import uuid
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import msgspec
import psutil

from rayxform.errors import JobBusyError, StorageError
from rayxform.locking import locked
from rayxform.processes import started_after_boot_s
from rayxform.storage import s3
from rayxform.storage.edge import is_local, open_filesystem, storage_errors
from rayxform.storage.retrying import make_folders, remove_file, retry

LEASE_NAME = "lease.json"
RENEW_S = 5.0
EXPIRES_S = 30.0
RELEASE_S = 1.0
"""How long a renewal that is under way may keep a run from ending."""
GRACE_S = 2.0
"""By how much a lease is older than EXPIRES_S before it is taken from its holder: a store may tell times in whole seconds."""
SETTLE_S = 1.0
"""How long what was written plainly is left until it is read again: as long as another taker's write may take."""


class Holder(msgspec.Struct, rename="pascal", frozen=True):
    """``lease.json``: who runs the job.

    Attributes:
        id: the run's own, random.
        host: the machine's name.
        machine: tells whether ``pid`` is a process that can be seen from here.
        pid: the process.
        process_started_s: when the process was started, in seconds since the machine was, so that another one of its number is
            told.
        taken_at: when the lease was taken, by the holder's clock.
        renewed_at: when it was renewed, by the holder's clock.
        expires_s: how long it holds after that.
    """

    id: str
    host: str
    machine: str
    pid: int
    process_started_s: float
    taken_at: float
    renewed_at: float
    expires_s: float

    @property
    def is_gone(self) -> bool:
        """Whether it is a process of this machine that has ended, which is certain."""
        if self.machine != _machine():
            return False
        try:
            is_zombie = psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
            return is_zombie or started_after_boot_s(self.pid) != self.process_started_s
        except psutil.NoSuchProcess:
            return True


class Lease:
    """The right to run a job, renewed until it is released; ``take_lease`` gives one."""

    def __init__(self, cell: _Cell, holder: Holder, asked_at: float) -> None:
        """Keep renewing.

        Args:
            cell: where the lease is.
            holder: what was written there.
            asked_at: by the monotonic clock, before it was written.
        """
        self._cell = cell
        self._holder = holder
        self._renewed_at = asked_at
        self._taken_away = False
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="lease")
        self._thread.start()

    @property
    def is_lost(self) -> bool:
        """Whether another run may have begun, so that this one has to stop writing: it stays so."""
        return self._taken_away or time.monotonic() - self._renewed_at > self._holder.expires_s

    def release(self) -> None:
        """Let the next run begin; a lease that is not this run's any more, or is gone, is left as it is.

        What keeps it from being removed is no error of the job: it is over for the next run when it expires, or at once where
        that can see that this process has ended.
        """
        self._released.set()
        self._thread.join(RELEASE_S)
        with contextlib.suppress(StorageError):
            seen = self._cell.read()
            if seen is not None and _decode(seen.data).id == self._holder.id:
                self._cell.swap(seen, None)

    def _keep(self) -> None:
        while not self._released.wait(RENEW_S) and not self.is_lost:
            # An error may pass until the next renewal; if none succeeds, the lease is lost in time.
            with contextlib.suppress(StorageError):
                self._renew()

    def _renew(self) -> None:
        asked_at = time.monotonic()
        seen = self._cell.read()
        if seen is not None and _decode(seen.data).id != self._holder.id:
            self._taken_away = True
            return
        renewed = msgspec.structs.replace(self._holder, renewed_at=time.time())
        if self._released.is_set():
            return
        # One that somebody removed is made anew, for this run is still going on.
        if self._cell.swap(seen, msgspec.json.encode(renewed)) and not self.is_lost:
            self._renewed_at = asked_at


def take_lease(state_url: str, encrypted: s3.Encryption) -> Lease:
    """Get the right to run a job, or be refused at once.

    Args:
        state_url: the job's state folder, which is made if needed.
        encrypted: how what is written to S3 is encrypted.

    Raises:
        JobBusyError: another run has it, which is not known to be dead.
        StorageError: it cannot be read or written.
    """
    cell = _open_cell(state_url, encrypted)
    now = time.time()
    holder = Holder(
        id=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        process_started_s=started_after_boot_s(os.getpid()),
        taken_at=now,
        renewed_at=now,
        expires_s=EXPIRES_S,
    )
    while True:
        asked_at = time.monotonic()
        seen = cell.read()
        if seen is not None:
            _check_free(state_url, seen)
        if cell.swap(seen, msgspec.json.encode(holder)):
            return Lease(cell, holder, asked_at)


def read_holder(state_url: str) -> Holder | None:
    """Who runs a job; None where nobody does who is not known to be dead.

    Raises:
        StorageError: it cannot be read.
    """
    seen = _open_cell(state_url, {}).read()
    return None if seen is None or _left_s(seen) <= 0 else _decode(seen.data)


def _check_free(state_url: str, seen: _Seen) -> None:
    """Raise JobBusyError unless the holder is dead."""
    left_s = _left_s(seen)
    if left_s <= 0:
        return
    holder = _decode(seen.data)
    since = datetime.fromtimestamp(holder.taken_at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    raise JobBusyError(
        f"the job {state_url.rpartition('/')[2]} is being run by process {holder.pid} on host {holder.host} since {since}; "
        f"wait, or `rayxform stop JOB`; if that run is dead, its lease {state_url}/{LEASE_NAME} ends in {left_s:.0f} s"
    )


def _left_s(seen: _Seen) -> float:
    """How long a lease still holds; nothing if its holder is dead."""
    holder = _decode(seen.data)
    return 0.0 if holder.is_gone else holder.expires_s + GRACE_S - seen.age_s


def _decode(data: bytes) -> Holder:
    """Who is named; what was cut short by a crash is nobody's, and ends like any other lease."""
    try:
        return msgspec.json.decode(data, type=Holder)
    except msgspec.MsgspecError:
        return Holder("", "unknown", "", 0, 0.0, 0.0, 0.0, EXPIRES_S)


def _machine() -> str:
    """What has all its processes in common: a running kernel, and a container's own numbering of processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - no path, a name
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode()}"


@dataclass(frozen=True)
class _Seen:
    """What was read.

    Attributes:
        data: the lease.
        age_s: how long ago it was written, as well as the store can tell.
        etag: its version, on S3.
    """

    data: bytes
    age_s: float
    etag: str = ""


class _Cell(Protocol):
    """Where a lease is kept."""

    def read(self) -> _Seen | None:
        """What is there; StorageError."""

    def swap(self, before: _Seen | None, data: bytes | None) -> bool:
        """Put ``data`` (None: nothing) in the place of ``before``, if that is still there; StorageError."""


def _open_cell(state_url: str, encrypted: s3.Encryption) -> _Cell:
    url = f"{state_url}/{LEASE_NAME}"
    filesystem, path = open_filesystem(url)
    if is_local(filesystem):
        return _DiskCell(url, Path(path))
    return _S3Cell(url, filesystem, path, encrypted) if s3.is_s3(filesystem) else _PlainCell(url, filesystem, path)


class _DiskCell:
    """A file of a disk; an empty one is nobody's."""

    def __init__(self, url: str, path: Path) -> None:
        self._url = url
        self._path = path

    def read(self) -> _Seen | None:
        with storage_errors("read", self._url):
            try:
                with self._locked(os.O_RDWR) as file:
                    data = _content(file)
                    return _Seen(data, self._now() - os.fstat(file).st_mtime) if data else None
            except FileNotFoundError:
                return None

    def swap(self, before: _Seen | None, data: bytes | None) -> bool:
        with storage_errors("write", self._url):
            if before is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                return self._swap(os.O_RDWR | os.O_CREAT, b"", data)
            try:
                return self._swap(os.O_RDWR, before.data, data)
            except FileNotFoundError:
                return False

    def _swap(self, flags: int, before: bytes, data: bytes | None) -> bool:
        with self._locked(flags) as file:
            if _content(file) != before:
                return False
            if data is None:
                self._path.unlink()
                return True
            # In its place, which needs no room on a disk that is full.
            os.pwrite(file, data, 0)
            os.ftruncate(file, len(data))
            return True

    def _locked(self, flags: int) -> AbstractContextManager[int]:
        """The file, which nobody else reads or writes meanwhile."""
        return locked(self._path, flags, needs_locks=False)

    def _now(self) -> float:
        """The time by the clock of whoever keeps the files, which need not be this machine."""
        probe = self._path.with_name(f"{LEASE_NAME}.{uuid.uuid4().hex}")
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()


def _content(file: int) -> bytes:
    return os.pread(file, 64 * 1024, 0)


class _S3Cell:
    """An object on S3."""

    def __init__(self, url: str, filesystem: Any, path: str, encrypted: s3.Encryption) -> None:
        self._url = url
        self._filesystem = filesystem
        self._path = path
        self._encrypted = encrypted

    def read(self) -> _Seen | None:
        with storage_errors("read", self._url):
            stamped = s3.get_stamped(self._filesystem, self._path)
            return None if stamped is None else _Seen(stamped.data, stamped.age_s, stamped.etag)

    def swap(self, before: _Seen | None, data: bytes | None) -> bool:
        etag = before.etag if before else None
        with storage_errors("write", self._url):
            if data is None:
                return etag is None or s3.remove_if(self._filesystem, self._path, etag)
            try:
                if s3.put_if(self._filesystem, self._path, data, etag, self._encrypted):
                    return True
                wait_s = 0.0
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise
                s3.put(self._filesystem, self._path, data, self._encrypted)
                wait_s = SETTLE_S
        time.sleep(wait_s)
        after = self.read()
        # Also where the write was done and its answer was lost, so that it was asked for again.
        return after is not None and after.data == data


class _PlainCell:
    """An object of a store of which nothing is known but that it reads and writes."""

    def __init__(self, url: str, filesystem: Any, path: str) -> None:
        self._url = url
        self._filesystem = filesystem
        self._path = path

    def read(self) -> _Seen | None:
        with storage_errors("read", self._url):
            self._filesystem.invalidate_cache()
            try:
                data = retry(lambda: self._filesystem.cat_file(self._path))
            except FileNotFoundError:
                return None
        return _Seen(data, time.time() - _decode(data).renewed_at)

    def swap(self, before: _Seen | None, data: bytes | None) -> bool:
        seen = self.read()
        if (seen and seen.data) != (before and before.data):
            return False
        with storage_errors("write", self._url):
            if data is None:
                remove_file(self._filesystem, self._path)
                return True
            make_folders(self._filesystem, self._path.rpartition("/")[0])
            retry(lambda: self._filesystem.pipe_file(self._path, data))
        if before is None or _decode(before.data).id != _decode(data).id:
            time.sleep(SETTLE_S)
        after = self.read()
        return after is not None and after.data == data
