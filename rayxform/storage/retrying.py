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
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem
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
    if package in _RETRYING_CLIENTS or _is_answer_of_s3(error) or type(error).__name__ in _RETRIED_BY_BOTOCORE:
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


def _is_answer_of_s3(error: BaseException) -> bool:
    return hasattr(error, "response") or hasattr(error.__cause__, "response")


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
    """Every object below a folder, or that matches a glob pattern, with fsspec's information on it.

    fsspec's own walk passes over a folder that cannot be listed, whose objects would then be left out of a job.

    Raises:
        OSError: something cannot be listed.
    """
    strict = {"on_error": _raise_unless_gone} if _walks(type(filesystem)) else {}

    def find() -> dict[str, dict[str, Any]]:
        filesystem.invalidate_cache()
        ask = filesystem.glob if pattern else filesystem.find
        found: dict[str, dict[str, Any]] = ask(path, detail=True, **strict)
        return found

    return retry(find)


def _walks(kind: Any) -> bool:
    """Whether finding is fsspec's walk through the folders, and not a store's own flat listing, which raises anyway."""
    if issubclass(kind, AsyncFileSystem):
        return kind._find is AsyncFileSystem._find  # noqa: SLF001 - fsspec tells it in no other way
    return bool(kind.find is AbstractFileSystem.find)


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
