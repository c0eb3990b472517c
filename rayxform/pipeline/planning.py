"""What a job will do, before anything is started: its objects, their ranges, and how records become requests.

A plan depends on the objects and the job alone, never on the cluster; a model server may have settled what the job left open.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace

from rayxform.core.csv_joining import csv_processing
from rayxform.core.example_joining import example_processing
from rayxform.core.inference_ids import InferenceIds
from rayxform.core.joining import JsonProcessing, Processing, TwoFormats, json_processing
from rayxform.core.jsonpath import compile_path
from rayxform.core.media import is_csv, is_json, is_json_lines, media_type
from rayxform.core.naming import job_name
from rayxform.core.partitioning import PartitionedProcessing, make_partitioning
from rayxform.core.ranges import Recipe
from rayxform.pipeline.model_server import settle_parameters
from rayxform.spec import TransformJob, check_locations
from rayxform.storage.listing import list_inputs
from rayxform.storage.objects import InputObject
from rayxform.storage.publishing import OutputFolder

RANGE_BYTES = 64 * 1024 * 1024

Spans = Sequence[tuple[int, int]]
"""Records of an object, from 0: ranges with exclusive ends, in order, of which none touches another."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A part of one input object that one reader reads.

    Attributes:
        file: the object's index in the plan.
        source: the object.
        index: the range's number within the object, from 0.
        begin: its first byte.
        end: the first byte after it, or None if the object ends with it.
    """

    file: int
    source: InputObject
    index: int
    begin: int
    end: int | None

    @property
    def before(self) -> ByteRange:
        """The range before it; all ranges of an object but the last are of one size."""
        size = self.begin // self.index
        return replace(self, index=self.index - 1, begin=self.begin - size, end=self.begin)

    @property
    def n_bytes(self) -> int:
        """How many bytes it covers."""
        return (self.source.size if self.end is None else self.end) - self.begin


@dataclass(frozen=True)
class Plan:
    """What a job reads and where it writes.

    Attributes:
        job: the job.
        inputs: its objects, in the order of their keys.
        recipe: how they become requests.
        output: where results go.
        range_bytes: how much of a large object one reader takes. It is fixed, so that every run cuts alike; the requests do
            not depend on it.
        warnings: what a user may not have meant; a sentence each.
        inference_ids: the ids of this run's results, or None.
    """

    job: TransformJob
    inputs: Sequence[InputObject]
    recipe: Recipe
    output: OutputFolder
    range_bytes: int = RANGE_BYTES
    warnings: tuple[str, ...] = ()
    inference_ids: InferenceIds | None = None

    @property
    def n_bytes(self) -> int:
        """The size of all inputs together."""
        return sum(source.size for source in self.inputs)

    def ranges(self, without: Container[int] = ()) -> list[ByteRange]:
        """The ranges of all inputs but some, in order; an object that cannot be split is one range."""
        files = ((file, source) for file, source in enumerate(self.inputs) if file not in without)
        return [one for file, source in files for one in self._ranges_of(file, source)]

    def _ranges_of(self, file: int, source: InputObject) -> Iterator[ByteRange]:
        size = max(source.size, 1)
        step = self.range_bytes if self.recipe.is_splittable and source.compression is None else size
        for index, begin in enumerate(range(0, size, step)):
            yield ByteRange(file, source, index, begin, begin + step if begin + step < size else None)


def make_plan(job: TransformJob, origin: str = "job", *, within: Sequence[str] = ()) -> Plan:
    """List a job's inputs and settle how they become requests; a model server is asked for what the job leaves open.

    Args:
        job: the job.
        origin: the job file's name, which names a job that has no TransformJobName.
        within: URLs and paths that everything must lie below; empty for no limit.

    Raises:
        LocationRefusedError: something lies elsewhere.
        InputNotFoundError: there is no object.
        StorageError: the input cannot be listed.
        ModelSourceError: the server that would be asked is not there.
        ModelLoadError: the server that would be asked cannot be started, or its answer not be understood.
    """
    if within:
        check_locations(job, within)
    is_manifest, is_compressed = job.s3_data_type == "ManifestFile", job.compression_type != "None"
    listing = list_inputs(job.input_uri, job.output_uri, manifest=is_manifest, compressed=is_compressed, within=within)
    job = settle_parameters(job)
    output = output_of(job, origin)
    ids = InferenceIds(str(uuid.uuid4()), time.time()) if job.generate_inference_id else None
    return Plan(job, listing.inputs, make_recipe(job), output, warnings=listing.warnings, inference_ids=ids)


def output_of(job: TransformJob, origin: str = "job") -> OutputFolder:
    """Where a job writes; ``origin`` is its file's name, which names a job that has no TransformJobName."""
    return OutputFolder(job.output_uri, job.name or job_name(origin), job.kms_key_id)


def make_recipe(job: TransformJob) -> Recipe:
    """How the job's objects become requests."""
    return Recipe(
        split_type=job.split_type,
        multi_record=job.batch_strategy == "MultiRecord",
        max_payload_bytes=job.max_payload_bytes,
        max_records=job.max_records_per_batch,
        processing=_make_processing(job),
        limit_name=f"MaxPayloadInMB {job.max_payload_in_mb}",
    )


def _make_processing(job: TransformJob) -> Processing:
    """AWS's filters follow the format of what they filter: ContentType for InputFilter, Accept for OutputFilter.

    The envelope of an unjoined prediction is the seed's; SageMaker writes the prediction alone, and sorts what it joins.
    """
    answers = media_type(job.effective_accept)
    is_aws = job.compatibility == "aws"
    envelope = (is_json(answers) or is_json_lines(answers)) and not is_aws
    before, after, join, stamps = job.input_filter, job.output_filter, job.join_input, job.generate_inference_id
    if job.partition_by:
        return _make_partitioned(job, envelope=envelope)
    if job.holds_examples:
        return example_processing(before, after, join=join, envelope=envelope, sorts_keys=is_aws, stamps=stamps)
    if is_csv(job.content_type) and is_csv(answers):
        return csv_processing(before, after, join=join, stamps=stamps)
    if is_csv(job.content_type) and before != "$":
        answered = json_processing("$", after, join=False, envelope=envelope, stamps=stamps)
        return TwoFormats(csv_processing(before, "$", join=False), answered)
    if is_csv(answers) and (after != "$" or stamps):
        asked = json_processing(before, "$", join=False, envelope=False)
        return TwoFormats(asked, csv_processing("$", after, join=False, stamps=stamps))
    return json_processing(before, after, join=join, envelope=envelope, sorts_keys=is_aws, stamps=stamps)


def _make_partitioned(job: TransformJob, *, envelope: bool) -> Processing:
    """Results are JSON objects then, whatever the records are; the join also keeps the attributes that name partitions."""
    partitioning, join, is_aws = make_partitioning(job.partition_by), job.join_input, job.compatibility == "aws"
    needed = partitioning.first_names
    before: Processing
    if job.holds_examples:
        before = example_processing(job.input_filter, job.output_filter, join=join, envelope=False, also_needed=needed)
    elif is_csv(job.content_type):
        before = csv_processing(job.input_filter, "$", join=False)
    else:
        before = json_processing(job.input_filter, job.output_filter, join=join, envelope=False, also_needed=needed)
    after, stamps = compile_path(job.output_filter), job.generate_inference_id
    results = JsonProcessing(compile_path("$"), after, join, stamps, envelope, sorts_keys=is_aws)
    return PartitionedProcessing(before, results, partitioning)


def group_ranges(ranges: Sequence[ByteRange], group_bytes: int, group_size: int = 256) -> list[list[ByteRange]]:
    """Ranges that one task reads, in order: small objects together, each range of a large one alone.

    Args:
        ranges: all of them.
        group_bytes: how many bytes a task should read.
        group_size: the most objects of one task, since each costs a round trip to its store.
    """
    groups: list[list[ByteRange]] = []
    room = 0
    for one in ranges:
        if not groups or one.n_bytes > room or len(groups[-1]) >= group_size:
            groups.append([])
            room = group_bytes
        groups[-1].append(one)
        room -= one.n_bytes
    return groups
