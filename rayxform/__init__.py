"""SageMaker Batch Transform as open software on Ray Data.

::

    import rayxform

    result = rayxform.run("job.yaml")
    print(result.status, result.records, result.output_path)

Importing this loads neither ray nor torch.
"""

from __future__ import annotations

from rayxform._version import __version__
from rayxform.api import check, plan, run
from rayxform.errors import (
    EngineError,
    JobError,
    ModelError,
    RayxformError,
    RecordError,
    StorageError,
)
from rayxform.pipeline.inspecting import CheckReport, FilePlan, JobPlan
from rayxform.pipeline.result import JobResult, Progress, Timings
from rayxform.transformer import PyTorchModel, Transformer

__all__ = [
    "CheckReport",
    "EngineError",
    "FilePlan",
    "JobError",
    "JobPlan",
    "JobResult",
    "ModelError",
    "Progress",
    "PyTorchModel",
    "RayxformError",
    "RecordError",
    "StorageError",
    "Timings",
    "Transformer",
    "__version__",
    "check",
    "plan",
    "run",
]
