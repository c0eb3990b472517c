"""What a job came to, and how far it is while it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Timings:
    """Where the time went, in seconds; work is summed over the tasks that did it, so it may exceed the job's own time.

    Attributes:
        start_up_s: from the command to the first mini-batch's start in the model.
        first_mini_batch_s: from the command to the first finished mini-batch.
        steady_s: from the first finished mini-batch to the last.
        steady_records: how many records were finished in that time.
        reading_s: reading, splitting, filtering and packing.
        model_s: the model's own code.
        joining_s: cutting responses, joining and filtering.
        writing_s: writing parts and publishing outputs.
    """

    start_up_s: float = 0.0
    first_mini_batch_s: float = 0.0
    steady_s: float = 0.0
    steady_records: int = 0
    reading_s: float = 0.0
    model_s: float = 0.0
    joining_s: float = 0.0
    writing_s: float = 0.0

    def to_members(self) -> dict[str, float]:
        """As a JSON object."""
        return {
            "StartUpSeconds": round(self.start_up_s, 3),
            "FirstMiniBatchSeconds": round(self.first_mini_batch_s, 3),
            "SteadySeconds": round(self.steady_s, 3),
            "SteadyRecords": self.steady_records,
            "ReadingSeconds": round(self.reading_s, 3),
            "ModelSeconds": round(self.model_s, 3),
            "JoiningSeconds": round(self.joining_s, 3),
            "WritingSeconds": round(self.writing_s, 3),
        }


@dataclass(frozen=True)
class JobResult:
    """What a job came to.

    Attributes:
        status: AWS's TransformJobStatus: "Completed", "Failed" or "Stopped".
        failure_reason: which file failed first, at which record, and why; None unless the job failed.
        files: how many inputs it had.
        failed_files: how many of them failed.
        done_files: how many of them have a complete output.
        records: how many records are in the outputs' parts.
        requests: how many mini-batches reached the model.
        seconds: from the command to the end.
        workers: the size of the actor pool.
        output_path: S3OutputPath.
        timings: where the time went.
        bad_records: how many records OnRecordError let pass; errors.jsonl lists them.
        resumed_records: how many of the records were written by an earlier run that was cut short.
        warnings: what a user should know about the input or the model, though the job ran; a sentence each.
    """

    status: str
    failure_reason: str | None
    files: int
    failed_files: int
    done_files: int
    records: int
    requests: int
    seconds: float
    workers: int
    output_path: str
    timings: Timings = field(default_factory=Timings)
    bad_records: int = 0
    resumed_records: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def records_per_second(self) -> float:
        """Throughput of this run, start-up included."""
        return (self.records - self.resumed_records) / self.seconds if self.seconds else 0.0

    def to_members(self) -> dict[str, Any]:
        """As the JSON object that ``rayxform run --json`` prints."""
        return {
            "TransformJobStatus": self.status,
            "FailureReason": self.failure_reason,
            "Files": self.files,
            "FailedFiles": self.failed_files,
            "Records": self.records,
            "ResumedRecords": self.resumed_records,
            "BadRecords": self.bad_records,
            "Requests": self.requests,
            "Seconds": round(self.seconds, 3),
            "RecordsPerSecond": round(self.records_per_second, 3),
            "Workers": self.workers,
            "S3OutputPath": self.output_path,
            "Timings": self.timings.to_members(),
        }


@dataclass(frozen=True)
class Progress:
    """How far a running job is.

    Attributes:
        phase: what it is doing ("starting Ray").
        seconds: since the command.
        files: how many inputs there are.
        files_done: how many outputs are published.
        files_failed: how many inputs failed.
        records: records in written parts.
        input_bytes: bytes that went through the model.
        total_bytes: the inputs' size; None where they are compressed, so that it is not known.
        errors: how many errors there were.
        rate_s: seconds since the first mini-batch began, the time that rates are counted over.
        idle_s: seconds since anything was finished.
    """

    phase: str
    seconds: float
    files: int = 0
    files_done: int = 0
    files_failed: int = 0
    records: int = 0
    input_bytes: int = 0
    total_bytes: int | None = None
    errors: int = 0
    rate_s: float = 0.0
    idle_s: float = 0.0

    @property
    def records_per_second(self) -> float:
        """Records a second since the first mini-batch began."""
        return self.records / self.rate_s if self.rate_s > 0 else 0.0

    @property
    def megabytes_per_second(self) -> float:
        """Megabytes (10^6 bytes) of requests a second since the first mini-batch began."""
        return self.input_bytes / self.rate_s / 1e6 if self.rate_s > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds until all bytes are through at this rate; None while there is no rate, or no known total."""
        if not self.input_bytes or self.rate_s <= 0 or self.total_bytes is None:
            return None
        return max(self.total_bytes - self.input_bytes, 0) / (self.input_bytes / self.rate_s)


def last_result(log: str) -> Mapping[str, Any] | None:
    """The result in what ``rayxform run --json`` and the cluster printed: the last line that is one; None if there is none."""
    lines = reversed(log.splitlines())
    return next((found for line in lines if (found := result_in(line)) is not None), None)


def result_in(line: str) -> Mapping[str, Any] | None:
    """The JSON object that ``rayxform run --json`` prints last, if the line is it."""
    if not line.startswith('{"TransformJobStatus"'):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
