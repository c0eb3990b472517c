"""Every job that was accepted is begun when its turn comes, begun again if its run died, and its end is noted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import RowMapping

from rayxform.errors import RayxformError
from rayxform.server.database import JOBS, Database
from rayxform.server.jobs import MAX_REASON_CHARACTERS
from rayxform.server.runs import Run, Runs
from rayxform.server.settings import ServerSettings

LOOK_S: Final = 0.5
MAX_DEATHS: Final = 5
"""How often in a row a run may end without a word until the job is given up; each one goes on from what the last one wrote."""

_log = logging.getLogger("rayxform.server")


class Keeper:
    """Looks after all jobs, in a thread of its own."""

    def __init__(self, database: Database, runs: Runs, settings: ServerSettings) -> None:
        """Look after the jobs in the database.

        Args:
            database: theirs.
            runs: where they run.
            settings: how many run at a time, and what those of callers may touch.
        """
        self._database = database
        self._runs = runs
        self._max_concurrent_jobs = settings.max_concurrent_jobs
        self._allowed_prefixes = settings.allowed_prefixes
        self._woken = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def wake(self) -> None:
        """There is something to do at once."""
        self._woken.set()

    def end(self) -> None:
        """Stop looking; jobs that run go on."""
        self._ended = True
        self.wake()
        self._thread.join()

    def _keep(self) -> None:
        while not self._ended:
            self._woken.clear()
            try:
                self.turn()
            except Exception:  # noqa: BLE001 - the jobs of others would be left alone
                _log.exception("looking after the jobs failed; it is tried again")
            self._woken.wait(LOOK_S)

    def turn(self) -> None:
        """Look at each job that has not ended, once; the oldest first."""
        running = 0
        for row in self._database.unfinished_jobs():
            try:
                is_running = self._look_at(row, has_turn=running < self._max_concurrent_jobs)
            except RayxformError as error:
                _log.warning("%s: %s; it is tried again", row["name"], error)
                is_running = row["is_begun"]
            running += is_running

    def _look_at(self, row: RowMapping, *, has_turn: bool) -> bool:
        """Whether the job runs now."""
        name, attempt, is_stopping = row["name"], row["attempt"], row["status"] == "Stopping"
        run = self._runs.look(name, attempt) if row["is_begun"] else Run(goes_on=False)
        if run.goes_on:
            if is_stopping:
                self._runs.stop(name, attempt)
            return True
        if run.result is not None:
            self._note_end(name, str(run.result["TransformJobStatus"]), run.result.get("FailureReason"), run.result)
            return False
        if is_stopping:
            self._note_end(name, "Stopped", None)
            return False
        return self._begin(row, run, has_turn=has_turn)

    def _begin(self, row: RowMapping, died: Run, *, has_turn: bool) -> bool:
        """Begin a job, or begin it again where its run ended without a word."""
        name, attempt = row["name"], row["attempt"]
        deaths = row["deaths"] + row["is_begun"]
        if deaths > MAX_DEATHS:
            self._note_end(name, "Failed", f"its run ended {deaths} times without a word: {died.message}")
            return False
        if not has_turn:
            return False
        # Noted first: a server that is killed in between finds a run that died before it began, and begins the next.
        begun = {"attempt": attempt + 1, "is_begun": True, "deaths": deaths, "started_at": row["started_at"] or time.time()}
        if not self._database.change_job(name, JOBS.c.status == "InProgress", **begun):
            return False
        # What a job file names was named by who started the server.
        self._runs.begin(name, attempt + 1, row["job"], self._allowed_prefixes if row["job_file"] is None else ())
        return True

    def _note_end(self, name: str, status: str, reason: str | None, result: Mapping[str, Any] | None = None) -> None:
        cut = reason[:MAX_REASON_CHARACTERS] if reason else None
        kept = None if result is None else dict(result)
        self._database.change_job(name, status=status, failure_reason=cut, result=kept, ended_at=time.time(), deaths=0)
