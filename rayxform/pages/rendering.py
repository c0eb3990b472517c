"""Views as HTML. Whatever comes from users is escaped by Jinja2; styles and scripts stand in the page, under its nonce."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from rayxform._version import __version__
from rayxform.pages import charts
from rayxform.pages.records import visible
from rayxform.pages.view import Action, JobLine, JobView

REFRESH_S = 2
"""How often a live page fetches itself;"""
PLAIN_REFRESH_S = 5
"""and how often the browser does where there is no JavaScript."""

_LOOKS = {"Completed": "ok", "Failed": "bad", "Stopped": "warn", "Stopping": "warn"}
_SIGNS = {"Completed": "✓", "Failed": "✕", "Stopped": "■", "Stopping": "■", "InProgress": "▶"}


def render_job(
    view: JobView,
    *,
    live: bool,
    actions: Sequence[Action] = (),
    nonce: str = "",
    home: str | None = "/",
    log: str | None = None,
) -> str:
    """A job's page.

    Args:
        view: what it shows.
        live: whether the page fetches itself again every REFRESH_S seconds.
        actions: buttons, each of which posts to its URL.
        nonce: the nonce of the Content-Security-Policy that inline style and script carry; the page then has a policy of its
            own, too, that allows nothing but them, images as ``data:`` URLs, and its own server.
        home: the URL of the list of jobs; None where there is none.
        log: the URL of what its runs have said; None where there is none.

    Returns:
        A whole HTML document.
    """
    return _render("job.html", nonce, view=view, live=live, actions=actions, home=home, log=log)


def render_jobs(jobs: Sequence[JobLine], *, nonce: str = "") -> str:
    """The list of jobs, the newest first, each with a link to ``/jobs/<name>``.

    Args:
        jobs: the jobs, in any order.
        nonce: see ``render_job``.

    Returns:
        A whole HTML document.
    """
    newest = sorted(jobs, key=lambda job: job.created_at, reverse=True)
    return _render("jobs.html", nonce, jobs=newest, live=False, home="/")


def render_error(status: int, text: str, *, nonce: str = "") -> str:
    """A page that says what went wrong.

    Args:
        status: the HTTP status.
        text: what is said of it.
        nonce: see ``render_job``.

    Returns:
        A whole HTML document.
    """
    return _render("error.html", nonce, status=status, text=text, live=False, home="/")


def _render(name: str, nonce: str, **values: Any) -> str:
    return _environment().get_template(name).render(nonce=nonce, version=__version__, **values)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rayxform.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "visible": visible,
        "count": charts.count,
        "bytes": charts.n_bytes,
        "duration": charts.duration,
        "moment": _moment,
        "status_look": lambda status: _LOOKS.get(status, "busy"),
        "status_sign": lambda status: _SIGNS.get(status, "●"),
        "breakable": _breakable,
        "prose": _prose,
        "in_url": lambda text: quote(text, safe=""),
    }
    loader = environment.loader
    if loader is None:
        raise AssertionError("it was given above")
    environment.globals |= {
        "style": Markup(loader.get_source(environment, "style.css")[0]),  # noqa: S704 - our own file
        "script": Markup(loader.get_source(environment, "page.js")[0]),  # noqa: S704 - our own file
        "refresh_s": REFRESH_S,
        "plain_refresh_s": PLAIN_REFRESH_S,
    }
    return environment


def _moment(at: float) -> Markup:
    moment = datetime.fromtimestamp(at, timezone.utc)
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat(), moment.strftime("%Y-%m-%d %H:%M:%S UTC"))


def _breakable(text: str) -> Markup:
    """A path or URL that may be broken into lines behind its slashes."""
    return Markup("<wbr>").join(piece for piece in visible(text).replace("/", "/\0").split("\0"))


def _prose(text: str) -> Markup:
    """A sentence with `code` in it."""
    pieces = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(_breakable(piece)) if index % 2 else _breakable(piece)
        for index, piece in enumerate(pieces)
    )
