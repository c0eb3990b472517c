"""What a request tells the user's functions: the trailing ``context``, and SageMaker's environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

STRATEGIES: Final = {"SingleRecord": "SINGLE_RECORD", "MultiRecord": "MULTI_RECORD"}


@dataclass(frozen=True)
class InvocationContext:
    """What a function with a trailing ``context`` parameter gets.

    On AWS it is TorchServe's context, which knows neither the input object nor the records. The part of TorchServe's
    that handlers written for the toolkit read is here too; what would steer the server (``set_response_status``) is
    not, so that code which relies on it fails where it can be seen.

    Attributes:
        object: the key or path of the input object; "" while the model is loaded.
        first_record: the number of the request's first record in its object, from 0.
        n_records: how many records the request holds; 0 while the model is loaded.
        attempt: 1 for the first try of this request, 2 for the second, and so on.
        content_type: the request's Content-Type.
        accept: the request's Accept.
        model_dir: the folder that model_fn got.
        gpu_id: the number of the GPU as torch counts them in this process, or None on the CPU.
    """

    object: str
    first_record: int
    n_records: int
    attempt: int
    content_type: str
    accept: str
    model_dir: str
    gpu_id: int | None = None

    @property
    def system_properties(self) -> dict[str, str | int | None]:
        """TorchServe's properties of the worker: ``model_dir``, ``gpu_id`` (None on the CPU) and ``batch_size`` (1)."""
        return {"model_dir": self.model_dir, "gpu_id": self.gpu_id, "batch_size": 1}

    def get_request_header(self, idx: int, key: str) -> str | None:  # noqa: ARG002 - one request, whatever the index
        """Return a header of the request, whatever the case of its name; None for one that was not sent."""
        headers = {name.lower(): value for name, value in self.get_all_request_header(0).items()}
        return headers.get(key.lower())

    def get_all_request_header(self, idx: int) -> dict[str, str]:  # noqa: ARG002
        """Return the request's headers: ``Content-Type`` and ``Accept``."""
        return {"Content-Type": self.content_type, "Accept": self.accept}

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Do nothing: the toolkit too replaces it afterwards, with Accept or the type that output_fn returned."""


def sagemaker_environment(
    *,
    entry_point: Path | None,
    max_payload_in_mb: int | None = None,
    batch_strategy: Literal["SingleRecord", "MultiRecord"] | None = None,
    max_concurrent_transforms: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the environment that SageMaker gives a model in a batch transform job.

    AWS, "Use Your Own Inference Code with Batch Transform": ``SAGEMAKER_BATCH`` is always ``true``; the three others of
    the job are there only where the caller of CreateTransformJob set them. ``SAGEMAKER_PROGRAM`` and
    ``SAGEMAKER_SUBMIT_DIRECTORY`` come from the SageMaker SDK. (``SM_MODEL_DIR`` belongs to training and is not set.)

    Args:
        entry_point: the entry point's file, or None where the defaults run.
        max_payload_in_mb: MaxPayloadInMB in MiB, or None where the job does not set it.
        batch_strategy: BatchStrategy, or None where the job does not set it.
        max_concurrent_transforms: MaxConcurrentTransforms, or None where the job does not set it.
        environment: the job's and the model's own variables, which win.
    """
    variables = {"SAGEMAKER_BATCH": "true"}
    if entry_point is not None:
        variables["SAGEMAKER_PROGRAM"] = entry_point.name
        variables["SAGEMAKER_SUBMIT_DIRECTORY"] = str(entry_point.parent)
    if max_payload_in_mb is not None:
        variables["SAGEMAKER_MAX_PAYLOAD_IN_MB"] = str(max_payload_in_mb)
    if batch_strategy is not None:
        variables["SAGEMAKER_BATCH_STRATEGY"] = STRATEGIES[batch_strategy]
    if max_concurrent_transforms is not None:
        variables["SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"] = str(max_concurrent_transforms)
    return variables | dict(environment or {})
