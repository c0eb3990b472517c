"""A job's page as one file, to be kept or passed on."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from rayxform.api import Job, read_job
from rayxform.errors import StorageError
from rayxform.pages.history import read_view
from rayxform.pages.rendering import render_job


def report(job: Job, path: str | os.PathLike[str] | None = None, *, overrides: Sequence[str] = ()) -> Path:
    """Write a job's page as one HTML file that needs nothing else: from its state folder, while it runs or long after.

    It shows some of the job's records with their images; what looks like a password in the job's members is left out.

    Args:
        job: a job file, its members, or a job.
        path: the file; None for ``<job name>.html`` in the current folder.
        overrides: ``Path.To.Member=VALUE``, each replacing a member of a job file.

    Returns:
        The file.

    Raises:
        JobError: the job is wrong, or was never run.
        StorageError: its state cannot be read, or the file not be written.
    """
    view = read_view(*read_job(job, overrides))
    page = render_job(view, live=False, nonce=secrets.token_urlsafe(16), home=None)
    target = Path(path) if path is not None else Path(f"{view.name}.html")
    try:
        target.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}; choose another path with --output") from error
    return target
