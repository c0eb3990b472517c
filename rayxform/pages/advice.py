"""What to do next, in words: by a job's status, and by the kinds of its errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rayxform.pages.view import ErrorGroup
from rayxform.pipeline.status import JobStatus
from rayxform.spec import TransformJob

_RECORD_KINDS = frozenset({"RecordError", "RecordTooLargeError", "InvocationError", "ResponseError"})
_REMEDIES = {
    "RecordError": "Mend these records in their inputs, or let them pass with `Rayxform.OnRecordError`.",
    "RecordTooLargeError": "Raise MaxPayloadInMB (100 at most, 0 for no limit), send less of a record with InputFilter, "
    "or let these records pass with `Rayxform.OnRecordError`.",
    "FrameError": "Nothing behind a damaged frame can be read: write the input again.",
    "InvocationError": "The traceback shows the line of `inference.py`. Mend the record if it is at fault, or let it pass with "
    "`Rayxform.OnRecordError`. A run goes on only with the model it began with: after a change of the model begin anew "
    "with `--restart`.",
    "ResponseError": "Let output_fn return one prediction for each record of its request: a line, or an element of an array. "
    "After a change of the model begin anew with `--restart`.",
    "ModelLoadError": "The model does not load, so no request can succeed: `rayxform check JOB` loads it here, without Ray, "
    "and shows where it fails.",
    "StorageError": "Do what the message says; then the same command goes on.",
    "EngineError": "Give the same command again: it goes on from what is written.",
}


def remedy_of(kind: str) -> str:
    """What to do about errors of a class of rayxform's exceptions."""
    return _REMEDIES.get(kind, "This may be a defect of rayxform: the traceback shows where.")


def next_steps(job: TransformJob, status: JobStatus, errors: Sequence[ErrorGroup], errors_url: str) -> tuple[str, ...]:
    """What to do now; a sentence each.

    Args:
        job: the job.
        status: how far it is.
        errors: its errors.
        errors_url: where all of them are listed.
    """
    return tuple(_steps(job, status, errors, errors_url))


def _steps(job: TransformJob, status: JobStatus, errors: Sequence[ErrorGroup], errors_url: str) -> Iterator[str]:
    n_errors = sum(group.count for group in errors)
    if status.status == "Stopped":
        yield "Give the same command again (`rayxform run JOB`): it goes on from what is written."
    elif status.status == "Failed":
        yield (
            "Do what is said below of each kind of error, then give the same command again (`rayxform run JOB`): files that "
            "are done stay as they are, the others are run."
        )
        if job.stops_at_bad_record and any(group.kind in _RECORD_KINDS for group in errors):
            yield (
                "Or let bad records pass: `rayxform run JOB --set Rayxform.OnRecordError=skip` leaves them out, "
                '`placeholder` puts `{"error": …}` in their place.'
            )
    elif n_errors and not job.stops_at_bad_record:
        passed = "left out" if job.on_record_error == "skip" else 'replaced by `{"error": …}`'
        yield f"Bad records were {passed} (`Rayxform.OnRecordError: {job.on_record_error}`)."
    if n_errors:
        yield f"Every error is listed in `{errors_url}`"
