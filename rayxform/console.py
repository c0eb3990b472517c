"""What a person sees: progress while a job runs, and tables afterwards. On stderr, so that stdout stays for data."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rayxform.pipeline.inspecting import CheckReport, JobPlan
from rayxform.pipeline.result import JobResult, Progress
from rayxform.pipeline.status import JobStatus

PLAIN_INTERVAL_S = 10.0
IDLE_S = 30.0
_EXCERPT = 400


@contextmanager
def showing_progress() -> Iterator[Callable[[Callable[[], Progress]], None]]:
    """Show a job's progress for as long as the context lasts: live on a terminal, else a line every 10 seconds.

    Yields:
        A function to be called with the one that tells the progress.
    """
    console = Console(stderr=True)
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def watch(tell: Callable[[], Progress]) -> None:
        show = _show_live if console.is_terminal else _show_lines
        threads.append(threading.Thread(target=show, args=(console, tell, ended), daemon=True))
        threads[-1].start()

    try:
        yield watch
    finally:
        ended.set()
        for thread in threads:
            with suppress(RuntimeError):  # an interrupt came while it was started
                thread.join()


def _show_live(console: Console, tell: Callable[[], Progress], ended: threading.Event) -> None:
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while not ended.wait(0.25):
            live.update(Text(progress_line(tell())))


def _show_lines(console: Console, tell: Callable[[], Progress], ended: threading.Event) -> None:
    while not ended.wait(PLAIN_INTERVAL_S):
        console.print(progress_line(tell()), soft_wrap=True, highlight=False)


def progress_line(now: Progress) -> str:
    """One line on how far a job is, and why nothing happens if nothing does."""
    if now.phase != "running":
        line = f"{now.phase} ({now.seconds:.0f} s)"
    else:
        line = (
            f"{now.files_done}/{now.files} files, {now.records:,} records, {now.records_per_second:,.0f} records/s, "
            f"{now.megabytes_per_second:,.1f} MB/s, {_remaining(now.eta_s)}, {now.errors} errors"
        )
    if now.idle_s > IDLE_S:
        waits = {
            "starting Ray": "Ray has not answered; see its logs below /tmp/ray/session_latest/logs",
            "waiting for nodes": "the cluster has no room for the workers yet, and its autoscaler was asked for more",
            "loading the model": "model_fn has not returned, a server not answered /ping, or there is no room for a worker yet",
            "clearing up": "the state folder of many inputs is being emptied",
            "writing the data set": "the records of a large input are being sorted into its partitions",
        }
        cause = waits.get(now.phase, "every worker is busy with one mini-batch; a smaller MaxPayloadInMB shows more")
        line += f"; nothing finished for {now.idle_s:.0f} s: {cause}"
    return line


def _remaining(eta_s: float | None) -> str:
    if eta_s is None:
        return "time left unknown"
    minutes, seconds = divmod(round(eta_s), 60)
    return f"{minutes} min {seconds:02d} s left" if minutes else f"{seconds} s left"


def show_result(result: JobResult) -> None:
    """The closing summary: what came out, and where the time went."""
    console = Console(stderr=True)
    colour = {"Completed": "green", "Failed": "red", "Stopped": "yellow"}[result.status]
    console.print(
        f"[bold {colour}]{result.status}[/]: {result.done_files} of {result.files} files, "
        f"{result.records:,} records in {result.requests:,} requests, {result.seconds:.1f} s "
        f"({result.records_per_second:,.0f} records/s), {result.workers} workers",
        highlight=False,
    )
    times = result.timings
    if result.bad_records:
        listed = f"{result.output_path.rstrip('/')}/.rayxform/"
        console.print(
            f"[yellow]{result.bad_records:,} bad records[/] were let pass; errors.jsonl below {listed} lists them",
            soft_wrap=True,
        )
    if result.records:
        console.print(
            f"first mini-batch after {times.first_mini_batch_s:.1f} s ({times.start_up_s:.1f} s of it start-up); "
            f"work, summed over tasks: reading {times.reading_s:.1f} s, model {times.model_s:.1f} s, "
            f"joining {times.joining_s:.1f} s, writing {times.writing_s:.1f} s",
            highlight=False,
        )
    for warning in result.warnings:
        console.print(f"[yellow]warning[/]: {warning}", highlight=False, soft_wrap=True)
    if result.failure_reason:
        console.print(result.failure_reason, markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(f"output: {result.output_path}", markup=False, highlight=False, soft_wrap=True)


def show_status(status: JobStatus) -> None:
    """How far a job is; to stdout."""
    console = Console(highlight=False)
    colour = {"Completed": "green", "Failed": "red", "Stopped": "yellow"}.get(status.status, "blue")
    console.print(
        f"[bold {colour}]{status.status}[/]: {status.files_done} of {status.files} files, {status.files_failed} failed, "
        f"{status.records:,} records, {status.records_per_second:,.0f} records/s"
        + (f", {_remaining(status.eta_s)}" if status.status == "InProgress" else "")
    )
    console.print(
        f"work, summed over tasks: reading {status.reading_s:.1f} s, model {status.model_s:.1f} s, "
        f"joining {status.joining_s:.1f} s, writing {status.writing_s:.1f} s"
    )
    for kind, count, example in status.errors:
        console.print(f"{count:,} {kind}, the first: {example}", markup=False, soft_wrap=True)
    for name, line in (("", status.message), ("output: ", status.output_path), ("state: ", status.state_path)):
        if line:
            console.print(name + line, markup=False, soft_wrap=True)


def show_plan(plan: JobPlan) -> None:
    """A table of the inputs and what will be sent of each; to stdout."""
    console = Console()
    table = Table("Input", "Output", "Bytes", "Records", "Requests", "Records per request", "Error")
    for file in plan.files:
        sizes = ", ".join(map(str, file.records_per_request[:8])) + (", …" if len(file.records_per_request) > 8 else "")
        row = (
            file.input,
            file.output,
            f"{file.n_bytes:,}",
            f"{file.n_records:,}",
            f"{len(file.records_per_request):,}",
        )
        table.add_row(*(Text(cell) for cell in (*row, sizes, "\n".join(file.errors))))
    console.print(table)
    console.print(f"{plan.n_records:,} records in {plan.n_requests:,} requests", highlight=False)
    for warning in plan.warnings:
        console.print(f"[yellow]warning[/]: {warning}", highlight=False, soft_wrap=True)


def show_check(report: CheckReport) -> None:
    """The first mini-batch on its way through the model; to stdout."""
    console = Console(highlight=False)
    console.print(
        f"{report.object}: the first mini-batch, {report.n_records} records, {len(report.request):,} bytes",
        markup=False,
    )
    for name, body in (("request", report.request), ("response", report.response), ("output", report.output)):
        text = body[: _EXCERPT + 1].decode("utf-8", "replace")
        shown = text if len(body) <= _EXCERPT else text[:_EXCERPT] + f"… ({len(body):,} bytes in all)"
        console.print(f"[bold]{name}[/]")
        console.print(shown, markup=False, soft_wrap=True)
    for warning in report.warnings:
        console.print(f"[yellow]warning[/]: {warning}")
    console.print(
        f"reading {report.read_s:.3f} s, loading the model {report.load_s:.3f} s, model {report.model_s:.3f} s "
        f"({report.n_records / max(report.model_s, 1e-9):,.0f} records/s), joining {report.join_s:.3f} s"
    )
    if (comparison := report.comparison) is not None:
        console.print(
            f"in float32 the model takes {comparison.float32_s:.3f} s, and {comparison.n_changed:,} of "
            f"{comparison.n_predictions:,} predictions are other ones ({comparison.changed_share:.2%})"
        )
    sys.stdout.flush()
