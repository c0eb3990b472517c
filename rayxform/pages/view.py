"""What a page shows: plain values, gathered before anything is rendered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rayxform.pages.charts import Chart
from rayxform.pages.records import RecordView
from rayxform.pipeline.file_states import NamedFile
from rayxform.pipeline.rows import ErrorEntry
from rayxform.pipeline.status import JobStatus


@dataclass(frozen=True)
class Action:
    """A button: what it says, and the URL that it posts to."""

    label: str
    url: str


@dataclass(frozen=True)
class JobLine:
    """A job in the list of jobs.

    Attributes:
        name: TransformJobName.
        status: AWS's TransformJobStatus.
        created_at: as Unix time in seconds.
        seconds: how long it has run, or ran; None if that is not known.
        files: how many inputs it has; None if that is not known.
        files_done: how many outputs are published.
        records: how many records are written; None if that is not known.
    """

    name: str
    status: str
    created_at: float
    seconds: float | None = None
    files: int | None = None
    files_done: int = 0
    records: int | None = None


@dataclass(frozen=True)
class FileGroup:
    """The inputs of one state: how many there are, and the first of them."""

    name: str
    count: int
    files: Sequence[NamedFile]
    is_open: bool = False


@dataclass(frozen=True)
class ShownError:
    """An error with the record that it is about.

    Attributes:
        entry: the line of errors.jsonl.
        record: the record; None where the error is about none.
    """

    entry: ErrorEntry
    record: RecordView | None


@dataclass(frozen=True)
class ErrorGroup:
    """The errors of one kind.

    Attributes:
        kind: the exception's class.
        count: how many there are.
        example: what the first one says.
        remedy: what to do about them.
        errors: the first ones.
    """

    kind: str
    count: int
    example: str
    remedy: str
    errors: Sequence[ShownError]


@dataclass(frozen=True)
class Sample:
    """A record beside its prediction.

    Attributes:
        key: the input's key.
        number: the record's number, from 1.
        record: the record.
        prediction: what the model said of it.
        output: all that was written of it, where that is more.
    """

    key: str
    number: int
    record: RecordView
    prediction: RecordView
    output: RecordView | None = None


@dataclass(frozen=True)
class JobView:
    """Everything that a job's page shows.

    Attributes:
        name: TransformJobName.
        status: what its events come to.
        share: how much of it is done, from 0 to 1.
        bytes_through: how many bytes of the inputs went through the model; None where what is sent says nothing of that.
        input_uri: S3Uri.
        created_at: when it was begun first, as Unix time in seconds; None before its first event.
        shown_at: when this was gathered.
        seconds: how long it has run, without pauses between runs.
        runs: how often it was begun.
        workers: the pool's size in the last run.
        requests: how many requests were sent.
        output_bytes: how many bytes of output were written.
        charts: what happened over time.
        files: its inputs by state.
        errors: its errors by kind.
        errors_left_out: why errors or their records are missing; "" if none are.
        next_steps: what to do now; a sentence each.
        warnings: what a user should know; a sentence each.
        samples: records beside their predictions.
        samples_left_out: why there are none, or not more; "" if there is nothing to say.
        settings: the job's members by their paths.
    """

    name: str
    status: JobStatus
    share: float
    bytes_through: int | None
    input_uri: str
    created_at: float | None
    shown_at: float
    seconds: float
    runs: int
    workers: int
    requests: int
    output_bytes: int
    charts: Sequence[Chart]
    files: Sequence[FileGroup]
    errors: Sequence[ErrorGroup]
    errors_left_out: str
    next_steps: Sequence[str]
    warnings: Sequence[str]
    samples: Sequence[Sample]
    samples_left_out: str
    settings: Sequence[tuple[str, str]]

    @property
    def work(self) -> Sequence[tuple[str, float]]:
        """Where the time went: seconds of work, summed over tasks."""
        status = self.status
        return (
            ("reading", status.reading_s),
            ("model", status.model_s),
            ("joining", status.joining_s),
            ("writing", status.writing_s),
        )
