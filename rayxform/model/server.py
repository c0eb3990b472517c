"""The client of one HTTP model server: ``/ping``, ``/execution-parameters`` and ``/invocations``, as SageMaker asks them.

Source: AWS, "Use Your Own Inference Code with Batch Transform". The words of errors are those that SageMaker logs.
Connections are kept alive and used again; any number of threads may ask at a time.
"""

from __future__ import annotations

import asyncio
import copy
import io
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from rayxform._version import __version__
from rayxform.errors import InvocationError, ModelLoadError
from rayxform.model.context import STRATEGIES, InvocationContext
from rayxform.model.protocol import Response
from rayxform.model.retrying import retry_with_back_off
from rayxform.spec import ExecutionParameters

PING_TIMEOUT_S: Final = 2.0
"""How long a ``/ping`` may take (AWS, "How Your Container Should Respond to Health Check (Ping) Requests")."""

LONGEST_PING_PAUSE_S: Final = 1.0
PARAMETERS_TIMEOUT_S: Final = 10.0
MAX_SHOWN: Final = 2000
"""How many characters of an answer an error shows."""

_PASSING: Final = {408, 429}
"""Client errors that may pass (RFC 9110, section 15.5.9; RFC 6585, section 4)."""

_BUSY: Final = {429, 502, 503, 504}
"""What is answered in place of a server that could not take the request; no record is to blame."""

_REMEDIES: Final = {
    404: "the server has nothing there; check the path of the URL",
    413: "the server takes no request of {size:,} bytes; lower MaxPayloadInMB, or raise the server's own limit",
    415: "the server does not take ContentType {content_type}",
}
_NO_ANSWER: Final = "Unable to get response from algorithm"
_WAYS: Final = {name: strategy for strategy, name in STRATEGIES.items()}
_T = TypeVar("_T")


class _Parameters(msgspec.Struct):
    """The answer of ``/execution-parameters``; what it does not name stays open, and members that AWS has not are no matter."""

    MaxConcurrentTransforms: Annotated[int, msgspec.Meta(ge=0, le=1000)] | None = None
    BatchStrategy: Literal["MULTI_RECORD", "SINGLE_RECORD"] | None = None
    MaxPayloadInMB: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None


@dataclass(frozen=True)
class _Answer:
    """A whole HTTP response."""

    status: int
    body: bytes
    content_type: str | None

    @property
    def text(self) -> str:
        """The body for an error message, cut to a sane length."""
        text = self.body[: 4 * MAX_SHOWN].decode("utf-8", "replace")
        return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(self.body):,} bytes in all)"


class _NoAnswerError(Exception):
    """No whole response came; says why.

    Attributes:
        was_reached: whether there was a connection at all.
    """

    def __init__(self, reason: str, *, was_reached: bool) -> None:
        super().__init__(reason)
        self.was_reached = was_reached


class ServerClient:
    """A model behind a server that is already running; ``Model`` documents what all models have.

    Attributes:
        base_url: the server's URL.
    """

    model_dir = ""
    warnings: tuple[str, ...] = ()

    def __init__(self, url: str, *, timeout_s: float, chunked: bool) -> None:
        """Connect to nothing yet.

        Args:
            url: the server's URL; ``/ping`` and its like are below it.
            timeout_s: how long one request may take from its first byte to the answer's last, in seconds.
            chunked: whether bodies are sent in chunks without a length, as SageMaker does for MaxPayloadInMB 0.
        """
        self.base_url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._chunked = chunked
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="rayxform-http", daemon=True).start()
        self._session = self._run(_open_session())

    @property
    def url(self) -> str:
        """The server's URL for messages, without a name and password in it."""
        parts = urlsplit(self.base_url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def at(self, url: str) -> ServerClient:
        """This client for a server elsewhere; connections are in common, and closed by either."""
        other = copy.copy(self)
        other.base_url = url.rstrip("/")
        return other

    def close(self) -> None:
        """Close all connections."""
        self._run(self._session.close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def wait_until_ready(
        self, limit_s: float, busy_limit_s: float | None = None, check: Callable[[], None] = lambda: None
    ) -> None:
        """Ping until the server is ready.

        Args:
            limit_s: how long to wait, in seconds.
            busy_limit_s: how long to wait for one that takes the connection, but is busy; None for the same.
            check: called before each ping; raises where waiting is in vain.

        Raises:
            ModelLoadError: it was not ready in time; says why.
        """
        began_at = time.monotonic()
        pause_s = 0.02
        while True:
            check()
            reason = self._why_not_ready()
            if reason is None:
                return
            patience_s = limit_s if busy_limit_s is None or not reason.was_reached else busy_limit_s
            if time.monotonic() + pause_s > began_at + patience_s:
                raise ModelLoadError(f"the model server was not ready within {patience_s:g} s: GET {self.url}/ping: {reason}")
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PING_PAUSE_S)

    def execution_parameters(self) -> ExecutionParameters:
        """Ask how the server wants to be asked; a server without ``/execution-parameters`` leaves everything open.

        Raises:
            ModelLoadError: the answer is neither 404 nor what AWS describes.
        """
        place = f"GET {self.url}/execution-parameters"
        remedy = "or set MaxConcurrentTransforms, BatchStrategy and MaxPayloadInMB in the job, so that it is not asked"
        try:
            answer = self._ask("GET", "/execution-parameters", PARAMETERS_TIMEOUT_S)
        except _NoAnswerError as error:
            raise ModelLoadError(f"{place}: {error}; let the server answer 404 if it has no wishes, {remedy}") from error
        if answer.status == 404:
            return ExecutionParameters()
        if answer.status != 200:
            problem = f"{place} answered {answer.status}, neither 200 nor 404; correct the server, {remedy}"
            raise ModelLoadError(problem, answer.text)
        try:
            found = msgspec.json.decode(answer.body, type=_Parameters, strict=False)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ModelLoadError(f"{place}: {error}; correct the server, {remedy}", answer.text) from error
        strategy: Any = _WAYS[found.BatchStrategy] if found.BatchStrategy else None
        return ExecutionParameters(found.MaxConcurrentTransforms or None, strategy, found.MaxPayloadInMB)

    def transform(
        self,
        body: bytes | memoryview,
        content_type: str,
        accept: str,
        context: InvocationContext,
        staged: bytes | memoryview | None = None,  # noqa: ARG002 - a server reads its input itself
    ) -> Response:
        """Post a request to ``/invocations``.

        Raises:
            InvocationError: there was no whole answer within the time-out, or it was not a 2xx; carries what the server said.
        """
        del context
        headers = {"Content-Type": content_type, "Accept": accept}
        try:
            answer = self._ask("POST", "/invocations", self._timeout_s, body, headers)
        except _NoAnswerError as error:
            # A server that answers no ping either could have answered no other request: its records are not to blame.
            is_down = not error.was_reached or self._why_not_ready() is not None
            raise InvocationError(f"{_NO_ANSWER}: POST {self.url}/invocations: {error}", is_servers_fault=is_down) from error
        if 200 <= answer.status < 300:
            return Response(answer.body, answer.content_type or accept)
        raise self._refusal(answer, len(body), content_type)

    def run_ahead(self, body: bytes | memoryview, content_type: str, context: InvocationContext) -> None:
        """Do nothing: a server reads a request when it gets it."""

    def retry(self, ask: Callable[[int], Response], retries: int) -> Response:
        """Ask again with growing pauses, unless the error would stay."""
        return retry_with_back_off(ask, retries)

    def _why_not_ready(self) -> _NoAnswerError | None:
        """Ask ``/ping``; None if the server is ready."""
        try:
            status = self._ask("GET", "/ping", PING_TIMEOUT_S).status
        except _NoAnswerError as error:
            return error
        return None if status == 200 else _NoAnswerError(f"it answered {status}, not 200", was_reached=True)

    def _refusal(self, answer: _Answer, size: int, content_type: str) -> InvocationError:
        status, is_busy = answer.status, answer.status in _BUSY
        if status >= 500:
            message = f"Bad HTTP status received from algorithm: {status}"
            return InvocationError(message, f"Message: {answer.text}", is_servers_fault=is_busy)
        remedy = _REMEDIES.get(status, "").format(size=size, content_type=content_type)
        message = f"ClientError: {status}" + (f": POST {self.url}/invocations: {remedy}" if remedy else "")
        is_final = status not in _PASSING
        return InvocationError(message, f"Message: {answer.text}", is_final=is_final, is_servers_fault=is_busy)

    def _ask(
        self,
        method: str,
        path: str,
        timeout_s: float,
        body: bytes | memoryview | None = None,
        headers: dict[str, str] | None = None,
    ) -> _Answer:
        """One HTTP exchange from any thread.

        Raises:
            _NoAnswerError: there was no whole response.
        """
        return self._run(self._exchange(method, self.base_url + path, timeout_s, body, headers))

    async def _exchange(
        self, method: str, url: str, timeout_s: float, body: bytes | memoryview | None, headers: dict[str, str] | None
    ) -> _Answer:
        # The time-out is aiohttp's total: a server that sends a byte a second does not outlive it.
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        data = None if body is None else io.BytesIO(body)
        chunked = True if body is not None and self._chunked else None
        try:
            async with self._session.request(
                method, url, data=data, headers=headers, timeout=timeout, chunked=chunked, allow_redirects=False
            ) as response:
                return _Answer(response.status, await response.read(), response.headers.get("Content-Type"))
        except asyncio.TimeoutError as error:
            raise _NoAnswerError(f"no whole answer within {timeout_s:g} s", was_reached=True) from error
        except aiohttp.ClientConnectorError as error:
            raise _NoAnswerError(f"cannot connect: {error.strerror or error}", was_reached=False) from error
        except aiohttp.ServerDisconnectedError as error:
            raise _NoAnswerError("the server closed the connection without an answer", was_reached=True) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _NoAnswerError(f"{type(error).__name__}: {error}", was_reached=True) from error

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _open_session() -> aiohttp.ClientSession:
    headers = {"User-Agent": f"rayxform/{__version__}", "Accept-Encoding": "identity"}
    # No limit: a worker asks with as many threads as MaxConcurrentTransforms says.
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(connector=connector, headers=headers, cookie_jar=aiohttp.DummyCookieJar())
