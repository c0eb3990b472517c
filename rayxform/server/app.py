"""The endpoint and the pages as one ASGI application."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from rayxform.server.database import Database
from rayxform.server.endpoint import Endpoint
from rayxform.server.jobs import Jobs
from rayxform.server.models import Models
from rayxform.server.settings import ServerSettings
from rayxform.server.tags import Tags

_LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}


def make_app(
    database: Database, models: Models, jobs: Jobs, pages: ASGIApp, settings: ServerSettings, *, allowed_host: str | None
) -> ASGIApp:
    """The application.

    Args:
        database: what it answers from.
        models: the model operations.
        jobs: the job operations.
        pages: what answers everything but the operations.
        settings: who may call.
        allowed_host: where anybody on this machine may call, the only name beside those of this machine that a request may
            give its host: a page of the web that a browser here shows must not call (DNS rebinding). None where callers sign.
    """
    endpoint = Endpoint(database, models, jobs, Tags(database, models, jobs, settings), settings)
    hosts = _LOOPBACK | {allowed_host} if allowed_host is not None else None

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and hosts is not None and _host(scope) not in hosts:
            await _refuse_host(send)
        elif scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == "/":
            await endpoint(scope, receive, send)
        else:
            await pages(scope, receive, send)

    return app


def _host(scope: Scope) -> str:
    """The Host header's name, without its port."""
    host: str = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


async def _refuse_host(send: Send) -> None:
    text = b"this server answers on 127.0.0.1 and localhost alone"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 421, "headers": headers})
    await send({"type": "http.response.body", "body": text})
