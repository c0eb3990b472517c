"""What is made once on a machine and used by every process of it: fetched and unpacked models, packages, compiled code.

An entry is a file or a folder whose name says all that its content depends on, so it is never out of date. Two files lie
beside it, with locks that the system takes back from a process that ends, however it ends:

- ``.NAME.lock``: one process makes the entry, or removes it; the others wait, and use what was made.
- ``.NAME.use``: who uses the entry shares this lock until its end, or that of ``released``. It holds the entry's size in
  bytes, and was changed when the entry was last used.

When an entry was made, those that were not used for the longest time are removed until the rest fits RAYXFORM_CACHE_MAX_GB;
one that somebody uses is not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from rayxform.errors import ModelSourceError
from rayxform.locking import locked

FOLDER_VARIABLE: Final = "RAYXFORM_CACHE"
LIMIT_VARIABLE: Final = "RAYXFORM_CACHE_MAX_GB"
DEFAULT_MAX_GB: Final = 50.0

_ENTRIES: Final = ("*/.*.use", "fetched/*/.*.use")
"""Where they are below the cache's folder; not deeper, since what a model brings may have any name."""


class _Held:
    """The entries that somebody uses, each with the descriptor that shares its lock."""

    def __init__(self) -> None:
        self._descriptors: dict[Path, int] = {}
        self._mutex = threading.Lock()

    def add(self, path: Path, descriptor: int) -> None:
        """Keep a lock, instead of an earlier one for the same entry, which somebody may have removed by hand since."""
        with self._mutex:
            if (before := self._descriptors.get(path)) is not None:
                os.close(before)
            self._descriptors[path] = descriptor

    def give_up(self, within: Path | None = None) -> None:
        """Give up all locks, or that of the entry which a path is, or lies in."""
        with self._mutex:
            for path in [one for one in self._descriptors if within is None or one in (within, *within.parents)]:
                os.close(self._descriptors.pop(path))


_PROCESS = _Held()
_HELD: ContextVar[_Held] = ContextVar("rayxform_cache_held", default=_PROCESS)


def cache_folder() -> Path:
    """The cache's folder on this machine: RAYXFORM_CACHE, else one in the temporary folder; it is made where it is missing."""
    folder = _folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def keep(path: Path, make: Callable[[Path], object]) -> Path:
    """An entry, made if it is not there; of all that ask at once, one makes it. It is in use from then on.

    Args:
        path: the entry's place. In ``cache_folder`` it counts towards the limit.
        make: makes the entry at the path that it gets, which has the same ending and is on the same disk. Where it raises,
            nothing is left, and the next one tries.

    Returns:
        The path.

    Raises:
        OSError: the folder cannot be written.
        ModelSourceError: RAYXFORM_CACHE_MAX_GB is wrong.
    """
    limit = _max_bytes() if (is_cached := _folder() in path.parents) else 0.0
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(_beside(path, ".lock")):
        is_new = not path.exists()
        if is_new:
            _make(path, make)
        _HELD.get().add(path, _shared(_beside(path, ".use")))
    if is_new and is_cached:
        make_room(_folder(), limit)
    return path


@contextlib.contextmanager
def released() -> Iterator[None]:
    """Entries that this thread begins to use in the context are in use until its end, and not until the process's."""
    held = _Held()
    token = _HELD.set(held)
    try:
        yield
    finally:
        _HELD.reset(token)
        held.give_up()


def release(path: Path) -> None:
    """Say that the entry which a path is, or lies in, is not needed any longer, such as an archive that is unpacked."""
    _HELD.get().give_up(path)


def make_room(folder: Path, limit: float) -> None:
    """Remove entries, the ones that were not used for the longest time first, until the rest fits; never one in use.

    Args:
        folder: a cache's.
        limit: what all entries may come to, in bytes.
    """
    with _locked(folder / ".room.lock"):
        found = [
            (_used_at(use), use.with_name(use.name[1:].removesuffix(".use"))) for one in _ENTRIES for use in folder.glob(one)
        ]
        sizes = {path: _size_of(path) for _, path in sorted(found)}
        total = sum(sizes.values())
        for path, size in sizes.items():
            if total <= limit:
                return
            total -= size if _remove(path) else 0


def _folder() -> Path:
    return Path(os.environ.get(FOLDER_VARIABLE) or Path(tempfile.gettempdir()) / f"rayxform-{os.getuid()}")


def _max_bytes() -> float:
    text = os.environ.get(LIMIT_VARIABLE) or f"{DEFAULT_MAX_GB:g}"
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise ModelSourceError(
            f"{LIMIT_VARIABLE} is {text!r}; allowed: a number of GB (10^9 bytes), 0 or more. Write 50, for example; with 0 "
            "only what is in use is kept"
        )
    return limit * 1e9


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}{ending}")


def _unfinished(path: Path) -> Path:
    return path.with_name(f".new-{path.name}")


def _make(path: Path, make: Callable[[Path], object]) -> None:
    """Make an entry where nobody looks, and give it its name when it is whole; its lock is held."""
    new = _unfinished(path)
    _delete(new)  # of one that was killed
    use = _beside(path, ".use")
    use.write_text("")
    try:
        make(new)
        use.write_text(str(_bytes_of(new)))
        new.rename(path)
    except BaseException:
        _delete(new)
        use.unlink()
        _beside(path, ".lock").unlink()
        raise


def _remove(path: Path) -> bool:
    """Remove an entry, or what is left of one, unless somebody makes or uses it; whether it is gone."""
    use = _beside(path, ".use")
    try:
        with _locked(_beside(path, ".lock"), waits=False):
            if not use.exists():
                return False
            with _locked(use, waits=False):
                if path.exists():  # so that no half of it ever bears its name
                    _delete(_unfinished(path))
                    path.rename(_unfinished(path))
                _delete(_unfinished(path))
                use.unlink()
            _beside(path, ".lock").unlink()
    except BlockingIOError:
        return False
    return True


def _locked(lock: Path, *, waits: bool = True) -> AbstractContextManager[int]:
    """A lock, which is nobody else's business than this user's."""
    return locked(lock, mode=0o600, waits=waits)


def _shared(use: Path) -> int:
    """A descriptor that says that an entry is in use, until it is closed."""
    descriptor = os.open(use, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    os.utime(descriptor)
    return descriptor


def _used_at(use: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return use.stat().st_mtime
    return 0.0


def _size_of(path: Path) -> int:
    """An entry's bytes, or those of what one that was killed has left of it."""
    try:
        return int(_beside(path, ".use").read_text())
    except (FileNotFoundError, ValueError):
        return _bytes_of(path) + _bytes_of(_unfinished(path))


def _bytes_of(path: Path) -> int:
    """What lies there, or below it; what is removed meanwhile, by whoever else makes room, takes none."""
    files = [path]
    if path.is_dir() and not path.is_symlink():
        files = [Path(at, name) for at, _, names in os.walk(path) for name in names]
    n_bytes = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            n_bytes += file.lstat().st_size
    return n_bytes


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
