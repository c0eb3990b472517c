"""SageMaker Batch Transform as open software on Ray Data.

::

    import rayxform

    result = rayxform.run("job.yaml")
    print(result.status, result.records, result.output_path)

Importing this loads neither ray nor torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rayxform._version import __version__

if TYPE_CHECKING:
    from rayxform.api import check, plan, run, status, stop
    from rayxform.core.examples import read_examples, write_example
    from rayxform.core.framing import tfrecord_frame
    from rayxform.errors import EngineError, JobError, ModelError, RayxformError, RecordError, StorageError
    from rayxform.pages.report import report
    from rayxform.pipeline.inspecting import CheckReport, FilePlan, JobPlan
    from rayxform.pipeline.result import JobResult, Progress, Timings
    from rayxform.pipeline.status import JobStatus
    from rayxform.transformer import PyTorchModel, Transformer

_HOMES = {
    "rayxform.api": ("check", "plan", "run", "status", "stop"),
    "rayxform.core.examples": ("read_examples", "write_example"),
    "rayxform.core.framing": ("tfrecord_frame",),
    "rayxform.errors": ("EngineError", "JobError", "ModelError", "RayxformError", "RecordError", "StorageError"),
    "rayxform.pages.report": ("report",),
    "rayxform.pipeline.inspecting": ("CheckReport", "FilePlan", "JobPlan"),
    "rayxform.pipeline.result": ("JobResult", "Progress", "Timings"),
    "rayxform.pipeline.status": ("JobStatus",),
    "rayxform.transformer": ("PyTorchModel", "Transformer"),
}

__all__ = [
    "CheckReport",
    "EngineError",
    "FilePlan",
    "JobError",
    "JobPlan",
    "JobResult",
    "JobStatus",
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
    "read_examples",
    "report",
    "run",
    "status",
    "stop",
    "tfrecord_frame",
    "write_example",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that the bare import costs nothing (PEP 562)."""
    for module, names in _HOMES.items():
        if name in names:
            found = getattr(import_module(module), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module 'rayxform' has no attribute {name!r}")
