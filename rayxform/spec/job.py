"""A job as the rest of rayxform sees it: plain attributes with units, defaults settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rayxform.core.batching import MIB
from rayxform.core.media import is_csv, is_json, is_json_lines
from rayxform.spec.members import CreateTransformJob

BatchStrategy = Literal["MultiRecord", "SingleRecord"]


@dataclass(frozen=True)
class ExecutionParameters:
    """What a job file and a model server may each say of requests (AWS, "How Containers Serve Requests").

    Attributes:
        max_concurrent_transforms: how many requests a server handles at a time; None where it is left open.
        batch_strategy: BatchStrategy; None where it is left open.
        max_payload_in_mb: MaxPayloadInMB, in MiB, 0 for no limit; None where it is left open.
    """

    max_concurrent_transforms: int | None = None
    batch_strategy: BatchStrategy | None = None
    max_payload_in_mb: int | None = None


@dataclass(frozen=True)
class TransformJob:
    """A valid job.

    Attributes:
        members: the job file's members, checked; URLs and paths are absolute.
        server_parameters: what its model server says of requests; counts where the job file is silent.
    """

    members: CreateTransformJob
    server_parameters: ExecutionParameters = ExecutionParameters()

    @property
    def name(self) -> str | None:
        """TransformJobName."""
        return self.members.transform_job_name

    @property
    def input_uri(self) -> str:
        """S3Uri, absolute."""
        return self.members.transform_input.data_source.s3_data_source.s3_uri

    @property
    def s3_data_type(self) -> Literal["S3Prefix", "ManifestFile"]:
        """S3DataType."""
        return self.members.transform_input.data_source.s3_data_source.s3_data_type

    @property
    def content_type(self) -> str | None:
        """ContentType; None where the job does not set it, or sets it to ""."""
        return self.members.transform_input.content_type or None

    @property
    def compression_type(self) -> Literal["None", "Gzip"]:
        """CompressionType."""
        return self.members.transform_input.compression_type

    @property
    def split_type(self) -> Literal["None", "Line", "RecordIO", "TFRecord"]:
        """SplitType."""
        return self.members.transform_input.split_type

    @property
    def holds_examples(self) -> bool:
        """Whether what is filtered and joined are tf.train.Example: TFRecord, unless ContentType says JSON or CSV."""
        is_text = is_csv(self.content_type) or is_json(self.content_type) or is_json_lines(self.content_type)
        return self.split_type == "TFRecord" and not is_text

    @property
    def output_uri(self) -> str:
        """S3OutputPath, absolute."""
        return self.members.transform_output.s3_output_path

    @property
    def generate_inference_id(self) -> bool:
        """DataCaptureConfig.GenerateInferenceId."""
        capture = self.members.data_capture_config
        return capture is not None and capture.generate_inference_id

    @property
    def kms_key_id(self) -> str | None:
        """TransformOutput.KmsKeyId."""
        return self.members.transform_output.kms_key_id or None

    @property
    def accept(self) -> str | None:
        """Accept, as given; None where the job does not set it, or sets it to ""."""
        return self.members.transform_output.accept or None

    @property
    def effective_accept(self) -> str:
        """The type that the handler is asked for (contract §6).

        Accept; else SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT; else ContentType where that is JSON Lines or CSV; else JSON.
        With Compatibility aws there is nothing between the first and the last.
        """
        if self.accept or self.compatibility == "aws":
            return self.accept or "application/json"
        given = self.content_type if is_json_lines(self.content_type) or is_csv(self.content_type) else None
        return self.environment.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or given or "application/json"

    @property
    def assemble_with(self) -> Literal["None", "Line"]:
        """AssembleWith; a join of lines has Line by default."""
        given = self.members.transform_output.assemble_with
        return given or ("Line" if self.join_input and self.split_type == "Line" else "None")

    @property
    def given_parameters(self) -> ExecutionParameters:
        """What the job file itself says of requests; AWS takes a MaxConcurrentTransforms of 0 as left open."""
        is_given = "max_payload_in_mb" in self.members.model_fields_set
        return ExecutionParameters(
            self.members.max_concurrent_transforms or None,
            self.members.batch_strategy,
            self.members.max_payload_in_mb if is_given else None,
        )

    @property
    def asks_server(self) -> bool:
        """Whether a model server is asked for its execution parameters: there is one, and the job file leaves some open."""
        given = self.given_parameters
        is_settled = given.batch_strategy or self.split_type == "None"
        is_complete = given.max_concurrent_transforms and is_settled and given.max_payload_in_mb is not None
        return self.has_server and not is_complete

    @property
    def batch_strategy(self) -> BatchStrategy:
        """BatchStrategy, the server's where the job has none; an object that is one record is sent alone, whatever they say."""
        if self.split_type == "None":
            return "SingleRecord"
        return self.members.batch_strategy or self.server_parameters.batch_strategy or "MultiRecord"

    @property
    def max_payload_in_mb(self) -> int:
        """MaxPayloadInMB, in MiB, the server's where the job has none; 0 for no limit."""
        given, server = self.given_parameters.max_payload_in_mb, self.server_parameters.max_payload_in_mb
        return self.members.max_payload_in_mb if given is not None or server is None else server

    @property
    def max_payload_bytes(self) -> int | None:
        """The longest request body, in bytes, inclusive; None for no limit."""
        return self.max_payload_in_mb * MIB or None

    @property
    def max_records_per_batch(self) -> int | None:
        """The most records of a request; None for no limit."""
        return self.members.rayxform.max_records_per_batch

    @property
    def input_filter(self) -> str:
        """InputFilter."""
        return self.members.data_processing.input_filter

    @property
    def output_filter(self) -> str:
        """OutputFilter."""
        return self.members.data_processing.output_filter

    @property
    def join_input(self) -> bool:
        """Whether JoinSource is Input."""
        return self.members.data_processing.join_source == "Input"

    @property
    def max_concurrent_transforms(self) -> int | None:
        """MaxConcurrentTransforms; None where the job does not set it."""
        return self.members.max_concurrent_transforms or None

    @property
    def requests_per_worker(self) -> int:
        """How many requests a worker has under way: MaxConcurrentTransforms to a server, which has them at a time, else 1."""
        at_once = self.max_concurrent_transforms or self.server_parameters.max_concurrent_transforms or 1
        return at_once if self.has_server else 1

    @property
    def instance_count(self) -> int | None:
        """InstanceCount."""
        resources = self.members.transform_resources
        return resources.instance_count if resources is not None else None

    @property
    def invocations_timeout_s(self) -> int:
        """How long one request may take, in seconds."""
        return self.members.model_client_config.invocations_timeout_in_seconds

    @property
    def invocations_max_retries(self) -> int:
        """How often a failed request is tried again."""
        return self.members.model_client_config.invocations_max_retries

    @property
    def environment(self) -> dict[str, str]:
        """The model's environment variables; the job's own win."""
        return {**self.members.model.environment, **self.members.environment}

    @property
    def model_data_url(self) -> str | None:
        """ModelDataUrl, absolute."""
        return self.members.model.model_data_url

    @property
    def source_dir(self) -> str | None:
        """SourceDir, absolute."""
        return self.members.model.source_dir

    @property
    def entry_point(self) -> str:
        """EntryPoint."""
        return self.members.model.entry_point

    @property
    def endpoint(self) -> str | None:
        """Endpoint: the URL of a model server that is already running."""
        return self.members.model.endpoint

    @property
    def command(self) -> str | None:
        """Command: how each worker starts a model server of its own."""
        return self.members.model.command

    @property
    def has_server(self) -> bool:
        """Whether the model is an HTTP server."""
        return self.endpoint is not None or self.command is not None

    @property
    def cpus_per_worker(self) -> float | None:
        """Rayxform.CpusPerWorker, in cores."""
        return self.members.rayxform.cpus_per_worker

    @property
    def gpus_per_worker(self) -> float | None:
        """Rayxform.GpusPerWorker."""
        return self.members.rayxform.gpus_per_worker

    @property
    def memory_per_worker_bytes(self) -> int | None:
        """Rayxform.MemoryPerWorkerInMB, in bytes."""
        given = self.members.rayxform.memory_per_worker_in_mb
        return given * MIB if given is not None else None

    @property
    def precision(self) -> Literal["float32", "bfloat16", "float16"]:
        """Rayxform.Precision."""
        return self.members.rayxform.precision

    @property
    def compile(self) -> bool:
        """Rayxform.Compile."""
        return self.members.rayxform.compile

    @property
    def wait_for_nodes_s(self) -> int:
        """Rayxform.WaitForNodesInSeconds."""
        return self.members.rayxform.wait_for_nodes_in_seconds

    @property
    def stage_input(self) -> bool:
        """Rayxform.StageInput."""
        return self.members.rayxform.stage_input

    @property
    def model_micro_batch(self) -> int | None:
        """Rayxform.ModelMicroBatch, in records; 0 to find it out, None where mini-batches stay whole."""
        return self.members.rayxform.model_micro_batch

    @property
    def workers(self) -> int | None:
        """InstanceCount x MaxConcurrentTransforms if both are given; with a model server InstanceCount.

        An instance is a server there, and its worker has MaxConcurrentTransforms requests under way at a time.
        """
        if self.has_server:
            return self.instance_count
        instances, at_once = self.instance_count, self.max_concurrent_transforms
        return instances * at_once if instances and at_once else None

    @property
    def on_record_error(self) -> Literal["fail", "skip", "placeholder"]:
        """Rayxform.OnRecordError."""
        return self.members.rayxform.on_record_error

    @property
    def stops_at_bad_record(self) -> bool:
        """Whether a bad record fails its file."""
        return self.on_record_error == "fail"

    @property
    def partition_by(self) -> tuple[str, ...]:
        """Rayxform.Partition.By; empty if there is one .out for each input."""
        partition = self.members.rayxform.partition
        return partition.by if partition is not None else ()

    @property
    def partition_extension(self) -> Literal["parquet", "jsonl"]:
        """What names of a data set's files end with, by Rayxform.Partition.Format."""
        partition = self.members.rayxform.partition
        return "jsonl" if partition is not None and partition.format == "jsonlines" else "parquet"

    @property
    def compatibility(self) -> Literal["seed", "aws"]:
        """Rayxform.Compatibility."""
        return self.members.rayxform.compatibility


def to_members(job: TransformJob) -> dict[str, Any]:
    """The job as AWS's CreateTransformJob JSON; members that the job file left out stay absent."""
    return job.members.model_dump(mode="json", by_alias=True, exclude_unset=True)
