"""What a schema cannot say: rules that span members, and what this release has not built yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rayxform.core.jsonpath import compile_path
from rayxform.core.media import is_csv, is_json, is_json_lines, media_type
from rayxform.errors import JsonPathError, Problem
from rayxform.spec.job import TransformJob

MAX_IN_FLIGHT_MB = 100


def find_problems(job: TransformJob) -> Iterator[Problem]:
    """Every rule that a job of well-formed members breaks."""
    for check in (
        _check_payload,
        _check_strategy,
        _check_model,
        _check_output,
        _check_filters,
        _check_join,
        _check_built,
    ):
        yield from check(job)


def _check_payload(job: TransformJob) -> Iterator[Problem]:
    """AWS API, CreateTransformJob, MaxPayloadInMB: the product is at most 100 MB."""
    at_once = job.max_concurrent_transforms
    if at_once is not None and at_once * job.max_payload_in_mb > MAX_IN_FLIGHT_MB:
        product = f"{at_once} x {job.max_payload_in_mb}"
        yield Problem(
            "MaxConcurrentTransforms x MaxPayloadInMB",
            product,
            f"a product of at most {MAX_IN_FLIGHT_MB}",
            f"Lower MaxPayloadInMB to {MAX_IN_FLIGHT_MB // at_once}, or MaxConcurrentTransforms.",
        )


def _check_strategy(job: TransformJob) -> Iterator[Problem]:
    if job.members.batch_strategy == "MultiRecord" and job.split_type == "None":
        yield Problem(
            "BatchStrategy",
            "MultiRecord",
            "SingleRecord, where SplitType is None and the whole object is one record",
            "Set TransformInput.SplitType to Line, or BatchStrategy to SingleRecord.",
        )


def _check_model(job: TransformJob) -> Iterator[Problem]:
    model = job.members.model
    kinds = [("ModelDataUrl or SourceDir", bool(model.model_data_url or model.source_dir))]
    kinds += [("Endpoint", bool(model.endpoint)), ("Command", bool(model.command))]
    given = [name for name, is_given in kinds if is_given]
    if len(given) != 1:
        yield Problem(
            "Model",
            given or "without a model",
            "one of ModelDataUrl and SourceDir (or both), Endpoint, Command",
            "Write Model.ModelDataUrl: model.tar.gz, or Model.SourceDir: the folder with inference.py.",
        )


def _check_output(job: TransformJob) -> Iterator[Problem]:
    if job.output_uri.rstrip("/") == job.input_uri.rstrip("/"):
        yield Problem(
            "TransformOutput.S3OutputPath",
            job.output_uri,
            "another place than TransformInput.DataSource.S3DataSource.S3Uri",
            "Write the output to a folder of its own; it may lie below the input.",
        )


def _check_filters(job: TransformJob) -> Iterator[Problem]:
    yield from filter_problems({"InputFilter": job.input_filter, "OutputFilter": job.output_filter})


def filter_problems(filters: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the filters of a DataProcessing; values that are no strings are others' to refuse."""
    for member in ("InputFilter", "OutputFilter"):
        expression = filters.get(member)
        try:
            compile_path(expression) if isinstance(expression, str) else None
        except JsonPathError as error:
            yield Problem(f"DataProcessing.{member}", expression, "a JSONPath with AWS's operators", str(error))


def _check_join(job: TransformJob) -> Iterator[Problem]:
    """AWS, "Associate Prediction Results with Input Records"."""
    if not job.join_input:
        return
    content, accept = media_type(job.content_type), media_type(job.effective_accept)
    joinable = is_json_lines(content) or is_json(content) or is_csv(content)
    if not joinable:
        limit = "application/jsonlines, application/json or text/csv, where JoinSource is Input"
        yield Problem("TransformInput.ContentType", job.content_type, limit, "Write the media type of the records.")
    elif content != accept and not (is_json_lines(content) and is_json_lines(accept)):
        limit = f"{content}, the ContentType, where JoinSource is Input"
        yield Problem("TransformOutput.Accept", accept, limit, f"Set Accept to {content}, or JoinSource to None.")
    by_line = is_json_lines(content) or is_csv(content)
    if by_line and job.split_type != "Line":
        limit = f"Line, where JoinSource is Input and ContentType {content}"
        yield Problem("TransformInput.SplitType", job.split_type, limit, "Set SplitType to Line.")
    expected = job.split_type if job.split_type in ("None", "Line") else "Line"
    if job.assemble_with != expected and joinable:
        limit = f"{expected}, the SplitType, where JoinSource is Input"
        yield Problem("TransformOutput.AssembleWith", job.assemble_with, limit, f"Set AssembleWith to {expected}.")


def _check_built(job: TransformJob) -> Iterator[Problem]:
    for path, value, remedy in NOT_BUILT:
        found = value(job)
        if found is not None:
            yield Problem(path, found, "not built yet in this release", remedy)


def _value(found: Any, *not_built: Any) -> Any:
    return found if found in not_built else None


def _csv_processing(job: TransformJob) -> str | None:
    processed = job.join_input or job.input_filter != "$" or job.output_filter != "$"
    return "text/csv" if processed and is_csv(job.content_type) else None


NOT_BUILT: tuple[tuple[str, Callable[[TransformJob], Any], str], ...] = (
    (
        "TransformInput.SplitType",
        lambda job: _value(job.split_type, "RecordIO", "TFRecord"),
        "Use Line, or None for whole objects.",
    ),
    (
        "TransformInput.CompressionType",
        lambda job: _value(job.members.transform_input.compression_type, "Gzip"),
        "Unpack the input with gunzip first.",
    ),
    (
        "TransformInput.DataSource.S3DataSource.S3DataType",
        lambda job: _value(job.members.transform_input.data_source.s3_data_source.s3_data_type, "ManifestFile"),
        "Use S3Prefix with a folder, a prefix or a glob pattern.",
    ),
    ("TransformInput.ContentType", _csv_processing, "Leave filters and JoinSource out, or use JSON Lines."),
    ("Model.Endpoint", lambda job: job.members.model.endpoint, "Use Model.ModelDataUrl or Model.SourceDir."),
    ("Model.Command", lambda job: job.members.model.command, "Use Model.ModelDataUrl or Model.SourceDir."),
    (
        "DataCaptureConfig",
        lambda job: job.members.data_capture_config and "given",
        "Leave it out; inputs and outputs stay where they are.",
    ),
    (
        "Rayxform.Compatibility",
        lambda job: _value(job.members.rayxform.compatibility, "aws"),
        "Leave it out, or use OutputFilter: $.SageMakerOutput for the bare prediction.",
    ),
    (
        "Rayxform.Partition",
        lambda job: job.members.rayxform.partition and "given",
        "Leave it out: one .out for each input.",
    ),
    (
        "Rayxform.OnRecordError",
        lambda job: _value(job.members.rayxform.on_record_error, "skip", "placeholder"),
        "Leave it out: a bad record fails its file; plan lists every bad record.",
    ),
    (
        "Rayxform.Precision",
        lambda job: _value(job.members.rayxform.precision, "bfloat16", "float16"),
        "Leave it out, or convert the model in model_fn.",
    ),
    ("Rayxform.Compile", lambda job: job.members.rayxform.compile or None, "Leave it out, or compile in model_fn."),
    (
        "Rayxform.ModelMicroBatch",
        lambda job: job.members.rayxform.model_micro_batch,
        "Use Rayxform.MaxRecordsPerBatch for smaller requests.",
    ),
)
"""Member, its value in a job if that is not built yet, and what to use instead. It shrinks line by line."""
