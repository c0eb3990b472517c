"""What ``plan`` and ``check`` show: a job's requests without its model, and its model with the first request; without Ray."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

from rayxform.core.assembling import cut_response
from rayxform.core.batching import MiniBatch, Seam
from rayxform.core.comparing import says_the_same
from rayxform.core.naming import data_file_name, output_key
from rayxform.core.partitioning import make_partitioning
from rayxform.errors import JobError, RayxformError, RecordError, ResponseError
from rayxform.pipeline.fingerprint import digest_of, model_digests
from rayxform.pipeline.model_source import arithmetic_of, load_model, request_context
from rayxform.pipeline.planning import ByteRange, Plan
from rayxform.pipeline.reading import NoSeams, read_range
from rayxform.pipeline.rows import Stopwatch
from rayxform.pipeline.writing import finish_response, stamps_of
from rayxform.spec import TransformJob
from rayxform.storage.objects import InputObject
from rayxform.storage.reading import ObjectReader
from rayxform.variables import variables_restored

SHOWN_ERRORS = 20


@dataclass(frozen=True)
class FilePlan:
    """What a job will send of one input.

    Attributes:
        input: its key.
        output: its output's key; of a data set, the pattern of its files in the partitions.
        n_bytes: its size.
        n_records: how many records it holds.
        records_per_request: the records of each request that will be sent, in order.
        errors: what it will meet; a file with an error fails at the first, unless OnRecordError lets it pass.
    """

    input: str
    output: str
    n_bytes: int
    n_records: int
    records_per_request: tuple[int, ...]
    errors: tuple[str, ...]

    def to_members(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "Input": self.input,
            "Output": self.output,
            "Bytes": self.n_bytes,
            "Records": self.n_records,
            "Requests": len(self.records_per_request),
            "RecordsPerRequest": list(self.records_per_request),
            "Error": "\n".join(self.errors) or None,
        }


@dataclass(frozen=True)
class JobPlan:
    """What a job will send.

    Attributes:
        files: each input, in the order of their keys.
        warnings: what a user may not have meant; a sentence each.
    """

    files: tuple[FilePlan, ...]
    warnings: tuple[str, ...] = ()

    @property
    def n_records(self) -> int:
        """Records in all inputs."""
        return sum(one.n_records for one in self.files)

    @property
    def n_requests(self) -> int:
        """Requests for all inputs."""
        return sum(len(one.records_per_request) for one in self.files)

    def to_members(self) -> dict[str, Any]:
        """As the JSON object that ``rayxform plan --json`` prints."""
        files = [one.to_members() for one in self.files]
        return {"Files": files, "Records": self.n_records, "Requests": self.n_requests, "Warnings": list(self.warnings)}


def plan_requests(plan: Plan) -> JobPlan:
    """Read every input and pack it, without sending anything."""
    reader = ObjectReader(plan.inputs)
    files = tuple(_plan_file(plan, file, source, reader) for file, source in enumerate(plan.inputs))
    return JobPlan(files, plan.warnings)


def _plan_file(plan: Plan, file: int, source: InputObject, reader: ObjectReader) -> FilePlan:
    requests: list[int] = []
    errors: list[str] = []
    n_errors = n_records = 0
    try:
        whole = ByteRange(file, source, 0, 0, None)
        for packed in read_range(whole, plan.recipe, NoSeams(), stop_at_error=False, reader=reader):
            if isinstance(packed, RecordError):
                n_errors, n_records = n_errors + 1, packed.record + 1
                errors += [f"record {packed.record + 1} (byte {packed.offset}): {packed.reason}"][: n_errors <= SHOWN_ERRORS]
            elif isinstance(packed, Seam):
                n_records = packed.record
            elif not n_errors or not plan.job.stops_at_bad_record:
                requests.append(packed.n_records)
    except RayxformError as error:
        errors.append(str(error))
    if n_errors > SHOWN_ERRORS:
        errors.append(f"and {n_errors - SHOWN_ERRORS} more records")
    return FilePlan(source.key, _output(plan, source.key), source.size, n_records, tuple(requests), tuple(errors))


def _output(plan: Plan, key: str) -> str:
    """What an input's results are called below S3OutputPath; in a data set a pattern, as partitions are not known yet."""
    if not plan.job.partition_by:
        return output_key(key)
    return f"{make_partitioning(plan.job.partition_by).pattern}/{data_file_name(key, plan.job.partition_extension)}"


@dataclass(frozen=True)
class Comparison:
    """A job's first mini-batch in the precision that it asks for, beside float32.

    Attributes:
        n_predictions: how many predictions were compared.
        n_changed: how many of them say something else (``core.comparing``): another class, or a number off by more than 1 %.
        float32_s: seconds for the request in float32.
    """

    n_predictions: int
    n_changed: int
    float32_s: float

    @property
    def changed_share(self) -> float:
        """The share of changed predictions, 0 to 1."""
        return self.n_changed / self.n_predictions

    def to_members(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "Compared": self.n_predictions,
            "Changed": self.n_changed,
            "ChangedShare": round(self.changed_share, 6),
            "Float32ModelSeconds": round(self.float32_s, 4),
        }


@dataclass(frozen=True)
class CheckReport:
    """What became of a job's first mini-batch.

    Attributes:
        object: the input it came from.
        n_records: how many records it held.
        request: the request's body.
        response: the model's answer.
        output: what would be written of it; of a data set, each record behind its partition and a tab.
        warnings: what a user should know about the model.
        read_s: seconds until the mini-batch was there.
        load_s: seconds for importing inference.py and for model_fn.
        model_s: seconds for the request.
        join_s: seconds for joining and filtering.
        comparison: what Precision changes; None where it is float32.
    """

    object: str
    n_records: int
    request: bytes
    response: bytes
    output: bytes
    warnings: tuple[str, ...]
    read_s: float
    load_s: float
    model_s: float
    join_s: float
    comparison: Comparison | None = None

    def to_members(self) -> dict[str, Any]:
        """As the JSON object that ``rayxform check --json`` prints; bodies as text."""
        return {
            "Object": self.object,
            "Records": self.n_records,
            "Request": self.request.decode("utf-8", "replace"),
            "Response": self.response.decode("utf-8", "replace"),
            "Output": self.output.decode("utf-8", "replace"),
            "Warnings": list(self.warnings),
            "ReadSeconds": round(self.read_s, 4),
            "LoadSeconds": round(self.load_s, 4),
            "ModelSeconds": round(self.model_s, 4),
            "JoinSeconds": round(self.join_s, 4),
            "Precision": None if self.comparison is None else self.comparison.to_members(),
        }


def check_first(plan: Plan, threads: int | None) -> CheckReport:
    """Load the model in this process, or reach or start its server, and run the job's first mini-batch.

    The variables that the model found are gone then: a job that this process runs later would hand them on to its workers.

    Args:
        plan: the job's plan.
        threads: how many threads the model's arithmetic may use; None leaves it to the libraries.

    Raises:
        RecordError: the first record cannot be sent, or its prediction not joined.
        ModelError: the model cannot be loaded, fails, or answers what cannot be cut to records.
        JobError: no input holds a record.
    """
    watch = Stopwatch()
    source, batch = _first_batch(plan)
    payload = bytes(batch.payload)
    read_s = watch.lap()
    job = plan.job
    arithmetic = arithmetic_of(job, "")
    digest = digest_of(model_digests(job)) if arithmetic.is_kept else ""

    def ask(*, in_float32: bool) -> _Asked:
        watch.lap()
        with closing(load_model(job, threads, digest, in_float32=in_float32)) as model:
            about = request_context(job, model.model_dir, source.key, batch.seam.record, batch.n_records)
            if arithmetic.members:  # what is found out, compiled or set up once is no part of a request's time
                model.transform(payload, about.content_type, about.accept, about)
            load_s = watch.lap()
            response = model.transform(payload, about.content_type, about.accept, about).body
            return _Asked(response, model.warnings, load_s, watch.lap())

    with variables_restored():
        asked = ask(in_float32=False)
        comparison = None if job.precision == "float32" else _compare(job, batch.n_records, asked, ask(in_float32=True))
    watch.lap()
    stamp = stamps_of(plan.inference_ids, source.key, batch.seam.record)
    output = b"".join(finish_response(plan.recipe, job, asked.response, batch.n_records, batch.source, stamp=stamp))
    return CheckReport(
        source.key,
        batch.n_records,
        payload,
        asked.response,
        output,
        asked.warnings,
        read_s,
        asked.load_s,
        asked.model_s,
        watch.lap(),
        comparison,
    )


@dataclass(frozen=True)
class _Asked:
    """A model's answer, and what it took."""

    response: bytes
    warnings: tuple[str, ...]
    load_s: float
    model_s: float


def _compare(job: TransformJob, n_records: int, asked: _Asked, in_float32: _Asked) -> Comparison:
    ours, theirs = (_predictions(job, n_records, one.response) for one in (asked, in_float32))
    if len(ours) != len(theirs):  # one of the two responses cannot be cut
        ours, theirs = [asked.response], [in_float32.response]
    n_changed = sum(not says_the_same(one, other) for one, other in zip(ours, theirs, strict=True))
    return Comparison(len(ours), n_changed, in_float32.model_s)


def _predictions(job: TransformJob, n_records: int, response: bytes) -> list[bytes]:
    """One for each record, or the response as a whole where it cannot be cut."""
    try:
        return cut_response(response, n_records, job.effective_accept, multi_record=job.batch_strategy == "MultiRecord")
    except ResponseError:
        return [response]


def _first_batch(plan: Plan) -> tuple[InputObject, MiniBatch]:
    for file, source in enumerate(plan.inputs):
        for packed in read_range(ByteRange(file, source, 0, 0, None), plan.recipe, NoSeams()):
            if isinstance(packed, RecordError):
                raise type(packed)(packed.reason, packed.record, packed.offset, source.key)
            if isinstance(packed, MiniBatch):
                return source, packed
    raise JobError(f"the inputs below {plan.job.input_uri} hold no record, so there is no request to check")
