"""How far a job is, from its state folder alone: while it runs, from any machine, or long after."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

from rayxform.errors import EngineError, JobError
from rayxform.pipeline.file_states import FileState, FileStates
from rayxform.storage.event_log import Event, read_events
from rayxform.storage.lease import Holder, read_holder
from rayxform.storage.publishing import OutputFolder
from rayxform.storage.state import StateFolder

MOST_WARNINGS = 100
MOST_BAD_OBJECTS = 10_000
_POLL_S = 0.1


@dataclass
class JobStatus:
    """What a job's events come to.

    Attributes:
        status: AWS's TransformJobStatus: "InProgress", "Completed", "Failed" or "Stopped".
        message: the failure's reason, who runs the job, or that its run ended without a word; "" if there is nothing to say.
        output_path: S3OutputPath.
        state_path: the state folder.
        files: how many inputs there are.
        files_done: how many outputs are published.
        files_failed: how many inputs failed.
        records: how many records are written.
        total_bytes: the inputs' size.
        input_bytes: how much of it went through the model.
        records_per_second: in the last run, from its first part to its last.
        eta_s: seconds until all bytes are through at that rate; None if that is not known.
        errors: for each kind of error of the last run how many there were, and what the first one said.
        reading_s: seconds of work, summed over tasks and runs, as the three that follow.
        model_s: see above.
        joining_s: see above.
        writing_s: see above.
        retries: how often a request was sent again.
        workers_lost: how many workers ended before their time.
    """

    status: str = "Stopped"
    message: str = ""
    output_path: str = ""
    state_path: str = ""
    files: int = 0
    files_done: int = 0
    files_failed: int = 0
    records: int = 0
    total_bytes: int = 0
    input_bytes: int = 0
    records_per_second: float = 0.0
    eta_s: float | None = None
    errors: list[tuple[str, int, str]] = field(default_factory=list)
    reading_s: float = 0.0
    model_s: float = 0.0
    joining_s: float = 0.0
    writing_s: float = 0.0
    retries: int = 0
    workers_lost: int = 0

    def to_members(self) -> dict[str, Any]:
        """As the JSON object that ``rayxform status --json`` prints."""
        return {
            "TransformJobStatus": self.status,
            "Message": self.message,
            "S3OutputPath": self.output_path,
            "Files": self.files,
            "DoneFiles": self.files_done,
            "FailedFiles": self.files_failed,
            "Records": self.records,
            "RecordsPerSecond": round(self.records_per_second, 3),
            "SecondsLeft": None if self.eta_s is None else round(self.eta_s, 1),
            "Errors": [{"Kind": kind, "Count": count, "Example": example} for kind, count, example in self.errors],
            "Retries": self.retries,
            "WorkersLost": self.workers_lost,
            "ReadingSeconds": round(self.reading_s, 3),
            "ModelSeconds": round(self.model_s, 3),
            "JoiningSeconds": round(self.joining_s, 3),
            "WritingSeconds": round(self.writing_s, 3),
        }


class Summary:
    """Takes events one by one; a summary of a million files takes some thirty megabytes.

    Attributes:
        last: the last event.
        files: what became of each input.
        runs: how often the job was begun.
        created_at: when it was begun first, as Unix time in seconds; None before the first event.
        workers: the pool's size in the last run.
        requests: how many requests were sent.
        output_bytes: how many bytes of output were written.
        warnings: what a user should know, as of the last run, at most MOST_WARNINGS of them.
        bad_objects: keys of inputs with errors, of any run; None when there are more than MOST_BAD_OBJECTS.
    """

    def __init__(self) -> None:
        self.last: Event | None = None
        self.files = FileStates()
        self.runs = 0
        self.created_at: float | None = None
        self.workers = 0
        self.requests = 0
        self.output_bytes = 0
        self.bad_objects: set[str] | None = set()
        self._status = JobStatus()
        self._begin_run()

    def take(self, event: Event) -> None:
        """Note what happened."""
        self.last = event
        if self.created_at is None:
            self.created_at = event.time
        self.files.take(event)
        match event.event:
            case "Plan":
                self.runs += 1
                self._status.files, self._status.total_bytes = event.files or 0, event.input_bytes
                self.files.begin_run(self._status.files)
                self._begin_run()
            case "Start":
                self.workers = event.workers or 0
            case "Part":
                self._take_part(event)
            case "Error":
                self._take_error(event)
            case "Warning" if event.message and len(self.warnings) < MOST_WARNINGS:
                self.warnings.append(event.message)
            case "Retry":
                self._status.retries += 1
            case "WorkerLost":
                self._status.workers_lost += 1
            case "End" if event.status == "Completed":
                self.files.complete()

    def result(self, output: OutputFolder, holder: Holder | None) -> JobStatus:
        """What the events come to.

        Args:
            output: the job's.
            holder: who runs it now.
        """
        status = replace(self._status, output_path=output.url, state_path=output.state_url)
        status.files_done, status.files_failed = self.files.count(FileState.DONE), self.files.count(FileState.FAILED)
        status.records = self.files.records
        status.errors = [(kind, count, example) for kind, (count, example) in self._errors.items()]
        seconds = (self._last_at or 0.0) - (self._first_at or 0.0)
        if seconds > 0:
            status.records_per_second = self._run_records / seconds
            if self._run_bytes:
                status.eta_s = max(status.total_bytes - status.input_bytes, 0) / (self._run_bytes / seconds)
        if holder is not None:
            status.status, status.message = "InProgress", _who(holder)
        elif self.last is not None and self.last.event == "End":
            status.status, status.message = self.last.status or "", self.last.message or ""
        else:
            status.message = "the run ended without a word, as after SIGKILL; the same command goes on from there"
        return status

    def _begin_run(self) -> None:
        self.warnings: list[str] = []
        self._errors: dict[str, tuple[int, str]] = {}
        self._first_at: float | None = None
        self._last_at: float | None = None
        self._run_records = self._run_bytes = 0

    def _take_part(self, event: Event) -> None:
        status = self._status
        self.requests += event.requests
        self.output_bytes += event.output_bytes
        status.input_bytes += event.input_bytes
        status.reading_s += event.reading_s
        status.model_s += event.model_s
        status.joining_s += event.joining_s
        status.writing_s += event.writing_s
        if self._first_at is None:
            # What the first part held was done before it was seen, so it counts for no time.
            self._first_at = event.time
        else:
            self._run_records += event.records
            self._run_bytes += event.input_bytes
        self._last_at = event.time

    def _take_error(self, event: Event) -> None:
        count, example = self._errors.get(event.kind or "", (0, _example(event)))
        self._errors[event.kind or ""] = count + 1, example
        if self.bad_objects is not None and event.object is not None:
            self.bad_objects.add(event.object)
            if len(self.bad_objects) > MOST_BAD_OBJECTS:
                self.bad_objects = None


def _example(event: Event) -> str:
    place = f"{event.object}: record {event.first_record + 1}: " if event.object else ""
    return place + (event.message or "").partition("\n")[0]


def read_status(output: OutputFolder) -> JobStatus:
    """How far a job is.

    Args:
        output: the job's.

    Raises:
        JobError: the job was never run.
        StorageError: its state cannot be read.
    """
    summary = Summary()
    for event in read_events(output.state_url):
        summary.take(event)
    return settle(summary, output)


def settle(summary: Summary, output: OutputFolder) -> JobStatus:
    """What a job's events come to, beside who runs it now.

    Args:
        summary: of its events.
        output: the job's.

    Raises:
        JobError: the job was never run.
        StorageError: its state cannot be read.
    """
    holder = read_holder(output.state_url)
    if summary.last is None and holder is None:
        raise JobError(f"{output.state_url} holds no events: the job was never run, or under another TransformJobName")
    return summary.result(output, holder)


def stop_run(output: OutputFolder, timeout_s: float) -> None:
    """Make the run of a job that goes on end, and wait for it.

    Args:
        output: the job's.
        timeout_s: how long to wait, in seconds.

    Raises:
        JobError: no run of it goes on.
        EngineError: it did not end in time.
        StorageError: its state cannot be read or written.
    """
    holder = read_holder(output.state_url)
    if holder is None:
        raise JobError(f"no run of the job {output.job_name} goes on, says {output.state_url}")
    StateFolder(output).ask_to_stop()
    give_up_at = time.monotonic() + timeout_s
    while (now := read_holder(output.state_url)) is not None and now.id == holder.id:
        if time.monotonic() > give_up_at:
            raise EngineError(f"the run was asked to stop {timeout_s:g} s ago and goes on: {_who(holder)}; end that process")
        time.sleep(_POLL_S)


def _who(holder: Holder) -> str:
    return f"run by process {holder.pid} on host {holder.host}"
