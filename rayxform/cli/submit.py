"""``rayxform submit``: a job goes to a Ray cluster's job server, and what it prints there is printed here."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rayxform.api import Job, read_job
from rayxform.errors import ClusterError, EngineError, JobBusyError
from rayxform.pipeline.planning import output_of
from rayxform.pipeline.result import result_in
from rayxform.ray_jobs import RayJobs, RunState
from rayxform.spec import TransformJob, to_members

_ADDRESS_VARIABLES: Final = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_LOOK_S: Final = 0.2


class Submission:
    """One run on a cluster."""

    def __init__(self, jobs: RayJobs, name: str, submission_id: str) -> None:
        self.name = name
        self.id = submission_id
        self._jobs = jobs
        self._printing = threading.Lock()
        self._has_ended = threading.Event()
        self._error: EngineError | None = None

    def follow(self) -> RunState | None:
        """Print what the run prints to stderr until it has ended.

        Ctrl-C asks on a terminal whether to stop it, and else leaves it running; the second one leaves it.

        Returns:
            What it came to; None if it was left running.

        Raises:
            EngineError: the job server cannot be reached any more, or the run ended without a word.
        """
        threading.Thread(target=self._print_log, daemon=True).start()
        is_stopping = False
        # Not Thread.join: where Ctrl-C interrupts it, Python up to 3.12 takes a thread that runs for one that has ended.
        while not self._has_ended.is_set():
            try:
                self._has_ended.wait(_LOOK_S)
            except KeyboardInterrupt:
                if is_stopping or not self._is_to_stop():
                    self._say(f"{self.id} goes on. {self.how_to_go_on()}")
                    return None
                is_stopping = True
                self._say(f"stopping {self.id}; Ctrl-C again leaves it to itself")
                self._jobs.stop(self.id)
        if self._error is not None:
            raise self._error
        state = self._jobs.look(self.id)
        if state.result is None and not state.was_stopped:
            raise EngineError(_without_a_word(self.id, state))
        return state

    def how_to_go_on(self) -> str:
        """The commands for a run that nobody watches."""
        where = f"--address {self._jobs.address} {self.id}"
        return f"Follow it with `ray job logs --follow {where}`, stop it with `ray job stop {where}` or `rayxform stop JOB`."

    def _print_log(self) -> None:
        try:
            for line in self._jobs.follow_logs(self.id):
                if result_in(line) is None:
                    self._say(line)
        except EngineError as error:
            self._error = error
        finally:
            self._has_ended.set()

    def _say(self, line: str) -> None:
        with self._printing:
            print(line, file=sys.stderr, flush=True)

    def _is_to_stop(self) -> bool:
        """What a person at the terminal says; where there is none, or a second Ctrl-C comes, it goes on."""
        if not sys.stdin.isatty():
            return False
        with self._printing:
            print("\nStop the job on the cluster? [y/N] ", end="", file=sys.stderr, flush=True)
            try:
                return sys.stdin.readline().strip().lower() in ("y", "yes")
            except KeyboardInterrupt:
                print(file=sys.stderr)
                return False


def submit(
    job: Job,
    *,
    overrides: Sequence[str] = (),
    address: str | None = None,
    workers: int | None = None,
    restart: bool = False,
) -> Submission:
    """Submit a job to a cluster's job server.

    Args:
        job: a job file, its members, or a job.
        overrides: ``Path.To.Member=VALUE``, each replacing a member of a job file.
        address: the server's URL; None for RAY_API_SERVER_ADDRESS, or RAY_ADDRESS where that is a URL.
        workers: the size of the actor pool; None for the job's own, or what the cluster suggests.
        restart: whether to begin anew, whatever an earlier run left.

    Raises:
        JobError: the job is wrong, or a run of it goes on; or there is no job server, or it does not take the job.
        StorageError: the job file cannot be read.
        EngineError: the job server cannot be reached any more.
    """
    parsed, origin = read_job(job, overrides)
    output = output_of(parsed, origin)
    jobs = RayJobs(_address(address))
    if running := jobs.runs_of(output.job_name, parsed.output_uri):
        going_on = Submission(jobs, output.job_name, running[0])
        raise JobBusyError(f"the job {output.job_name} goes on as {running[0]} on {jobs.address}. {going_on.how_to_go_on()}")
    found = Submission(jobs, output.job_name, jobs.free_id(output.job_name))
    source = _source_folder(parsed)
    try:
        jobs.submit(found.id, to_members(parsed), name=found.name, workers=workers, restart=restart, source_dir=source)
    except KeyboardInterrupt:
        print(f"{found.id} may have been submitted. {found.how_to_go_on()}", file=sys.stderr)
        raise
    return found


def _address(given: str | None) -> str:
    variables = (os.environ.get(name, "") for name in _ADDRESS_VARIABLES)
    address = given or next((value for value in variables if value.startswith("http")), None)
    if address is None:
        raise ClusterError(
            "--address is missing, and neither RAY_API_SERVER_ADDRESS nor RAY_ADDRESS is a URL; write --address "
            "http://HEAD:8265, where HEAD is the cluster's head node"
        )
    return address


def _source_folder(job: TransformJob) -> Path | None:
    """SourceDir, where it is a folder of this machine; a path that is not here may be one of the cluster's."""
    if job.has_server or job.source_dir is None or "://" in job.source_dir or "::" in job.source_dir:
        return None
    folder = Path(job.source_dir)
    return folder if folder.is_dir() else None


def _without_a_word(submission_id: str, state: RunState) -> str:
    if "No module named rayxform" in state.message:
        remedy = "install rayxform for the `python` that comes first on the PATH of the cluster's nodes"
    elif not state.is_known:
        remedy = "the cluster was started again; submit the job once more, and it goes on from there"
    else:
        remedy = "see its log above; submitting it again goes on from what was written"
    code = "" if state.exit_code is None else f" with exit code {state.exit_code}"
    return f"the run {submission_id} ended{code} without a result: {state.message.strip()}\n{remedy}"
