"""How far a job is, from its state folder alone: while it runs, from any machine, or long after."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from rayxform.errors import EngineError, JobError
from rayxform.storage.event_log import Event, read_events
from rayxform.storage.lease import Holder, read_holder
from rayxform.storage.publishing import OutputFolder
from rayxform.storage.state import StateFolder

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


class _Summary:
    """Takes events one by one."""

    def __init__(self) -> None:
        self.status = JobStatus()
        self.last: Event | None = None
        self._records: dict[int, int] = {}
        self._done: set[int] = set()
        self._failed: set[int] = set()
        self._begin_run()

    def take(self, event: Event) -> None:
        self.last = event
        match event.event:
            case "Plan":
                self.status.files, self.status.total_bytes = event.files or 0, event.input_bytes
                self._failed.clear()
                self._begin_run()
            case "Part" if event.file is not None:
                self._take_part(event, event.file)
            case "FileDone" if event.file is not None:
                self._done.add(event.file)
                self._records[event.file] = event.records
            case "FileFailed" if event.file is not None:
                self._done.discard(event.file)
                self._failed.add(event.file)
            case "Error":
                count, example = self._errors.get(event.kind or "", (0, _example(event)))
                self._errors[event.kind or ""] = count + 1, example
            case "Retry":
                self.status.retries += 1
            case "WorkerLost":
                self.status.workers_lost += 1

    def result(self) -> JobStatus:
        status = self.status
        status.files_done, status.files_failed = len(self._done), len(self._failed)
        status.records = sum(self._records.values())
        status.errors = [(kind, count, example) for kind, (count, example) in self._errors.items()]
        seconds = (self._last_at or 0.0) - (self._first_at or 0.0)
        if seconds > 0:
            status.records_per_second = self._run_records / seconds
            if self._run_bytes:
                status.eta_s = max(status.total_bytes - status.input_bytes, 0) / (self._run_bytes / seconds)
        return status

    def _begin_run(self) -> None:
        self._errors: dict[str, tuple[int, str]] = {}
        self._first_at: float | None = None
        self._last_at: float | None = None
        self._run_records = self._run_bytes = 0

    def _take_part(self, event: Event, file: int) -> None:
        status = self.status
        self._records[file] = self._records.get(file, 0) + event.records
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
    summary = _Summary()
    for event in read_events(output.state_url):
        summary.take(event)
    holder, last = read_holder(output.state_url), summary.last
    if last is None and holder is None:
        raise JobError(f"{output.state_url} holds no events: the job was never run, or under another TransformJobName")
    status = summary.result()
    status.output_path, status.state_path = output.url, output.state_url
    if holder is not None:
        status.status, status.message = "InProgress", _who(holder)
    elif last is not None and last.event == "End":
        status.status, status.message = last.status or "", last.message or ""
    else:
        status.message = "the run ended without a word, as after SIGKILL; the same command goes on from there"
    return status


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
