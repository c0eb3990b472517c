"""The driver: starts the pipeline, publishes each output as soon as its parts are in, and says what the job came to."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import ray.exceptions

from rayxform.errors import EngineError, StorageError
from rayxform.pipeline.cluster import ray_session
from rayxform.pipeline.planning import Plan
from rayxform.pipeline.pool import Pool, plan_pool
from rayxform.pipeline.publishing import OutPublisher, Publisher
from rayxform.pipeline.result import JobResult, Progress, Timings
from rayxform.pipeline.rows import ErrorEntry, decode_error, error_entry
from rayxform.pipeline.tracking import Tracker
from rayxform.storage.capture import CaptureFolder
from rayxform.storage.error_list import ErrorList

LOWEST_PRIORITY = 19


def run_plan(
    plan: Plan,
    *,
    workers: int | None = None,
    address: str | None = None,
    began_at: float | None = None,
    watch: Callable[[Callable[[], Progress]], Any] | None = None,
) -> JobResult:
    """Run a job to its end.

    Args:
        plan: the job's plan.
        workers: the size of the actor pool; None for the job's own, or what the cluster suggests.
        address: a Ray cluster's address; None for RAY_ADDRESS, else a Ray of this machine.
        began_at: when the command was given, as Unix time in seconds; None for now.
        watch: called once with a function that tells the progress at any time, from any thread.

    Raises:
        ResourceError: the job asks for more than there is.
        StorageError: the output cannot be written at all.
        EngineError: Ray failed.
    """
    return _Run(plan, began_at or time.time()).run(workers, address, watch)


class _Run:
    """One job on its way."""

    def __init__(self, plan: Plan, began_at: float) -> None:
        self._plan = plan
        self._began_at = began_at
        self._tracker = Tracker(len(plan.inputs))
        self._phase = "starting Ray"
        self._workers = 0
        self._first_error: ErrorEntry | None = None
        self._bad_records = 0
        self._uncaptured = False
        self._fatal: ErrorEntry | None = None
        self._publish_s = 0.0
        self._errors = ErrorList(plan.output.errors_url)
        self._published: set[int] = set()
        self._publisher: Publisher | None = None
        self._seen_at = time.time()

    def run(self, workers: int | None, address: str | None, watch: Callable[[Callable[[], Progress]], Any] | None) -> JobResult:
        if watch is not None:
            watch(self.progress)
        threading.Thread(target=_import_ray_data, daemon=True).start()
        stopped = False
        try:
            with ray_session(address) as there, _terminable():
                job = self._plan.job
                pool = plan_pool(
                    there,
                    workers=workers or job.workers,
                    cpus_per_worker=job.cpus_per_worker,
                    gpus_per_worker=job.gpus_per_worker,
                    memory_per_worker_bytes=job.memory_per_worker_bytes,
                    server="Endpoint" if job.endpoint else "Command" if job.command else None,
                    requests_per_worker=job.requests_per_worker,
                )
                self._workers = pool.workers
                self._plan.output.begin()
                self._phase = "loading the model"
                self._drive(pool)
        except KeyboardInterrupt:
            stopped = True
        self._errors.flush()
        self._plan.output.end()
        return self._result(stopped)

    def progress(self) -> Progress:
        """How far the job is."""
        now, figures = time.time(), self._tracker.figures
        return Progress(
            phase=self._phase,
            seconds=now - self._began_at,
            files=self._tracker.n_files,
            files_done=self._tracker.done,
            files_failed=self._tracker.failed,
            records=figures.records,
            input_bytes=figures.input_bytes,
            total_bytes=None if self._plan.job.compression_type != "None" else self._plan.n_bytes,
            errors=figures.errors + self._bad_records,
            rate_s=now - figures.first_started_at if figures.first_started_at else 0.0,
            idle_s=now - self._seen_at,
        )

    def _drive(self, pool: Pool) -> None:
        from rayxform.pipeline.dataset import manifest  # noqa: PLC0415 - see run

        self._publisher = _make_publisher(self._plan, pool)
        with self._publisher, _engine_errors():
            for row in manifest(self._plan, pool):
                self._seen_at = time.time()
                self._phase = "running"
                self._take(row, self._publisher)
                self._collect(self._publisher, done_only=True)
                if self._fatal is not None:
                    return
            self._phase = "writing the data set" if self._publisher.withholds else self._phase
            self._collect(self._publisher, done_only=False)
            self._check_all_ended()
            self._commit(self._publisher)
            self._capture(self._publisher)

    def _check_all_ended(self) -> None:
        if self._tracker.unfinished:
            names = ", ".join(self._plan.inputs[file].key for file in self._tracker.unfinished[:5])
            raise EngineError(f"the pipeline ended before these inputs were complete: {names}; run the job again")

    def _take(self, row: dict[str, Any], publisher: Publisher) -> None:
        file = row["file"]
        passed_over = [decode_error(error) for error in row["record_errors"] or ()] if self._tracker.is_new(row) else []
        if not self._list_passed_over(file, passed_over, self._fail):
            return
        progress = self._tracker.take(row)
        if row["error"] is not None:
            self._fail(file, decode_error(row["error"]))
        elif progress is not None:
            try:
                publisher.take(file, progress.written())
            except EngineError as error:
                self._fail_complete(file, error_entry(error, key=self._plan.inputs[file].key))

    def _list_passed_over(self, file: int, entries: Sequence[ErrorEntry], fail: Callable[[int, ErrorEntry], None]) -> bool:
        """List bad records that OnRecordError lets pass; one that is not listed would be lost, so then the file fails."""
        try:
            for entry in entries:
                self._errors.append(entry)
        except StorageError as error:
            fail(file, error_entry(error))
            return False
        self._bad_records += len(entries)
        return True

    def _collect(self, publisher: Publisher, *, done_only: bool) -> None:
        """Note what became of publishing."""
        for published in publisher.collect(done_only=done_only):
            self._seen_at = time.time()
            self._publish_s += published.seconds
            if published.error is not None:
                self._fail_complete(published.file, published.error)
            elif self._list_passed_over(published.file, published.passed_over, self._fail_complete):
                self._published.add(published.file)

    def _commit(self, publisher: Publisher) -> None:
        """Make appear what is withheld; in a thread, so that Ctrl-C does not stop half-way but when all of it is there."""
        try:
            with ThreadPoolExecutor(1) as thread:
                thread.submit(publisher.commit).result()
        except StorageError as error:
            self._tracker.fail_all()
            self._note(error_entry(error))

    def _capture(self, publisher: Publisher) -> None:
        """List for Model Monitor what was transformed; a list that cannot be written fails the job, as it was asked for."""
        config = self._plan.job.members.data_capture_config
        if config is None or not self._published or publisher.withholds:
            return
        files = sorted(self._published)
        capture = CaptureFolder(config.destination_s3_uri, config.kms_key_id, self._began_at)
        try:
            capture.write("input", [self._plan.inputs[file].url for file in files])
            if outputs := publisher.outputs(files):
                capture.write("output", outputs)
        except StorageError as error:
            self._uncaptured = True
            self._note(error_entry(error))

    def _fail(self, file: int, entry: ErrorEntry) -> None:
        entry.object = entry.object or (None if entry.is_fatal else self._plan.inputs[file].key)
        if entry.is_fatal:
            self._fatal = self._fatal or entry
        self._note(entry)
        if self._tracker.fail(file) is not None and not entry.is_fatal:
            self._leave_out(file)

    def _fail_complete(self, file: int, entry: ErrorEntry) -> None:
        """An input whose parts were complete fails after all."""
        self._tracker.reopen_as_failed()
        self._note(entry)
        self._leave_out(file)

    def _leave_out(self, file: int) -> None:
        if self._publisher is None:
            raise AssertionError("what fails has run, for a publisher")
        try:
            self._publisher.fail(file)
        except StorageError as error:
            self._note(error_entry(error, key=self._plan.inputs[file].key))

    def _note(self, entry: ErrorEntry) -> None:
        if self._first_error is None:
            self._first_error = entry
        try:
            self._errors.append(entry)
        except StorageError as error:
            # The device that took no output takes no list of errors either; the reason still says both.
            self._first_error.message += f" (and {error})" if self._first_error is entry else ""

    def _result(self, stopped: bool) -> JobResult:
        tracker, figures = self._tracker, self._tracker.figures
        done = 0 if self._publisher is not None and self._publisher.withholds else tracker.done
        failed = tracker.failed if self._fatal is None else tracker.n_files - done
        status = "Stopped" if stopped else "Failed" if failed or self._uncaptured else "Completed"
        return JobResult(
            status=status,
            failure_reason=self._failure_reason(failed) if status == "Failed" else None,
            files=tracker.n_files,
            failed_files=failed,
            done_files=done,
            records=figures.records,
            requests=figures.requests,
            seconds=time.time() - self._began_at,
            workers=self._workers,
            output_path=self._plan.output.url,
            bad_records=self._bad_records,
            warnings=(*self._plan.warnings, *sorted(figures.warnings)),
            timings=Timings(
                start_up_s=(figures.first_started_at or time.time()) - self._began_at,
                first_mini_batch_s=(figures.first_finished_at or time.time()) - self._began_at,
                steady_s=figures.steady_s,
                steady_records=figures.steady_records,
                reading_s=figures.read_s,
                model_s=figures.model_s,
                joining_s=figures.join_s,
                writing_s=figures.write_s + self._publish_s,
            ),
        )

    def _failure_reason(self, failed: int) -> str:
        first = self._first_error
        if first is None:
            raise AssertionError("a failed file has an error")
        reason = f"{first}\n{first.traceback}".rstrip()
        if first.is_fatal or not failed:
            return reason
        failures = f"{failed} of {self._tracker.n_files} files failed; the first error: {reason}"
        return f"{failures}\nall errors: {self._plan.output.errors_url}"


def _make_publisher(plan: Plan, pool: Pool) -> Publisher:
    if not plan.job.partition_by:
        return OutPublisher(plan)
    from rayxform.pipeline.partitioning import DatasetPublisher  # noqa: PLC0415 - other jobs need nothing of it

    return DatasetPublisher(plan, pool.workers)


def _import_ray_data() -> None:
    """Import Ray Data while Ray starts as processes of its own: half a second of what they leave of the cores.

    A Ray that registers its node within a second is found at once, else at the next second; so this must not be in its way.
    """
    if sys.platform == "linux":  # where priorities are a thread's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
    importlib.import_module("rayxform.pipeline.dataset")


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the job as Ctrl-C does; ray.init sets a handler of its own, so this comes after it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _engine_errors() -> Iterator[None]:
    """The one place where Ray's exceptions become rayxform's."""
    try:
        yield
    except ray.exceptions.RayError as error:
        raise EngineError(f"Ray failed: {type(error).__name__}: {error}") from error
