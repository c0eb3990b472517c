"""The SageMaker Python SDK's two classes that a batch transform script uses, so that it runs after changing its imports.

Source: SageMaker Python SDK v2, ``sagemaker.pytorch.model.PyTorchModel`` and ``sagemaker.transformer.Transformer``. Arguments
that only AWS needs (role, instance types, versions, tags) are taken and have no effect.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayxform.api import run
from rayxform.errors import EngineError, JobError
from rayxform.pipeline.result import JobResult
from rayxform.spec import parse_job, to_members

Members = dict[str, Any]


class PyTorchModel:
    """A model: its data and its ``inference.py``."""

    def __init__(
        self,
        model_data: str | None = None,
        role: str | None = None,
        entry_point: str = "inference.py",
        source_dir: str | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        **aws_only: object,
    ) -> None:
        """Name a model.

        Args:
            model_data: a model.tar.gz, or a folder: a path or a URL.
            role: no effect here.
            entry_point: the name of the file with model_fn and its like.
            source_dir: the folder that holds it; None for the archive's ``code/``.
            env: environment variables for the model's code.
            name: the model's name.
            aws_only: framework_version, py_version, image_uri and others; no effect here.
        """
        del role, aws_only
        self.name = name
        self.model: Members = _without_none(
            ModelDataUrl=model_data, EntryPoint=entry_point, SourceDir=source_dir, Environment=dict(env or {}) or None
        )

    def transformer(self, instance_count: int, instance_type: str | None = None, **arguments: Any) -> Transformer:
        """A transformer for this model; takes the arguments of Transformer."""
        return Transformer(self, instance_count, instance_type, **arguments)


class Transformer:
    """Runs batch transform jobs with one model."""

    def __init__(
        self,
        model_name: PyTorchModel | str,
        instance_count: int | None = None,
        instance_type: str | None = None,
        strategy: str | None = None,
        assemble_with: str | None = None,
        output_path: str | None = None,
        accept: str | None = None,
        max_concurrent_transforms: int | None = None,
        max_payload: int | None = None,
        env: Mapping[str, str] | None = None,
        **aws_only: object,
    ) -> None:
        """Settle what all jobs of this transformer share.

        Args:
            model_name: the model; the name of a model alone cannot be resolved here.
            instance_count: with max_concurrent_transforms, the number of workers is their product.
            instance_type: no effect here.
            strategy: BatchStrategy, "MultiRecord" or "SingleRecord".
            assemble_with: "Line" or None.
            output_path: S3OutputPath, a path or a URL.
            accept: the predictions' media type.
            max_concurrent_transforms: requests at once for each instance.
            max_payload: MaxPayloadInMB, in MiB.
            env: environment variables for the model's code.
            aws_only: tags, keys and others; no effect here.

        Raises:
            JobError: the model is only a name, or there is no output_path.
        """
        del aws_only
        if isinstance(model_name, str):
            raise JobError(
                f"model_name is {model_name!r}, and there is no registry of models here; pass a rayxform.PyTorchModel"
            )
        if output_path is None:
            raise JobError("output_path is missing; name the folder or the URL that receives the .out objects")
        self.output_path = output_path
        self._members: Members = _without_none(
            Model=model_name.model,
            ModelName=model_name.name,
            BatchStrategy=strategy,
            MaxPayloadInMB=max_payload,
            MaxConcurrentTransforms=max_concurrent_transforms,
            Environment=dict(env or {}) or None,
            TransformOutput=_without_none(S3OutputPath=output_path, Accept=accept, AssembleWith=assemble_with),
            TransformResources=_without_none(InstanceCount=instance_count, InstanceType=instance_type) or None,
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Path | None = None
        self.latest_result: JobResult | None = None

    def transform(
        self,
        data: str,
        data_type: str = "S3Prefix",
        content_type: str | None = None,
        compression_type: str | None = None,
        split_type: str | None = None,
        job_name: str | None = None,
        input_filter: str | None = None,
        output_filter: str | None = None,
        join_source: str | None = None,
        wait: bool = True,
        logs: bool = True,
        **aws_only: object,
    ) -> None:
        """Run a job.

        Args:
            data: S3Uri: a file, folder, prefix or glob pattern, as a path or a URL.
            data_type: S3DataType.
            content_type: the records' media type.
            compression_type: "Gzip" or None.
            split_type: SplitType.
            job_name: TransformJobName.
            input_filter: a JSONPath.
            output_filter: a JSONPath.
            join_source: "Input" or None.
            wait: whether to return only when the job has ended; else it runs in a process of its own, which goes on when
                this one ends.
            logs: no effect here; progress is on stderr.
            aws_only: experiment_config and others; no effect here.

        Raises:
            JobError: the job is refused.
            EngineError: the job was waited for and did not complete.
        """
        del logs, aws_only
        source = {"S3DataSource": {"S3DataType": data_type, "S3Uri": data}}
        members = self._members | _without_none(
            TransformJobName=job_name,
            TransformInput=_without_none(
                DataSource=source, ContentType=content_type, CompressionType=compression_type, SplitType=split_type
            ),
            DataProcessing=_without_none(InputFilter=input_filter, OutputFilter=output_filter, JoinSource=join_source),
        )
        job = parse_job(members)
        if wait:
            # As with the SDK, a job without a name is a new one every time.
            self.latest_result = run(job, restart=job_name is None)
            _raise_unless_completed(self.latest_result.status, self.latest_result.failure_reason)
        else:
            self._start(to_members(job), restart=job_name is None)

    def wait(self, logs: bool = True) -> None:
        """Return when the job that ``transform(wait=False)`` started has ended.

        Raises:
            EngineError: it did not complete; the message holds its reason.
        """
        del logs
        if self._process is not None and self._log is not None and self._process.wait() != 0:
            _raise_unless_completed("Failed", self._log.read_text(errors="replace"))

    def _start(self, members: Members, *, restart: bool) -> None:
        folder = Path(tempfile.mkdtemp(prefix="rayxform-job-"))
        job_file = folder / f"{members.get('TransformJobName', 'job')}.json"
        job_file.write_text(json.dumps(members))
        self._log = folder / "log"
        command = [sys.executable, "-m", "rayxform", "run", str(job_file), *(["--restart"] if restart else [])]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)  # noqa: S603 - our own command


def _raise_unless_completed(status: str, reason: str | None) -> None:
    if status != "Completed":
        raise EngineError(f"the transform job is {status}: {reason}")


def _without_none(**members: Any) -> Members:
    return {name: value for name, value in members.items() if value is not None}
