"""AWS JSON 1.1 over HTTP: ``POST /`` with ``X-Amz-Target: SageMaker.<Operation>``, as an ASGI application.

It is written on ASGI itself, not on a framework's router: one path, one method, and many clients that poll.
"""

from __future__ import annotations

import itertools
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

import msgspec

from rayxform.errors import RequestRefusedError
from rayxform.server.database import Database
from rayxform.server.jobs import Jobs
from rayxform.server.models import Models
from rayxform.server.settings import ServerSettings
from rayxform.server.shapes import Members, ServiceShapes
from rayxform.server.signatures import SignedRequest, verify
from rayxform.server.tags import Tags

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Operation = Callable[[Members], Mapping[str, Any] | None]

_TARGET: Final = "SageMaker."
_READING: Final = frozenset({"DescribeModel", "DescribeTransformJob", "ListModels", "ListTags", "ListTransformJobs"})
_MOST_KEPT: Final = 2048
_IDS: Final = str(uuid.uuid4())[:-12].encode()
"""What the ids of this server's calls begin with; the rest counts, at a tenth of what a new UUID takes."""
_log = logging.getLogger("rayxform.server")


class Endpoint:
    """The operations."""

    def __init__(self, database: Database, models: Models, jobs: Jobs, tags: Tags, settings: ServerSettings) -> None:
        """Name what does the work, and who may call."""
        self._database = database
        self._kept: dict[tuple[str, bytes], bytes] = {}
        self._kept_of = -1
        self._calls = itertools.count()
        self._operations: dict[str, Operation] = {
            "AddTags": tags.add,
            "CreateModel": models.create,
            "CreateTransformJob": jobs.create,
            "DeleteModel": models.delete,
            "DeleteTags": tags.delete,
            "DescribeModel": models.describe,
            "DescribeTransformJob": jobs.describe,
            "ListModels": models.list,
            "ListTags": tags.list,
            "ListTransformJobs": jobs.list,
            "StopTransformJob": jobs.stop,
        }
        self._shapes = ServiceShapes(list(self._operations))
        self._keys = settings.keys
        self._max_body_bytes = settings.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a POST."""
        try:
            status, body = 200, self._answer(scope, await self._body(receive))
        except RequestRefusedError as error:
            status, body = error.status, msgspec.json.encode({"__type": error.code, "message": str(error)})
        except Exception:  # noqa: BLE001 - a fault of ours must not end the server
            _log.exception("a call failed")
            text = "We encountered an internal error. Please try again. The log of rayxform serve says more."
            status, body = 500, msgspec.json.encode({"__type": "InternalFailure", "message": text})
        headers = [
            (b"content-type", b"application/x-amz-json-1.1"),
            (b"content-length", str(len(body)).encode()),
            (b"x-amzn-requestid", b"%b%012x" % (_IDS, next(self._calls))),
        ]
        if status == 413:  # the rest of the body was not read
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _body(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        n_bytes = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RequestRefusedError("SerializationException", "the connection was closed within the request")
            parts.append(message.get("body", b""))
            n_bytes += len(parts[-1])
            if n_bytes > self._max_body_bytes:
                raise RequestRefusedError(
                    "RequestEntityTooLargeException", f"the request is larger than {self._max_body_bytes} bytes", 413
                )
            if not message.get("more_body", False):
                return b"".join(parts)

    def _answer(self, scope: Scope, body: bytes) -> bytes:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self._keys:
            path = scope["raw_path"].decode("latin-1")
            verify(SignedRequest(path, scope["query_string"].decode("latin-1"), headers, body), self._keys, time.time())
        target = headers.get("x-amz-target", "")
        name = target.removeprefix(_TARGET)
        operation = self._operations.get(name) if target.startswith(_TARGET) else None
        if operation is None:
            known = ", ".join(sorted(self._operations))
            raise RequestRefusedError("UnknownOperationException", f"X-Amz-Target is {target[:200]!r}; served are {known}")
        return self._keep(name, operation, body) if name in _READING else self._ask(name, operation, body)

    def _ask(self, name: str, operation: Operation, body: bytes) -> bytes:
        answer = operation(self._shapes.parse(name, body))
        return b"" if answer is None else msgspec.json.encode(answer)

    def _keep(self, name: str, operation: Operation, body: bytes) -> bytes:
        """What is asked again and again, by clients that wait for a job, is answered from memory until something changes."""
        generation = self._database.generation
        if generation != self._kept_of or len(self._kept) >= _MOST_KEPT:
            self._kept, self._kept_of = {}, generation
        found = self._kept.get((name, body))
        if found is None:
            found = self._kept[name, body] = self._ask(name, operation, body)
        return found
