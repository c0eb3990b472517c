"""A file system that fails by a script: ``faulty:///folder/…`` is ``/folder/…`` of this machine.

The script is the nearest ``.faults.json`` in the folders above a path, so that every process sees the same one: a list of
rules. The first rule that matches a call and has failures left decides it.

- ``operation``: list, info, open, read, write, close, move, remove, make or copy; or several, as a pattern.
- ``path``: a pattern that is searched for in the path.
- ``calls``: which of the calls that match fail, counted over all processes from 1; all of them if it is left out.
- ``kind``: the name of an error number (EIO), "timeout", "reset", "short" (half of what was read), "early" (nothing was read,
  as at the end), "delay" (0.05 s), or "lost EIO": it is done, and then it fails.

What was done to which call is a line each in ``.faults.log`` beside the script.
"""

import errno
import fcntl
import json
import os
import re
import time
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

SCRIPT = ".faults.json"
LOG = ".faults.log"
COUNTS = ".faults.counts"


class Faults:
    """The script that a test writes, and what came of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def set(self, *rules: dict[str, Any]) -> None:
        """Begin anew with other rules."""
        for name in (LOG, COUNTS):
            (self.folder / name).unlink(missing_ok=True)
        (self.folder / SCRIPT).write_text(json.dumps(rules))

    def injected(self) -> list[str]:
        """Operation, kind and path of every failure so far."""
        log = self.folder / LOG
        return log.read_text().splitlines() if log.exists() else []


def _decide(operation: str, path: str) -> str:
    """What is to happen to a call: a kind, or "" for nothing."""
    folder = next((one for one in Path(path).parents if (one / SCRIPT).exists()), None)
    if folder is None or Path(path).name.startswith(".faults"):
        return ""
    with (folder / COUNTS).open("a+") as counts:
        fcntl.flock(counts, fcntl.LOCK_EX)
        counts.seek(0)
        seen = json.loads(counts.read() or "{}")
        for number, rule in enumerate(json.loads((folder / SCRIPT).read_text())):
            if not re.fullmatch(rule["operation"], operation) or not re.search(rule["path"], path):
                continue
            call = seen[str(number)] = seen.get(str(number), 0) + 1
            if "calls" in rule and call not in rule["calls"]:
                continue
            counts.truncate(0)
            counts.write(json.dumps(seen))
            with (folder / LOG).open("a") as log:
                log.write(f"{operation} {rule['kind']} {path}\n")
            return rule["kind"]
        counts.truncate(0)
        counts.write(json.dumps(seen))
    return ""


def _fail(kind: str, path: str) -> None:
    if kind == "delay":
        time.sleep(0.05)
    elif kind == "timeout":
        raise TimeoutError(f"no answer for {path}")
    elif kind == "reset":
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET), path)
    elif kind not in ("", "short", "early"):
        number = getattr(errno, kind)
        raise OSError(number, os.strerror(number), path)


def _call(operation: str, path: str, do: Any) -> Any:
    kind = _decide(operation, path)
    if kind.startswith("lost "):
        do()
        _fail(kind.removeprefix("lost "), path)
    _fail(kind, path)
    done = do()
    if kind == "early":
        return done[:0]
    return done[: len(done) // 2] if kind == "short" else done


class FaultyFile:
    """An open file."""

    def __init__(self, file: Any, path: str) -> None:
        self._file = file
        self._path = path

    def read(self, n_bytes: int = -1) -> bytes:
        at = self._file.tell()
        data: bytes = _call("read", self._path, lambda: self._file.read(n_bytes))
        self._file.seek(at + len(data))
        return data

    def write(self, data: bytes) -> int:
        return _call("write", self._path, lambda: self._file.write(data))

    def close(self) -> None:
        if not self._file.closed:
            try:
                _call("close", self._path, self._file.close)
            finally:
                self._file.close()

    def __enter__(self) -> "FaultyFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class FaultyFileSystem(AbstractFileSystem):
    """Files of this machine, and the script's failures."""

    protocol = "faulty"
    root_marker = "/"
    cachable = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._local = LocalFileSystem()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return "/" + str(path).removeprefix("faulty://").strip("/")

    def _path(self, path: str) -> str:
        return self._strip_protocol(path)

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        path = self._path(path)
        return _call("list", path, lambda: self._local.ls(path, detail=detail))

    def info(self, path: str, **options: Any) -> Any:
        path = self._path(path)
        return _call("info", path, lambda: self._local.info(path))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> FaultyFile:
        path = self._path(path)
        return FaultyFile(_call("open", path, lambda: open(path, mode)), path)

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        source, target = self._path(path1), self._path(path2)
        _call("move", target, lambda: os.replace(source, target))

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        source, target = self._path(path1), self._path(path2)
        _call("copy", target, lambda: self._local.cp_file(source, target))

    def rm_file(self, path: str) -> None:
        path = self._path(path)
        _call("remove", path, lambda: os.unlink(path))

    _rm = rm_file

    def rm(self, path: Any, recursive: bool = False, maxdepth: Any = None) -> None:
        for one in map(self._path, path if isinstance(path, list) else [path]):
            _call("remove", one, lambda one=one: self._local.rm(one, recursive=recursive))

    def rmdir(self, path: str) -> None:
        path = self._path(path)
        _call("remove", path, lambda: os.rmdir(path))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        path = self._path(path)
        _call("make", path, lambda: os.makedirs(path, exist_ok=exist_ok))

    mkdir = makedirs


def announce(folder: Path, protocol: str, target: str) -> None:
    """Make a protocol known to every process that is started from now on, as an installed package's would be.

    Args:
        folder: an empty one, which goes on PYTHONPATH.
        protocol: fsspec's name of it.
        target: its class, as "module:name".
    """
    announced = folder / f"{protocol}-1.dist-info"
    announced.mkdir(parents=True)
    (announced / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {protocol}\nVersion: 1\n")
    (announced / "entry_points.txt").write_text(f"[fsspec.specs]\n{protocol} = {target}\n")
    known = os.environ.get("PYTHONPATH")
    paths = [str(folder), str(Path(__file__).parent.parent), *([known] if known else [])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def announce_faulty(folder: Path) -> None:
    """Make ``faulty://`` known to every process that is started from now on."""
    announce(folder, "faulty", "tests.faulty_fs:FaultyFileSystem")
