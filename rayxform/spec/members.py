"""The members of a job file: AWS ``CreateTransformJob``, plus ``Model`` and ``Rayxform``.

Names, types, defaults and limits are those of the API's service model (API reference, CreateTransformJob), except that
locations may be any URL or path, and that what only AWS needs (TransformJobName, ModelName, TransformResources) may be
left out. The docstrings below the members are the descriptions of the JSON Schema and the remedies of error messages.

A member that is null counts as left out, as in AWS's JSON protocol; in YAML, nothing behind the colon is null.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator
from pydantic.alias_generators import to_pascal
from pydantic_core import PydanticCustomError

PATTERNS = {
    "hyphenated": r"^[a-zA-Z0-9](-*[a-zA-Z0-9])*$",
    "hyphens": r"^[a-zA-Z0-9\-]+$",
    "http": r"^https?://\S+$",
    "key": r"^[a-zA-Z0-9:/_-]*$",
    "no_nul": r"^[^\x00]*$",
    "one_line": r"^.*$",
    "variable": r"^[a-zA-Z_][a-zA-Z0-9_]*$",
}
"""The service model's patterns, and rayxform's own; their counts are in min_length and max_length."""

# fsspec's chained URLs have the second form: simplecache::s3://...
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+(://|::)")


def _aws_name(name: str) -> str:
    return to_pascal(name).replace("InMb", "InMB")


def _absolute(location: str, info: ValidationInfo) -> str:
    """Make a plain path absolute against the validation's ``base``; a URL stays, and so does a slash at the end."""
    if _URL.match(location):
        return location
    base: str = (info.context or {}).get("base") or "."
    path = os.path.expanduser(location) if location.startswith("~/") or location == "~" else location  # noqa: PTH111
    if _URL.match(base) and not path.startswith("/"):
        return f"{base.rstrip('/')}/{path}"
    absolute = os.path.abspath(os.path.join(base, path))  # noqa: PTH100, PTH118 - Path drops the last slash
    return absolute + "/" if location.endswith("/") and absolute != "/" else absolute


def _check_tag(text: str) -> str:
    # The service model's [\p{L}\p{Z}\p{N}_.:/=+\-@]*; Python's re, which jsonschema uses, has no \p.
    if strange := [char for char in text if unicodedata.category(char)[0] not in "LZN" and char not in "_.:/=+-@"]:
        raise PydanticCustomError("tag_characters", "no {char} in a tag", {"char": repr(strange[0])})
    return text


def _list_to_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class Members(BaseModel):
    """An object of the job file: AWS's names, nothing unknown, nothing converted, nothing changed later."""

    model_config = ConfigDict(
        alias_generator=_aws_name,
        allow_inf_nan=False,
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        strict=True,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, members: object) -> object:
        if not isinstance(members, Mapping):
            return members
        return {name: value for name, value in members.items() if value is not None}


Location = Annotated[str, Field(min_length=1, pattern=PATTERNS["no_nul"]), AfterValidator(_absolute)]
MediaType = Annotated[str, Field(max_length=256, pattern=PATTERNS["one_line"])]
KmsKey = Annotated[str, Field(max_length=2048, pattern=PATTERNS["key"])]
EntityName = Annotated[str, Field(min_length=1, max_length=120, pattern=PATTERNS["hyphenated"])]
Variables = dict[
    Annotated[str, Field(max_length=1024, pattern=PATTERNS["variable"])],
    Annotated[str, Field(max_length=10240, pattern=PATTERNS["no_nul"])],
]
Filter = Annotated[str, Field(min_length=1)]
Positive = Annotated[int, Field(ge=1)]


class ModelClientConfig(Members):
    """How requests to the model are timed out and retried."""

    invocations_timeout_in_seconds: Annotated[int, Field(ge=1, le=3600)] = 600
    """How long one request may take, in seconds."""
    invocations_max_retries: Annotated[int, Field(ge=0, le=3)] = 3
    """How often a failed request is tried again."""


class TransformS3DataSource(Members):
    """Where the input objects are."""

    s3_data_type: Literal["S3Prefix", "ManifestFile"] = "S3Prefix"
    """S3Prefix: S3Uri is a file, a folder, a prefix or a glob. ManifestFile: S3Uri is a list of objects."""
    s3_uri: Annotated[Location, Field(examples=["s3://bucket/input/", "data/input"])]
    """The input: any URL that fsspec opens, or a path relative to the job file."""


class TransformDataSource(Members):
    """The input's data source."""

    s3_data_source: Annotated[TransformS3DataSource, Field(examples=[{"S3Uri": "data/input"}])]
    """Where the input objects are, in S3 or anywhere else."""


class TransformInput(Members):
    """What the job reads, and how objects are cut into records."""

    data_source: Annotated[
        TransformDataSource, Field(examples=[{"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "data/input"}}])
    ]
    """Where the input objects are."""
    content_type: Annotated[MediaType, Field(examples=["application/jsonlines"])] | None = None
    """The records' media type, which input_fn gets."""
    compression_type: Literal["None", "Gzip"] = "None"
    """How the input objects are compressed."""
    split_type: Literal["None", "Line", "RecordIO", "TFRecord"] = "None"
    """How an object is cut into records; None: the whole object is one record."""


class TransformOutput(Members):
    """What the job writes."""

    s3_output_path: Annotated[Location, Field(alias="S3OutputPath", examples=["s3://bucket/output/", "data/output"])]
    """The folder that receives one .out for each input object: a URL, or a path relative to the job file."""
    accept: Annotated[MediaType, Field(examples=["application/jsonlines"])] | None = None
    """The predictions' media type, which output_fn gets."""
    assemble_with: Literal["None", "Line"] | None = None
    """What ends a record in the output: nothing, or with Line a newline. A join of lines has Line by default."""
    kms_key_id: Annotated[KmsKey, Field(examples=["alias/my-key"])] | None = None
    """The KMS key that encrypts the output."""


class BatchDataCaptureConfig(Members):
    """Where a copy of inputs and outputs goes for Model Monitor."""

    destination_s3_uri: Annotated[Location, Field(examples=["s3://bucket/capture/"])]
    """The folder of the captured data."""
    kms_key_id: Annotated[KmsKey, Field(examples=["alias/my-key"])] | None = None
    """The KMS key that encrypts the captured data."""
    generate_inference_id: bool = False
    """Whether records get an inference id and time."""


class TransformResources(Members):
    """What the job runs on; InstanceCount x MaxConcurrentTransforms is the number of workers, with a server InstanceCount."""

    instance_type: Annotated[str, Field(min_length=1, max_length=256, examples=["ml.m5.xlarge"])] | None = None
    """AWS's machine type; it has no effect here."""
    instance_count: Annotated[int, Field(ge=1, le=100, examples=[1])] | None = None
    """How many instances."""
    volume_kms_key_id: Annotated[KmsKey, Field(examples=["alias/my-key"])] | None = None
    """The KMS key of the instances' volumes; it has no effect here."""
    transform_ami_version: (
        Annotated[
            str,
            Field(min_length=1, max_length=63, pattern=PATTERNS["hyphens"], examples=["al2-ami-sagemaker-batch-gpu-535"]),
        ]
        | None
    ) = None
    """The instances' image; it has no effect here."""


class DataProcessing(Members):
    """Filters and join, after AWS's "Associate Prediction Results with Input Records"."""

    input_filter: Filter = "$"
    """JSONPath: what of a record is sent to the model, such as $.features or $[:-1]."""
    output_filter: Filter = "$"
    """JSONPath: what of the joined result is written, such as $['SageMakerOutput','id']."""
    join_source: Literal["None", "Input"] = "None"
    """Input: each prediction is joined with its record."""


class Tag(Members):
    """A name and a value that AWS's cost reports group by."""

    key: Annotated[str, Field(min_length=1, max_length=128, examples=["team"]), AfterValidator(_check_tag)]
    """The tag's name: letters, digits, spaces and _.:/=+-@."""
    value: Annotated[str, Field(max_length=256, examples=["vision"]), AfterValidator(_check_tag)]
    """The tag's value: letters, digits, spaces and _.:/=+-@."""


class ExperimentConfig(Members):
    """The SageMaker experiment that the job belongs to; it has no effect here."""

    experiment_name: Annotated[EntityName, Field(examples=["digits"])] | None = None
    """The experiment's name."""
    trial_name: Annotated[EntityName, Field(examples=["first"])] | None = None
    """The trial's name."""
    trial_component_display_name: Annotated[EntityName, Field(examples=["transform"])] | None = None
    """The trial component's name."""
    run_name: Annotated[EntityName, Field(examples=["run-1"])] | None = None
    """The run's name."""


class Model(Members):
    """The model: an archive or folder with its inference.py, or a model server; rayxform's member, not AWS's."""

    model_data_url: Annotated[Location, Field(examples=["model.tar.gz"])] | None = None
    """The weights: a model.tar.gz or a plain folder, as a URL or a path relative to the job file."""
    source_dir: Annotated[Location, Field(examples=["src"])] | None = None
    """The folder that holds the entry point; without it, code/ in the archive."""
    entry_point: Annotated[str, Field(min_length=1)] = "inference.py"
    """The file with model_fn, input_fn, predict_fn and output_fn, or transform_fn."""
    environment: Annotated[Variables, Field(max_length=100, examples=[{"LOG_LEVEL": "info"}])] = {}
    """Environment variables of the model; the job's own Environment wins."""
    endpoint: Annotated[str, Field(pattern=PATTERNS["http"], examples=["http://localhost:8080"])] | None = None
    """The URL of an HTTP model server that is already running; /ping and /invocations are below it."""
    command: Annotated[str, Field(min_length=1, examples=["python serve.py --port {port}"])] | None = None
    """The command by which each worker starts its own HTTP model server, on the port {port}; no shell reads it."""


class Partition(Members):
    """A Hive-style partitioned data set instead of one .out for each input."""

    by: Annotated[tuple[Filter, ...], Field(min_length=1, examples=[["$.date"]]), BeforeValidator(_list_to_tuple)]
    """JSONPaths of the values that name the partitions, such as $.date, in the joined record before OutputFilter."""
    format: Annotated[Literal["parquet", "jsonlines"], Field(examples=["parquet"])]
    """The files' format."""


class Rayxform(Members):
    """What AWS has no member for; each one may be left out."""

    compatibility: Literal["seed", "aws"] = "seed"
    """seed: unjoined JSON is written as {"SageMakerOutput": ...}; aws: byte for byte what AWS writes."""
    max_records_per_batch: Annotated[Positive, Field(examples=[100])] | None = None
    """At most so many records in a mini-batch, besides MaxPayloadInMB."""
    on_record_error: Literal["fail", "skip", "placeholder"] = "fail"
    """What a bad record does: fail its file, be skipped, or leave an {"error": ...} line."""
    partition: Annotated[Partition, Field(examples=[{"By": ["$.date"], "Format": "parquet"}])] | None = None
    """Write a partitioned data set instead of one .out for each input."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """The number format that the model computes in."""
    compile: bool = False
    """Whether the model is compiled, once on each machine (torch.export and AOTInductor)."""
    model_micro_batch: Annotated[int, Field(ge=0, examples=[16])] | None = None
    """So many records go through the model at a time within a mini-batch; 0: as many as it turns out to be fastest with."""
    stage_input: bool = False
    """Whether input_fn runs in workers of its own, on the cores that the model's workers leave; it is for GPUs."""
    cpus_per_worker: Annotated[float, Field(gt=0, examples=[1])] | None = None
    """CPU cores that a worker takes."""
    gpus_per_worker: Annotated[float, Field(ge=0, examples=[1])] | None = None
    """GPUs that a worker takes; a fraction shares one."""
    memory_per_worker_in_mb: Annotated[Positive, Field(examples=[4096])] | None = None
    """Memory that a worker takes, in MiB."""
    wait_for_nodes_in_seconds: Annotated[int, Field(ge=0, le=86_400, examples=[900])] = 0
    """How long a cluster is waited for, and its autoscaler asked, to have room for the workers, before the job is refused."""


class CreateTransformJob(Members):
    """A rayxform job: AWS CreateTransformJob, plus Model and Rayxform."""

    transform_job_name: (
        Annotated[
            str,
            Field(min_length=1, max_length=63, pattern=PATTERNS["hyphenated"], examples=["resnet18-digits"]),
        ]
        | None
    ) = None
    """The job's name."""
    model_name: Annotated[str, Field(max_length=63, pattern=PATTERNS["hyphenated"], examples=["resnet18"])] | None = None
    """The name of a SageMaker model; outside SageMaker it names nothing, so Model is needed beside it."""
    max_concurrent_transforms: Annotated[int, Field(ge=0, examples=[4])] | None = None
    """How many requests an instance handles at a time; times MaxPayloadInMB at most 100."""
    model_client_config: ModelClientConfig = Field(default_factory=ModelClientConfig)
    """Time-out and retries of requests to the model."""
    max_payload_in_mb: Annotated[int, Field(ge=0, le=100)] = 6
    """The largest request body, in MiB, inclusive; 0: no limit."""
    batch_strategy: Annotated[Literal["MultiRecord", "SingleRecord"], Field(examples=["MultiRecord"])] | None = None
    """MultiRecord: as many records in a request as fit, the default where SplitType cuts; SingleRecord: one."""
    environment: Annotated[Variables, Field(max_length=16, examples=[{"LOG_LEVEL": "info"}])] = {}
    """Environment variables of the model."""
    transform_input: Annotated[
        TransformInput, Field(examples=[{"DataSource": {"S3DataSource": {"S3Uri": "data/input"}}, "SplitType": "Line"}])
    ]
    """What the job reads, and how objects are cut into records."""
    transform_output: Annotated[TransformOutput, Field(examples=[{"S3OutputPath": "data/output"}])]
    """What the job writes, and where."""
    data_capture_config: (
        Annotated[BatchDataCaptureConfig, Field(examples=[{"DestinationS3Uri": "s3://bucket/capture/"}])] | None
    ) = None
    """Where a copy of inputs and outputs goes for Model Monitor."""
    transform_resources: (
        Annotated[TransformResources, Field(examples=[{"InstanceCount": 1, "InstanceType": "ml.m5.xlarge"}])] | None
    ) = None
    """What the job runs on."""
    data_processing: DataProcessing = Field(default_factory=DataProcessing)
    """Filters and join."""
    tags: Annotated[
        tuple[Tag, ...],
        Field(max_length=50, examples=[[{"Key": "team", "Value": "vision"}]]),
        BeforeValidator(_list_to_tuple),
    ] = ()
    """Tags of the job; they have no effect here."""
    experiment_config: Annotated[ExperimentConfig, Field(examples=[{"ExperimentName": "digits"}])] | None = None
    """The SageMaker experiment that the job belongs to; it has no effect here."""
    model: Annotated[Model, Field(examples=[{"ModelDataUrl": "model.tar.gz", "SourceDir": "src"}])]
    """Where the model is: ModelDataUrl or SourceDir; a ModelName alone names nothing outside SageMaker."""
    rayxform: Rayxform = Field(default_factory=Rayxform)
    """What AWS has no member for."""
