"""The pages as Starlette serves them: the list of jobs, a job, its log, and the buttons to stop and to resume it."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec
from sqlalchemy import RowMapping
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from rayxform.errors import JobError, RayxformError, RequestRefusedError
from rayxform.pages import Action, History, JobLine, JobView, empty_view, render_error, render_job, render_jobs
from rayxform.server.database import JOBS, RESUMABLE, UNFINISHED, Database
from rayxform.server.jobs import Jobs
from rayxform.server.settings import ServerSettings
from rayxform.spec import parse_job

MAX_LISTED: Final = 500
MAX_HISTORIES: Final = 64
MAX_LOG_BYTES: Final = 256 * 1024


class Pages:
    """What the pages show."""

    def __init__(self, database: Database, jobs: Jobs, settings: ServerSettings, folder: Path) -> None:
        """Show the jobs of a database, whose logs are below the folder."""
        self._database = database
        self._jobs = jobs
        self._settings = settings
        self._folder = folder
        self._histories: OrderedDict[bytes, History] = OrderedDict()
        self._lock = threading.Lock()

    def app(self) -> ASGIApp:
        """The application."""
        routes = [
            Route("/", self._guarded(self.list)),
            Route("/favicon.ico", _no_icon),
            Route("/jobs/{name}", self._guarded(self.job)),
            Route("/jobs/{name}/log", self._guarded(self.log)),
            Route("/jobs/{name}/stop", self._guarded(self.stop), methods=["POST"]),
            Route("/jobs/{name}/resume", self._guarded(self.resume), methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_found})

    def _guarded(self, show: Any) -> Any:
        """Show it to whom it is for, and say on a page what goes wrong."""

        def guarded(request: Request) -> Response:
            if (refusal := self._refusal(request)) is not None:
                return refusal
            try:
                response: Response = show(request)
            except RequestRefusedError as error:
                return _error(error.status, str(error))
            except RayxformError as error:
                return _error(500, str(error))
            return response

        return guarded

    def _refusal(self, request: Request) -> Response | None:
        """Pages are for whoever may call: anybody on this machine, or who knows the password where callers have keys."""
        if self._settings.keys:
            password = self._settings.pages_password
            if password is None:
                return _error(403, "Set PagesPassword in the settings of rayxform serve to see pages where there are Keys.")
            if not hmac.compare_digest(_basic_password(request).encode(), password.encode()):
                response = _error(401, "The password is PagesPassword in the settings of rayxform serve; the user is any.")
                response.headers["WWW-Authenticate"] = 'Basic realm="rayxform", charset="UTF-8"'
                return response
        if request.method == "POST" and not _is_own(request):
            return _error(403, "This was not sent by a page of this server.")
        return None

    def list(self, request: Request) -> Response:
        """The newest jobs."""
        del request
        rows, _ = self._database.page(JOBS, sort_by="created_at", descending=True, limit=MAX_LISTED)
        nonce = secrets.token_urlsafe()
        return _page(render_jobs([self._line(row) for row in rows], nonce=nonce), nonce)

    def job(self, request: Request) -> Response:
        """A job."""
        row = self._find(request)
        view = self._view(row)
        is_on = view.status.status in UNFINISHED
        nonce = secrets.token_urlsafe()
        log = f"{_place(row)}/log" if (self._folder / row["name"] / "log").exists() else None
        return _page(render_job(view, live=is_on, actions=_actions(row), nonce=nonce, log=log), nonce)

    def log(self, request: Request) -> Response:
        """The end of what a job's runs on this machine have said."""
        row = self._find(request)
        try:
            with (self._folder / row["name"] / "log").open("rb") as file:
                file.seek(max(file.seek(0, 2) - MAX_LOG_BYTES, 0))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return _error(404, "There is no log: the job has not begun, or runs on a cluster, which has its log.")
        return PlainTextResponse(text, headers=_HEADERS)

    def stop(self, request: Request) -> Response:
        """Have a job stopped."""
        row = self._find(request)
        self._jobs.ask_to_stop(row["name"])
        return _back(row)

    def resume(self, request: Request) -> Response:
        """Run a job again."""
        row = self._find(request)
        if not self._jobs.resume(row["name"]):
            return _error(409, f"{row['name']} is {row['status']}; only a job that failed or was stopped can be resumed.")
        return _back(row)

    def _find(self, request: Request) -> RowMapping:
        name = request.path_params["name"]
        row = self._database.find(JOBS, name)
        if row is None:
            raise RequestRefusedError("ValidationException", f"There is no job {name}.", 404)
        return row

    def _line(self, row: RowMapping) -> JobLine:
        result: Mapping[str, Any] = row["result"] or {}
        begun, ended = row["started_at"], row["ended_at"]
        return JobLine(
            name=row["name"],
            status=row["status"],
            created_at=row["created_at"],
            seconds=ended - begun if begun and ended else None,
            files=result.get("Files"),
            files_done=result.get("Files", 0) - result.get("FailedFiles", 0),
            records=result.get("Records"),
        )

    def _view(self, row: RowMapping) -> JobView:
        """What the job's folder tells, and the server where it knows better."""
        try:
            view = self._history(row).update()
        except JobError:  # it was never run
            waits = "It waits for its turn." if row["status"] in UNFINISHED else row["failure_reason"] or "It was not run yet."
            return empty_view(parse_job(row["job"]), row["name"], row["status"], waits)
        knows_better = row["job_file"] is None or row["status"] in UNFINISHED
        if knows_better and view.status.status != row["status"]:
            status = replace(view.status, status=row["status"], message=row["failure_reason"] or "")
            return replace(view, status=status)
        return view

    def _history(self, row: RowMapping) -> History:
        """What is kept of the job between looks, for the jobs that were looked at last."""
        key = msgspec.json.encode([row["name"], row["job"]])
        with self._lock:
            history = self._histories.pop(key, None) or History(parse_job(row["job"]), row["name"])
            self._histories[key] = history
            if len(self._histories) > MAX_HISTORIES:
                self._histories.popitem(last=False)
        return history


_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def _page(html: str, nonce: str, status: int = 200) -> Response:
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(html, status, {**_HEADERS, "Content-Security-Policy": policy})


def _error(status: int, text: str) -> Response:
    nonce = secrets.token_urlsafe()
    return _page(render_error(status, text, nonce=nonce), nonce, status)


def _no_icon(request: Request) -> Response:
    """Browsers ask for one with every text that is no page."""
    del request
    return Response(status_code=204, headers=_HEADERS)


def _not_found(request: Request, error: Exception) -> Response:
    del error
    return _error(404, f"There is no page {request.url.path}.")


def _back(row: RowMapping) -> Response:
    return RedirectResponse(_place(row), 303, _HEADERS)


def _place(row: RowMapping) -> str:
    return f"/jobs/{quote(row['name'], safe='')}"


def _actions(row: RowMapping) -> list[Action]:
    place = _place(row)
    if row["status"] == "InProgress":
        return [Action("Stop", f"{place}/stop")]
    if row["status"] in RESUMABLE:
        return [Action("Resume" if row["attempt"] else "Run", f"{place}/resume")]
    return []


def _is_own(request: Request) -> bool:
    """Whether a page of this server sent the request: browsers name the page's origin with every POST."""
    return urlsplit(request.headers.get("origin", "")).netloc == request.headers.get("host")


def _basic_password(request: Request) -> str:
    """RFC 7617."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
