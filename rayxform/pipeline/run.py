"""The driver: starts the pipeline, publishes each output as soon as its parts are in, and says what the job came to."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rayxform.core.inference_ids import InferenceIds
from rayxform.ending import let_end, terminable
from rayxform.errors import EngineError, RayxformError, StorageError
from rayxform.pipeline.cluster import engine_errors, import_ray_data, quiet_logs, ray_session
from rayxform.pipeline.fingerprint import fingerprint
from rayxform.pipeline.fork_server import ForkServer
from rayxform.pipeline.journal import Journal
from rayxform.pipeline.model_source import ModelFiles
from rayxform.pipeline.planning import Plan
from rayxform.pipeline.pool import Pool
from rayxform.pipeline.publishing import Publisher, make_publisher
from rayxform.pipeline.result import JobResult, Progress, Timings
from rayxform.pipeline.resuming import Resumption, as_known, begin_or_resume
from rayxform.pipeline.room import find_room
from rayxform.pipeline.rows import ErrorEntry, decode_error, error_entry
from rayxform.pipeline.stopping import Stop, watched
from rayxform.pipeline.tracking import FileProgress, FileSet, Tracker
from rayxform.storage.capture import CaptureFolder
from rayxform.storage.lease import take_lease
from rayxform.storage.state import StateFolder

if TYPE_CHECKING:
    from rayxform.pipeline.metrics import Metrics

PARTS_REMOVED_AT_ONCE = 1000
"""As many objects as S3 removes with one request."""


def run_plan(
    plan: Plan,
    *,
    model: ModelFiles | None = None,
    workers: int | None = None,
    address: str | None = None,
    restart: bool = False,
    began_at: float | None = None,
    watch: Callable[[Callable[[], Progress]], Any] | None = None,
    fork_server: ForkServer | None = None,
) -> JobResult:
    """Run a job to its end, from where an earlier run of it was cut short.

    Args:
        plan: the job's plan.
        model: the model's files, as ``check_model`` found them; None to look for them here.
        workers: the size of the actor pool; None for the job's own, or what the cluster suggests.
        address: a Ray cluster's address; None for RAY_ADDRESS, else a Ray of this machine.
        restart: whether to begin anew instead.
        began_at: when the command was given, as Unix time in seconds; None for now.
        watch: called once with a function that tells the progress at any time, from any thread.
        fork_server: what forks the workers of a Ray that is started here; None to have them start one by one.

    Raises:
        ResourceError: the job asks for more than there is.
        JobBusyError: another run of the job is going on.
        PlanChangedError: the job, its model or its input is not what it was when an earlier run was cut short.
        StorageError: the output cannot be written at all.
        EngineError: Ray failed.
    """
    with terminable():
        return _Run(plan, model, began_at or time.time()).run(workers, address, watch, fork_server, restart=restart)


class _Run:
    """One job on its way."""

    def __init__(self, plan: Plan, model: ModelFiles | None, began_at: float) -> None:
        self._plan = plan
        self._model = model
        self._model_digest = ""
        self._state = StateFolder(plan.output)
        self._began_at = began_at
        self._tracker = Tracker(len(plan.inputs))
        self._journal = Journal(plan)
        self._resumption = Resumption()
        self._phase = "starting Ray"
        self._workers = 0
        self._is_unlisted = False
        self._fatal: ErrorEntry | None = None
        self._publish_s = 0.0
        self._complete: dict[int, tuple[int, int]] = {}
        self._published = FileSet(len(plan.inputs))
        self._left_parts: list[str] = []
        self._publisher: Publisher | None = None
        self._metrics: Metrics | None = None
        self._seen_at = time.time()

    def run(
        self,
        workers: int | None,
        address: str | None,
        watch: Callable[[Callable[[], Progress]], Any] | None,
        fork_server: ForkServer | None,
        *,
        restart: bool,
    ) -> JobResult:
        if watch is not None:
            watch(self.progress)
        importing = threading.Thread(target=import_ray_data, daemon=True)
        importing.start()
        lease = take_lease(self._plan.output.state_url, self._plan.output.encryption)
        try:
            self._begin(restart=restart)
            stop = Stop(self._state, lease)
            stopped = False
            try:
                stop.end_if_asked()
                with watched(stop), ray_session(address, fork_server) as there:
                    importing.join()  # not in an import of our own, whose lock an interrupt might leave locked for ever
                    stop.end_if_asked()
                    self._work(find_room(self._plan.job, there, workers, lambda: self._wait_for_nodes(stop)), stop)
            except KeyboardInterrupt:
                stopped = True
            if lease.is_lost:
                raise EngineError("another run took this job over, for this one could not renew its lease; see that one")
            return self._end(stopped)
        except RayxformError as error:
            self._journal.close("Failed", str(error))
            raise
        finally:
            lease.release()

    def _begin(self, *, restart: bool) -> None:
        """Settle what is to be done: everything, or what an earlier run left."""
        ids = self._plan.inference_ids or InferenceIds(str(uuid.uuid4()), self._began_at)
        mark = fingerprint(self._plan.job, ids.run, ids.started_at, self._model)
        self._model_digest = mark.model_digest
        self._plan, self._resumption = begin_or_resume(self._plan, mark, restart=restart)
        self._state.forget_stop()
        self._journal.open(self._resumption.kept_errors)
        self._journal.pass_over(self._resumption.passed_over)
        self._journal.write("Plan", files=len(self._plan.inputs), input_bytes=self._plan.n_bytes)
        self._journal.tell(self._plan.warnings)
        self._tracker.resume_done(self._resumption.done)
        self._published.update(self._resumption.done)
        for file, parts in self._resumption.parts.items():
            self._tracker.resume_parts(file, as_known(parts))

    def _end(self, stopped: bool) -> JobResult:
        self._phase = "clearing up"
        let_end()
        try:
            self._journal.flush()
        except StorageError as error:
            self._is_unlisted = True
            self._journal.note(error_entry(error))
        result = self._result(stopped)
        self._journal.tell(sorted(self._tracker.figures.warnings))
        self._journal.close(result.status, result.failure_reason)
        try:
            if result.status == "Completed":
                self._state.end()
        except StorageError as error:
            self._journal.warn(str(error))
        return replace(result, warnings=(*result.warnings, *self._journal.warnings))

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
            total_bytes=None if self._plan.job.compression_type != "None" else self._bytes_to_do,
            errors=figures.errors + self._journal.bad_records,
            rate_s=now - figures.first_started_at if figures.first_started_at else 0.0,
            idle_s=now - self._seen_at,
        )

    @cached_property
    def _bytes_to_do(self) -> int:
        return sum(one.size for file, one in enumerate(self._plan.inputs) if file not in self._resumption.done)

    def _wait_for_nodes(self, stop: Stop) -> None:
        self._phase = "waiting for nodes"
        stop.end_if_asked()

    def _work(self, pool: Pool, stop: Stop) -> None:
        from rayxform.pipeline.dataset import manifest  # noqa: PLC0415 - see import_ray_data
        from rayxform.pipeline.metrics import Metrics  # noqa: PLC0415

        quiet_logs()
        self._seen_at = time.time()
        self._metrics = Metrics(self._plan.output.job_name)
        self._workers = pool.workers
        self._journal.start(pool.workers, self._tracker.done)
        self._phase = "loading the model"
        self._publisher = make_publisher(self._plan, pool.workers)
        with self._publisher, engine_errors():
            complete = list(self._resumption.complete())
            for file in complete:
                self._publish(file, self._tracker.resume_complete(file, self._resumption.totals[file]), self._publisher)
            without = self._resumption.done.keys() | set(complete)
            # Closed before Ray is: a thread of Ray Data that still asked it for something would end this process.
            pipeline = manifest(
                self._plan, pool, model_digest=self._model_digest, without=without, covered=self._resumption.covered()
            )
            with closing(pipeline) as rows:
                for row in rows:
                    self._seen_at = time.time()
                    self._phase = "running"
                    self._take(row, self._publisher)
                    self._collect(self._publisher, done_only=True)
                    if self._fatal is not None:
                        return
                    stop.end_if_asked()
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
        self._journal.worker(row["events"] or ())
        if self._tracker.is_new(row):
            passed_over = [decode_error(error) for error in row["record_errors"] or ()]
            if not self._list_passed_over(file, passed_over, self._fail):
                return
            self._journal.part(row)
            self._count(row, passed_over)
        progress = self._tracker.take(row)
        if row["error"] is not None:
            self._fail(file, decode_error(row["error"]))
        elif progress is not None:
            self._publish(file, progress, publisher)

    def _count(self, row: dict[str, Any], passed_over: Sequence[ErrorEntry]) -> None:
        if self._metrics is not None:
            self._metrics.part(row)
            self._metrics.errors(len(passed_over))
            self._metrics.waiting(max(self._bytes_to_do - self._tracker.figures.input_bytes, 0))

    def _publish(self, file: int, progress: FileProgress, publisher: Publisher) -> None:
        try:
            parts = progress.written()
        except EngineError as error:
            self._fail_complete(file, error_entry(error, key=self._plan.inputs[file].key))
            return
        self._complete[file] = progress.n_records, sum(n_bytes for _, n_bytes in parts)
        # Before the parts are renamed away, so that a run that finds them gone knows what became of them.
        self._file_event("FileComplete", file)
        publisher.take(file, parts)

    def _file_event(self, event: str, file: int) -> None:
        n_records, n_bytes = self._complete[file]
        self._journal.file(event, file, records=n_records, output_bytes=n_bytes)

    def _list_passed_over(self, file: int, entries: Sequence[ErrorEntry], fail: Callable[[int, ErrorEntry], None]) -> bool:
        """List bad records that OnRecordError lets pass; one that is not listed would be lost, so then the file fails."""
        try:
            self._journal.pass_over(entries)
        except StorageError as error:
            fail(file, error_entry(error))
            return False
        return True

    def _collect(self, publisher: Publisher, *, done_only: bool) -> None:
        """Note what became of publishing."""
        for published in publisher.collect(done_only=done_only):
            file = published.file
            self._seen_at = time.time()
            self._publish_s += published.seconds
            if published.error is not None:
                self._fail_complete(file, published.error)
            elif self._list_passed_over(file, published.passed_over, self._fail_complete):
                self._published.add(file)
                if not publisher.withholds:
                    self._file_event("FileDone", file)
                self._left_parts += published.left_parts
            self._complete.pop(file, None)
        if len(self._left_parts) >= PARTS_REMOVED_AT_ONCE:
            self._remove_left_parts()

    def _remove_left_parts(self) -> None:
        """Parts that a store keeps when they are published; once it is written down that they were."""
        self._journal.flush_events()
        try:
            self._state.remove_parts(self._left_parts)
        except StorageError as error:
            self._journal.warn(str(error))
        self._left_parts.clear()

    def _commit(self, publisher: Publisher) -> None:
        """Make appear what is withheld; in a thread, so that Ctrl-C does not stop half-way but when all of it is there."""
        try:
            with ThreadPoolExecutor(1) as thread:
                thread.submit(publisher.commit).result()
        except StorageError as error:
            self._tracker.fail_all()
            self._journal.note(error_entry(error))

    def _capture(self, publisher: Publisher) -> None:
        """List for Model Monitor what was transformed; a list that cannot be written fails the job, as it was asked for."""
        config = self._plan.job.members.data_capture_config
        if config is None or not self._published or publisher.withholds:
            return
        files = list(self._published)
        capture = CaptureFolder(config.destination_s3_uri, config.kms_key_id, self._began_at)
        try:
            capture.write("input", [self._plan.inputs[file].url for file in files])
            if outputs := publisher.outputs(files):
                capture.write("output", outputs)
        except StorageError as error:
            self._is_unlisted = True
            self._journal.note(error_entry(error))

    def _fail(self, file: int, entry: ErrorEntry) -> None:
        entry.object = entry.object or (None if entry.is_fatal else self._plan.inputs[file].key)
        if entry.is_fatal:
            self._fatal = self._fatal or entry
        self._journal.note(entry)
        if self._metrics is not None:
            self._metrics.errors(1)
        if self._tracker.fail(file) is not None and not entry.is_fatal:
            self._journal.file("FileFailed", file)
            self._leave_out(file)

    def _fail_complete(self, file: int, entry: ErrorEntry) -> None:
        """An input whose parts were complete fails after all."""
        self._tracker.reopen_as_failed()
        self._journal.note(entry)
        self._journal.file("FileFailed", file)
        self._leave_out(file)

    def _leave_out(self, file: int) -> None:
        if self._publisher is None:
            raise AssertionError("what fails has run, for a publisher")
        try:
            self._publisher.fail(file)
        except StorageError as error:
            self._journal.note(error_entry(error, key=self._plan.inputs[file].key))

    def _result(self, stopped: bool) -> JobResult:
        tracker, figures = self._tracker, self._tracker.figures
        done = 0 if self._publisher is not None and self._publisher.withholds else tracker.done
        failed = tracker.failed if self._fatal is None else tracker.n_files - done
        status = "Stopped" if stopped else "Failed" if failed or self._is_unlisted else "Completed"
        return JobResult(
            status=status,
            failure_reason=self._failure_reason(failed) if status == "Failed" else None,
            files=tracker.n_files,
            failed_files=failed,
            done_files=done,
            records=figures.records + self._resumption.n_records,
            resumed_records=self._resumption.n_records,
            requests=figures.requests,
            seconds=time.time() - self._began_at,
            workers=self._workers,
            output_path=self._plan.output.url,
            bad_records=self._journal.bad_records,
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
        first = self._journal.first_error
        if first is None:
            raise AssertionError("a failed file has an error")
        reason = f"{first}\n{first.traceback}".rstrip()
        if first.is_fatal or not failed:
            return reason
        failures = f"{failed} of {self._tracker.n_files} files failed; the first error: {reason}"
        return f"{failures}\nall errors: {self._plan.output.errors_url}"
