"""A job's state folder, read as it grows: the first look reads all of it, each later one only what is new."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from rayxform.errors import StorageError
from rayxform.pages.advice import next_steps
from rayxform.pages.charts import Chart, count, make_chart, merged, n_bytes
from rayxform.pages.errors import ErrorBook
from rayxform.pages.records import RecordBudget
from rayxform.pages.samples import SAMPLES, Sampler
from rayxform.pages.series import Series
from rayxform.pages.settings import settings_of
from rayxform.pages.view import FileGroup, JobView, Sample
from rayxform.pipeline.file_states import NAMED, FileState, NamedFile
from rayxform.pipeline.planning import make_recipe, output_of
from rayxform.pipeline.status import JobStatus, Summary, settle
from rayxform.spec import TransformJob
from rayxform.storage.event_log import Event, EventTail
from rayxform.storage.listing import InputFinder
from rayxform.storage.tailing import LineTail


class History:
    """What a job's page shows, kept between looks; bounded, but for some thirty bytes for each input.

    It may be asked from several threads; each waits for the others.
    """

    def __init__(self, job: TransformJob, origin: str = "job") -> None:
        """Nothing is read yet.

        Args:
            job: the job.
            origin: the job file's name, which names a job that has no TransformJobName.
        """
        self._job = job
        self._output = output_of(job, origin)
        self._lock = threading.Lock()
        self._finder = InputFinder(
            job.input_uri, manifest=job.s3_data_type == "ManifestFile", compressed=job.compression_type != "None"
        )
        self._sampler = Sampler(job, self._output, self._finder)
        recipe = make_recipe(job)
        # Where records are filtered or decompressed, what is sent does not tell how much of the inputs is through.
        self._counts_bytes = recipe.sends_raw_records and job.compression_type == "None"
        # How much longer a record is in its object than in its request: a newline, or a frame's length and checksums.
        frame_bytes = 16 if job.split_type == "TFRecord" and not recipe.keeps_frames else 0
        self._frame_bytes = 1 if job.split_type == "Line" else frame_bytes
        self._events = EventTail(self._output.state_url)
        self._begin()

    def update(self) -> JobView:
        """What there is to show by now.

        Raises:
            JobError: the job was never run.
            StorageError: its state cannot be read.
        """
        with self._lock:
            if self._events.refresh():
                self._begin()
            runs = self._summary.runs
            for event in self._events.read():
                self._take(event)
            if self._summary.runs != runs:
                self._errors.begin_run()
            status = settle(self._summary, self._output)
            self._errors.read()
            self._waiting.read(self._summary)
            self._sample(is_on=status.status == "InProgress")
            return self._view(status)

    def _begin(self) -> None:
        self._summary = Summary()
        self._series = Series()
        self._input_bytes = 0
        self._through = 0
        self._errors = ErrorBook(self._job, self._output.errors_url, self._finder)
        self._waiting = _WaitingNames(f"{self._output.state_url}/inputs.jsonl")
        self._samples: list[Sample] = []
        self._samples_left_out = self._sampler.why_not(set())
        self._sampled_files = 0

    def _take(self, event: Event) -> None:
        self._summary.take(event)
        if event.event == "Plan":
            self._input_bytes = event.input_bytes
        elif event.event == "Part":
            self._through += event.input_bytes + self._frame_bytes * event.requests
        self._series.take(event, self._left())

    def _left(self) -> int:
        files = self._summary.files
        if self._counts_bytes:
            return max(self._input_bytes - self._through, 0) if files.unwritten else 0
        return files.count(FileState.WAITING, FileState.RUNNING)

    def _sample(self, *, is_on: bool) -> None:
        """Look for records to show beside their predictions, until there are enough of them, from the first files.

        While the job goes on only when twice as many files are done: what cannot be shown is not looked at again each time.
        """
        done = self._summary.files.named(FileState.DONE)
        if len(self._samples) >= SAMPLES or len(done) < (self._sampled_files * 2 if is_on else self._sampled_files + 1):
            return
        samples, self._samples_left_out = self._sampler.sample(done, self._summary.bad_objects)
        limit = RecordBudget().limit
        self._samples = [
            replace(one, record=limit(one.record), prediction=limit(one.prediction), output=one.output and limit(one.output))
            for one in samples
        ]
        self._sampled_files = len(done)

    def _view(self, status: JobStatus) -> JobView:
        summary, now = self._summary, time.time()
        is_on = status.status == "InProgress"
        seconds = self._series.running_time(now) if is_on else self._series.end_s
        through = None
        if self._counts_bytes:
            through = max(self._input_bytes - self._left(), 0)
        if not is_on or through is None:
            status.eta_s = None
        groups = self._errors.groups(status)
        return JobView(
            name=self._output.job_name,
            status=status,
            share=self._share(status, through),
            bytes_through=through,
            input_uri=self._job.input_uri,
            created_at=summary.created_at,
            shown_at=now,
            seconds=seconds,
            runs=summary.runs,
            workers=summary.workers,
            requests=summary.requests,
            output_bytes=summary.output_bytes,
            charts=self._charts(seconds),
            files=self._files(),
            errors=groups,
            errors_left_out=self._errors.left_out,
            next_steps=next_steps(self._job, status, groups, self._output.errors_url),
            warnings=tuple(summary.warnings),
            samples=tuple(self._samples),
            samples_left_out=self._samples_left_out,
            settings=settings_of(self._job),
        )

    def _share(self, status: JobStatus, through: int | None) -> float:
        if status.status == "Completed":
            return 1.0
        by_files = (status.files_done + status.files_failed) / status.files if status.files else 0.0
        return min(through / self._input_bytes, 1.0) if through is not None and self._input_bytes else by_files

    def _files(self) -> tuple[FileGroup, ...]:
        files = self._summary.files
        running = FileState.RUNNING, FileState.WRITTEN
        return (
            FileGroup("Failed", files.count(FileState.FAILED), files.named(FileState.FAILED), is_open=True),
            FileGroup("Running", files.count(*running), files.named(*running)[:NAMED]),
            FileGroup("Waiting", files.count(FileState.WAITING), self._waiting.files),
            FileGroup("Done", files.count(FileState.DONE), files.named(FileState.DONE)),
        )

    def _charts(self, end_s: float) -> tuple[Chart, ...]:
        points = self._series.points(end_s)
        ends = [*(point.at_s for point in points[1:]), max(end_s, points[-1].at_s)] if points else []
        rates = merged([(point.at_s, end, point.records_per_s) for point, end in zip(points, ends, strict=True)], _mean_by_time)
        waiting = merged([(point.at_s, end, point.waiting) for point, end in zip(points, ends, strict=True)], _last)
        marks = self._series.run_begins_s
        queue = ("Bytes waiting", n_bytes) if self._counts_bytes else ("Files waiting", count)
        made = (
            make_chart("rate", "Records per second", rates, end_s, marks=marks, show=count),
            make_chart("queue", queue[0], waiting, end_s, marks=marks, show=queue[1]),
        )
        return tuple(chart for chart in made if chart is not None)


def read_view(job: TransformJob, origin: str = "job") -> JobView:
    """What a job's page shows, by one look at its state folder; ``History`` is for several.

    Args:
        job: the job.
        origin: the job file's name, which names a job that has no TransformJobName.

    Raises:
        JobError: the job was never run.
        StorageError: its state cannot be read.
    """
    return History(job, origin).update()


def empty_view(job: TransformJob, origin: str, status: str, message: str) -> JobView:
    """What the page of a job shows that was never run: its settings.

    Args:
        job: the job.
        origin: the job file's name, which names a job that has no TransformJobName.
        status: AWS's TransformJobStatus.
        message: what is said of it.
    """
    output = output_of(job, origin)
    told = JobStatus(status=status, message=message, output_path=output.url, state_path=output.state_url)
    return JobView(
        name=output.job_name,
        status=told,
        share=0.0,
        bytes_through=None,
        input_uri=job.input_uri,
        created_at=None,
        shown_at=time.time(),
        seconds=0.0,
        runs=0,
        workers=0,
        requests=0,
        output_bytes=0,
        charts=(),
        files=(),
        errors=(),
        errors_left_out="",
        next_steps=(),
        warnings=(),
        samples=(),
        samples_left_out="",
        settings=settings_of(job),
    )


class _WaitingNames:
    """The first inputs that wait, by the list of the plan, which is there until the job is complete."""

    def __init__(self, url: str) -> None:
        self._tail = LineTail(url)
        self._decoder = msgspec.json.Decoder(tuple[str, int, str])
        self._next = 0
        self.files: Sequence[NamedFile] = ()

    def read(self, summary: Summary) -> None:
        if self._tail.refresh():
            self._next, self.files = 0, ()
        kept = [file for file in self.files if summary.files.is_waiting(file.file)]
        missing = min(NAMED, summary.files.count(FileState.WAITING)) - len(kept)
        if missing > 0:
            try:
                for line in self._tail.lines():
                    key, size, _ = self._decoder.decode(line)
                    file, self._next = self._next, self._next + 1
                    if summary.files.is_waiting(file):
                        kept.append(NamedFile(file, key, 0, 0, size, None, 0.0))
                        missing -= 1
                        if not missing:
                            break
            except (msgspec.MsgspecError, StorageError):
                missing = 0  # it is being written, or goes as the job is complete; their number is known anyway
        self.files = kept


def _mean_by_time(spans: Sequence[tuple[float, float, float]]) -> float:
    whole = sum(end - begin for begin, end, _ in spans)
    return sum((end - begin) * value for begin, end, value in spans) / whole if whole else spans[-1][2]


def _last(spans: Sequence[tuple[float, float, float]]) -> float:
    return spans[-1][2]
