"""Asking a store again after an error that may pass: the one place for it.

What retries by itself is not multiplied. botocore asks again for each request that S3 does not answer, or answers with an
error that may pass, so the attempts of s3fs around it are turned off (``s3.OPTIONS``, ``edge.open_filesystem``); Google's and
Azure's clients do so too. What is left is a body that breaks off while it is read, and every error of disks and of stores whose
clients give up at once. The pauses grow and are of random length, so that many tasks do not come back at the same moment
("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

An action may have been done although it raised: its answer was lost. So only what can be done twice is retried here.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem
from fsspec.utils import glob_translate
from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

ATTEMPTS = 8
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
LONGEST_S = 60.0
"""How long is asked in all, so that an action that takes its time to fail does not do so ATTEMPTS times."""

_PASSING = {
    errno.EIO,
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ENETDOWN,
    errno.ENETRESET,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.EPIPE,
    getattr(errno, "EREMOTEIO", errno.EIO),
}

_PASSING_STATUSES = {408, 429, 500, 502, 503, 504}

_RETRYING_CLIENTS = ("azure", "gcsfs", "google")
"""The packages that asked again before they raised an error of their own."""

_RETRIED_BY_BOTOCORE = ("ConnectTimeoutError", "EndpointConnectionError", "ConnectionClosedError", "ProxyConnectionError")

_T = TypeVar("_T")


class BrokenOffError(OSError):
    """Bytes of an object ended early, or came in part; it passes, unless the object itself has changed."""

    def __init__(self, path: str, missing_bytes: int) -> None:
        super().__init__(errno.EIO, f"the answer ended {missing_bytes} bytes early")
        self.path = path
        self.missing_bytes = missing_bytes


def check_length(path: str, expected_bytes: int, found_bytes: int) -> None:
    """See that something is as long as it should be.

    Raises:
        BrokenOffError: it is not.
    """
    if found_bytes != expected_bytes:
        raise BrokenOffError(path, expected_bytes - found_bytes)


def retry(action: Callable[[], _T]) -> _T:
    """What an action returns, which is done again after errors that may pass.

    Args:
        action: what is done; doing it twice has to be the same as once.

    Raises:
        BaseException: the last error, or one that does not pass.
    """
    return Retrying(
        retry=retry_if_exception(is_passing),
        stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(LONGEST_S),
        wait=wait_random_exponential(FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
        reraise=True,
    )(action)


def is_passing(error: BaseException) -> bool:
    """Whether an error may pass, and nothing below has asked again already."""
    package = type(error).__module__.partition(".")[0]
    if package in _RETRYING_CLIENTS or answer_of_s3(error) is not None or type(error).__name__ in _RETRIED_BY_BOTOCORE:
        return False
    if isinstance(error, (TimeoutError, ConnectionError)) or type(error).__name__ in _PASSING_NAMES:
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _PASSING
    status = getattr(error, "status", None) or getattr(error, "status_code", None)
    return status in _PASSING_STATUSES


_PASSING_NAMES = (
    # fsspec's; a TimeoutError only from Python 3.11 on
    "FSTimeoutError",
    # aiohttp's and botocore's, of a body that breaks off or an answer that is none
    "ClientOSError",
    "ClientPayloadError",
    "HTTPClientError",
    "IncompleteRead",
    "IncompleteReadError",
    "ReadTimeoutError",
    "ResponseParserError",
    "ResponseStreamingError",
    "ServerDisconnectedError",
)


def answer_of_s3(error: BaseException) -> dict[str, Any] | None:
    """What S3 answered, where an error comes of that."""
    at: BaseException | None = error
    while at is not None:
        response = getattr(at, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return response
        at = at.__cause__
    return None


def info_of(filesystem: Any, path: str) -> dict[str, Any]:
    """Fsspec's information on what is there.

    Raises:
        FileNotFoundError: nothing is.
        OSError: it cannot be found out.
    """
    info: dict[str, Any] = retry(lambda: filesystem.info(path))
    return info


def kind_of(filesystem: Any, path: str) -> Literal["file", "directory"] | None:
    """What is there; fsspec's own ``exists``, ``isfile`` and ``isdir`` take every error for an absence.

    Raises:
        OSError: it cannot be found out.
    """
    try:
        kind: Literal["file", "directory"] = info_of(filesystem, path)["type"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    return kind


def remove_file(filesystem: Any, path: str) -> None:
    """Remove a file; one that is not there any more is removed.

    Raises:
        OSError: it cannot be removed.
    """

    def remove() -> None:
        try:
            filesystem.rm_file(path)
        except FileNotFoundError:
            return

    retry(remove)


def make_folders(filesystem: Any, path: str) -> None:
    """Make a folder and those above it, where they are not there yet.

    Raises:
        OSError: it cannot be made.
    """
    retry(lambda: filesystem.makedirs(path, exist_ok=True))


def remove_folder(filesystem: Any, path: str) -> None:
    """Remove a folder with all that is in it, if it is there.

    Raises:
        OSError: it cannot be removed.
    """

    def remove() -> None:
        try:
            filesystem.invalidate_cache()
            filesystem.rm(path, recursive=True)
        except FileNotFoundError:
            return

    if kind_of(filesystem, path) is not None:
        retry(remove)


def find_below(filesystem: Any, path: str, *, pattern: bool = False) -> dict[str, dict[str, Any]]:
    """Every object below a folder, or that matches a glob pattern, with fsspec's information on it; none if it is not there.

    fsspec's own walk passes over a folder that cannot be listed, whatever ``on_error`` says of those below the first, and its
    objects would be left out of a job. A store that lists all of it at once is asked to.

    Raises:
        OSError: something cannot be listed.
    """
    filesystem.invalidate_cache()
    if not _walks(type(filesystem)):
        ask = filesystem.glob if pattern else filesystem.find
        found: dict[str, dict[str, Any]] = retry(lambda: ask(path, detail=True))
        return found
    if not pattern:
        return dict(_walk(filesystem, path, None))
    fixed = path[: path.rindex("/", 0, re.search(r"[*?\[]", path).start()) + 1]  # type: ignore[union-attr] # it is a pattern
    depth = None if "**" in path else path[len(fixed) :].count("/") + 1
    matches = re.compile(glob_translate(path)).match
    return {name: info for name, info in _walk(filesystem, fixed.rstrip("/") or "/", depth) if matches(name)}


def _walk(filesystem: Any, folder: str, depth: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The files of a folder and of those in it, ``depth`` of them one in another; each is asked for again by itself."""
    try:
        infos = retry(lambda: filesystem.ls(folder, detail=True))
    except FileNotFoundError:  # or no more
        return
    for info in infos:
        name = info["name"].rstrip("/")
        if info["type"] != "directory":
            yield info["name"], info
        elif name != folder and (depth is None or depth > 1):
            yield from _walk(filesystem, name, None if depth is None else depth - 1)


def _walks(kind: Any) -> bool:
    """Whether finding is fsspec's walk through the folders, and not a store's own flat listing, which raises anyway."""
    if issubclass(kind, AsyncFileSystem):
        return kind._find is AsyncFileSystem._find  # noqa: SLF001 - fsspec tells it in no other way
    return bool(kind.find is AbstractFileSystem.find)
