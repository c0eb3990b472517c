"""Rules that span members (contract §1).

A rule says which members it reads. Where one of them is itself wrong, the rule stays silent: what it would say follows
from a default that the user did not choose.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rayxform.core.csv_joining import compile_positions
from rayxform.core.example_joining import compile_features
from rayxform.core.jsonpath import AWS_OPERATORS, JsonPath, compile_path
from rayxform.core.media import is_csv, is_json, is_json_lines
from rayxform.core.partitioning import make_partitioning
from rayxform.errors import JsonPathError, Problem
from rayxform.spec.job import TransformJob, to_members
from rayxform.spec.problems import shown

_SPLIT = "TransformInput.SplitType"
_CONTENT_TYPE = "TransformInput.ContentType"
_S3_DATA_SOURCE = "TransformInput.DataSource.S3DataSource"
_ACCEPT = "TransformOutput.Accept"
_ASSEMBLE = "TransformOutput.AssembleWith"
_OUTPUT = "TransformOutput.S3OutputPath"
_CAPTURE = "DataCaptureConfig.DestinationS3Uri"
_FILTERS = ("DataProcessing.InputFilter", "DataProcessing.OutputFilter")
_JOIN = "DataProcessing.JoinSource"
_COMPATIBILITY = "Rayxform.Compatibility"
_PARTITION_BY = "Rayxform.Partition.By"
_ENVIRONMENTS = ("Environment", "Model.Environment")

_TOTAL_PAYLOAD_MB = 100
_AWS_FILTER_LENGTH = 63
_AWS_FILTER_OPERATORS = "$[]*. ,:-'"


def check_job(job: TransformJob, wrong: Iterable[str] = ()) -> list[Problem]:
    """Find what is wrong with a job whose members are valid one by one.

    Args:
        job: the job.
        wrong: paths of members that were not valid and got a default or an example in their place; rules that read them
            are left out.
    """
    wrong = list(wrong)
    found: list[Problem] = []
    for rule in _RULES:
        if not any(_overlap(ours, theirs) for ours in rule.reads for theirs in wrong):
            found.extend(rule.find(job))
    return found


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _given(job: TransformJob, path: str) -> object:
    """What the job file says at a path, or None."""
    value: Any = to_members(job)
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return shown(value)


def _check_payload(job: TransformJob) -> Iterator[Problem]:
    concurrent = job.max_concurrent_transforms or 0
    if concurrent * job.max_payload_in_mb > _TOTAL_PAYLOAD_MB:
        product = f"{shown(concurrent)} x {job.max_payload_in_mb}"
        limit = f"a product of at most {_TOTAL_PAYLOAD_MB} with MaxPayloadInMB ({product})"
        remedy = f"Write {_TOTAL_PAYLOAD_MB // job.max_payload_in_mb} or less, or lower MaxPayloadInMB."
        yield Problem("MaxConcurrentTransforms", shown(concurrent), limit, remedy)


def _check_strategy(job: TransformJob) -> Iterator[Problem]:
    if job.members.batch_strategy == "MultiRecord" and job.split_type == "None":
        limit = "SingleRecord while SplitType is None, where the whole object is one record"
        yield Problem(
            "BatchStrategy", "MultiRecord", limit, 'Set TransformInput.SplitType to "Line", or leave BatchStrategy out.'
        )


def _check_output(job: TransformJob) -> Iterator[Problem]:
    if _same_place(job.output_uri) == _same_place(job.input_uri):
        remedy = f"Write {job.output_uri.rstrip('/')}-output, for example."
        yield Problem(_OUTPUT, job.output_uri, f"another place than S3Uri, {job.input_uri}", remedy)


def _check_keys(job: TransformJob) -> Iterator[Problem]:
    capture = job.members.data_capture_config
    places = [(_OUTPUT, job.output_uri, job.kms_key_id)]
    places += [(_CAPTURE, capture.destination_s3_uri, capture.kms_key_id)] if capture else []
    for path, url, key in places:
        if key and not _same_place(url).startswith("s3://"):
            limit = f"a place on s3://, where KMS encrypts, beside it; it is {url}"
            yield Problem(f"{path.rpartition('.')[0]}.KmsKeyId", key, limit, "Remove KmsKeyId, or write to S3.")


def _check_inference_id(job: TransformJob) -> Iterator[Problem]:
    """An id needs a row of CSV or an object to be put in, which an answer that is written as it is need not be."""
    kind = _format(job.effective_accept)
    if not job.generate_inference_id or kind == "CSV" or (kind and (job.join_input or job.compatibility == "seed")):
        return
    limit = f"false where results are {job.effective_accept} without a join" if not kind else "false without a join"
    yield Problem("DataCaptureConfig.GenerateInferenceId", True, limit, 'Set DataProcessing.JoinSource to "Input".')


def _same_place(location: str) -> str:
    """One spelling for all URLs of a place: s3a:// and s3n:// are Hadoop's names of s3://, file:// is a plain path."""
    location = re.sub(r"^(file|local)://(localhost(?=/))?", "", location, flags=re.IGNORECASE)
    location = re.sub(r"^s3[an]?://", "s3://", location, flags=re.IGNORECASE)
    return location.rstrip("/")


def _check_model(job: TransformJob) -> Iterator[Problem]:
    model = job.members.model
    ways = [bool(model.model_data_url or model.source_dir), bool(model.endpoint), bool(model.command)]
    if sum(ways) != 1:
        limit = "exactly one of ModelDataUrl (with or without SourceDir; SourceDir alone is enough), Endpoint and Command"
        remedy = "Add ModelDataUrl, a model.tar.gz or a folder." if not any(ways) else "Keep one of them and remove the others."
        yield Problem("Model", _given(job, "Model"), limit, remedy)


def _check_command(job: TransformJob) -> Iterator[Problem]:
    try:
        words = shlex.split(job.command or "a program")
    except ValueError as error:
        yield Problem("Model.Command", shown(job.command), "words, quoted as in a shell", f"Look at the quotes: {error}.")
        return
    if not words:
        yield Problem("Model.Command", shown(job.command), "a program and its arguments", "Name the program.")


def _check_filters(job: TransformJob) -> Iterator[Problem]:
    for path, expression in zip(_FILTERS, (job.input_filter, job.output_filter), strict=True):
        try:
            compile_path(expression)
        except JsonPathError as error:
            yield Problem(path, expression, f"JSONPath with {AWS_OPERATORS}", str(error))


def _check_example_filter(job: TransformJob) -> Iterator[Problem]:
    if job.holds_examples:
        yield from _unfit(_FILTERS[0], job.input_filter, compile_features, "features, for tf.train.Example")


def _check_csv_filters(job: TransformJob) -> Iterator[Problem]:
    sides = ((job.input_filter, job.content_type), (job.output_filter, job.effective_accept))
    for path, (expression, media) in zip(_FILTERS, sides, strict=True):
        if is_csv(media):
            yield from _unfit(path, expression, compile_positions, "positions, for text/csv")


def _unfit(path: str, expression: str, fit: Callable[[JsonPath], object], limit: str) -> Iterator[Problem]:
    """A filter that asks for what the format does not have."""
    try:
        compiled = compile_path(expression)
    except JsonPathError:
        return  # _check_filters says so
    try:
        fit(compiled)
    except JsonPathError as error:
        yield Problem(path, expression, limit, str(error))


def _check_aws_filters(job: TransformJob) -> Iterator[Problem]:
    """Length as in AWS's service model; characters as in the ValidationException quoted in aws/aws-sdk issue 184."""
    if job.compatibility != "aws":
        return
    for path, expression in zip(_FILTERS, (job.input_filter, job.output_filter), strict=True):
        if len(expression) > _AWS_FILTER_LENGTH:
            remedy = f'Shorten it from {len(expression)}, or set Rayxform.Compatibility to "seed".'
            yield Problem(path, shown(expression), f"at most {_AWS_FILTER_LENGTH} characters", remedy)
        strange = [char for char in expression if not (char.isascii() and char.isalnum()) and char not in _AWS_FILTER_OPERATORS]
        if strange:
            remedy = f'Unexpected "{strange[0]}" in JsonPath. Rename the attribute, or set Rayxform.Compatibility to "seed".'
            yield Problem(path, shown(expression), f"letters, digits and {' '.join(_AWS_FILTER_OPERATORS)}", remedy)


def _format(media: str | None) -> str | None:
    """The format that a media type names, under any of its names, or None for one that cannot be filtered or joined."""
    return "CSV" if is_csv(media) else "JSON" if is_json(media) else "JSON Lines" if is_json_lines(media) else None


_FORMATS = "text/csv, application/json or application/jsonlines"


def _check_filter_types(job: TransformJob) -> Iterator[Problem]:
    """A filter needs a format that it can look into; where no ContentType is given, records are taken as JSON."""
    if job.join_input:
        return
    sides = ((job.input_filter, _CONTENT_TYPE, job.content_type), (job.output_filter, _ACCEPT, job.effective_accept))
    for filter_path, (expression, type_path, media) in zip(_FILTERS, sides, strict=True):
        if type_path == _CONTENT_TYPE and job.holds_examples:
            continue
        if expression != "$" and media and not _format(media):
            name = filter_path.rpartition(".")[2]
            yield Problem(type_path, shown(media), f"{_FORMATS}, with {name}", f"Remove {name}, or send one of these types.")


def _check_join_types(job: TransformJob) -> Iterator[Problem]:
    if not job.join_input:
        return
    wanted, got = _format(job.content_type), _format(job.effective_accept)
    if job.holds_examples:
        if got not in ("JSON", "JSON Lines"):
            limit = "application/jsonlines or application/json, to join tf.train.Example"
            yield Problem(_ACCEPT, job.effective_accept, limit, 'Write "application/jsonlines".')
    elif not wanted:
        yield Problem(
            _CONTENT_TYPE,
            job.content_type,
            f"{_FORMATS}, with a join",
            "Write the records' type, or remove JoinSource.",
        )
    elif got != wanted:
        limit = f"the same type as ContentType, {job.content_type}, with a join"
        default = "" if job.accept else f" Without it the model is asked for {job.effective_accept}."
        yield Problem(_ACCEPT, job.accept, limit, f'Write "{job.content_type}".{default}')


def _check_join_layout(job: TransformJob) -> Iterator[Problem]:
    """SplitType and AssembleWith are alike: Line for text/csv and application/jsonlines, None for application/json."""
    kind = _format(job.content_type)
    if not job.join_input or not kind:
        return
    wanted = "None" if kind == "JSON" else "Line"
    remedy = "" if kind != "JSON" else ", or, for one JSON value a line, ContentType application/jsonlines"
    if job.split_type != wanted:
        yield Problem(_SPLIT, _given(job, _SPLIT), f'"{wanted}" to join {kind}', f'Write "{wanted}"{remedy}.')
    if job.members.transform_output.assemble_with not in (None, wanted):
        yield Problem(_ASSEMBLE, _given(job, _ASSEMBLE), f'"{wanted}" to join {kind}', f'Write "{wanted}"{remedy}.')


def _check_partition_paths(job: TransformJob) -> Iterator[Problem]:
    """Every path names an attribute, and no two of them give one key, which Hive and DuckDB compare without case."""
    keys: dict[str, str] = {}
    for expression in job.partition_by:
        try:
            key = make_partitioning([expression]).paths[0][-1]
        except JsonPathError as error:
            yield Problem(_PARTITION_BY, expression, "JSONPaths of names only", str(error))
            continue
        if (other := keys.setdefault(key.casefold(), expression)) is not expression:
            remedy = f"{other} has the key {key!r} as well; keep one of them, or let the model give it another name."
            yield Problem(_PARTITION_BY, expression, "paths that end in different names", remedy)


def _check_partition_results(job: TransformJob) -> Iterator[Problem]:
    """What is partitioned are JSON objects, one for each record."""
    if not job.partition_by:
        return
    kind = _format(job.effective_accept)
    # There a document is the answer to a whole request, not a prediction for each of its records.
    no_json = kind == "JSON" and job.compatibility == "aws" and not job.join_input
    if kind not in ("JSON", "JSON Lines") or no_json:
        names = "application/jsonlines" + ("" if no_json else " or application/json")
        default = "" if job.accept else f" Without it the model is asked for {job.effective_accept}."
        remedy = f'Let the model answer in JSON, and write "application/jsonlines".{default}'
        yield Problem(_ACCEPT, shown(job.accept), f"{names}, with Partition", remedy)


def _check_partition_placeholder(job: TransformJob) -> Iterator[Problem]:
    if job.partition_by and job.on_record_error == "placeholder":
        remedy = 'An {"error": ...} line has no partition; write "skip", and errors.jsonl lists what was left out.'
        yield Problem("Rayxform.OnRecordError", "placeholder", '"fail" or "skip", with Partition', remedy)


def _check_arithmetic(job: TransformJob) -> Iterator[Problem]:
    """A model server computes as it pleases."""
    if not job.has_server:
        return
    given = job.members.rayxform.model_dump(by_alias=True, exclude_defaults=True)
    for name in ("Precision", "Compile", "ModelMicroBatch", "StageInput"):
        if name in given:
            remedy = "It acts on the functions of an inference.py, or on what they return; set it up in the server itself."
            yield Problem(f"Rayxform.{name}", given[name], "left out, with Model.Endpoint or Model.Command", remedy)


@dataclass(frozen=True)
class _Rule:
    """A check, and the members that it reads."""

    find: Callable[[TransformJob], Iterator[Problem]]
    reads: tuple[str, ...]


_RULES = (
    _Rule(_check_payload, ("MaxConcurrentTransforms", "MaxPayloadInMB")),
    _Rule(_check_strategy, ("BatchStrategy", _SPLIT)),
    _Rule(_check_output, (f"{_S3_DATA_SOURCE}.S3Uri", _OUTPUT)),
    _Rule(_check_keys, ("TransformOutput.KmsKeyId", _OUTPUT, "DataCaptureConfig")),
    _Rule(_check_inference_id, ("DataCaptureConfig", _JOIN, _CONTENT_TYPE, _ACCEPT, _COMPATIBILITY, *_ENVIRONMENTS)),
    _Rule(_check_model, ("Model.ModelDataUrl", "Model.SourceDir", "Model.Endpoint", "Model.Command")),
    _Rule(_check_command, ("Model.Command",)),
    _Rule(_check_filters, _FILTERS),
    _Rule(_check_example_filter, (_FILTERS[0], _SPLIT, _CONTENT_TYPE)),
    _Rule(_check_csv_filters, (*_FILTERS, _CONTENT_TYPE, _ACCEPT, _COMPATIBILITY, *_ENVIRONMENTS)),
    _Rule(_check_aws_filters, (*_FILTERS, _COMPATIBILITY)),
    _Rule(_check_filter_types, (*_FILTERS, _JOIN, _CONTENT_TYPE, _SPLIT, _ACCEPT, _COMPATIBILITY, *_ENVIRONMENTS)),
    _Rule(_check_join_types, (_JOIN, _CONTENT_TYPE, _SPLIT, _ACCEPT, _COMPATIBILITY, *_ENVIRONMENTS)),
    _Rule(_check_join_layout, (_JOIN, _CONTENT_TYPE, _SPLIT, _ASSEMBLE)),
    _Rule(_check_partition_paths, (_PARTITION_BY,)),
    _Rule(_check_partition_results, ("Rayxform.Partition", _CONTENT_TYPE, _ACCEPT, _JOIN, _COMPATIBILITY, *_ENVIRONMENTS)),
    _Rule(_check_partition_placeholder, ("Rayxform.Partition", "Rayxform.OnRecordError")),
    _Rule(_check_arithmetic, ("Rayxform.Precision", "Rayxform.Compile", "Rayxform.ModelMicroBatch", "Rayxform.StageInput")),
)
