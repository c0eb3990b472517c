"""What a worker, the driver and a zygote say to each other."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from rayxform.model.handler import thread_variables

STATUS = struct.Struct("=i")
"""What a zygote says: first a process id, or 0 for a refusal; then an exit code, negative for a signal, as Popen has it."""

_READ_ON_IMPORT: Final = (
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "OPENCV_", "DNNL_", "ONEDNN_", "ATEN_", "TORCH", "PYTORCH"),
    *("CUDA_", "CUBLAS", "CUDNN", "NCCL_", "NVIDIA_", "LD_", "PYTHONHASHSEED", "MALLOC_"),
)
_READ_LATER: Final = {"CUDA_VISIBLE_DEVICES"}
"""What differs between workers, and counts when a GPU is first used."""


def place_of(variables: Mapping[str, str], threads: int | None, environment: Mapping[str, str]) -> str:
    """What a process has to share with the zygote it is forked from, because libraries read it when they are imported.

    Args:
        variables: the process's environment variables before the model's are added.
        threads: how many threads it computes with, or None.
        environment: the model's variables.

    Returns:
        A digest, since anybody may read the command line that it is in, and the environment may hold secrets.
    """
    all_of_them = with_model_variables(variables, threads, environment)
    read = {name: value for name, value in all_of_them.items() if name.startswith(_READ_ON_IMPORT) and name not in _READ_LATER}
    return hashlib.sha256(msgspec.json.encode([sorted(read.items()), sorted(environment.items())])).hexdigest()


def with_model_variables(variables: Mapping[str, str], threads: int | None, environment: Mapping[str, str]) -> dict[str, str]:
    """A process's environment variables when its model is loaded, see ``Handler.load``."""
    return {**variables, **thread_variables(None if "OMP_NUM_THREADS" in environment else threads), **environment}


class Birth(msgspec.Struct):
    """What a fork is to become.

    Attributes:
        place: see ``place_of``.
        sys_path: its sys.path.
        variables: all of its environment variables.
        folder: its working folder.
        niceness: its priority.
        oom_score: how readily the kernel ends it where memory runs out.
    """

    place: str
    sys_path: list[str]
    variables: dict[bytes, bytes]
    folder: str
    niceness: int
    oom_score: str

    @classmethod
    def like_this_process(cls, threads: int | None, environment: Mapping[str, str], sys_path: list[str]) -> Birth:
        """What a child of this process would have; for the first two see ``place_of``."""
        return cls(
            place_of(os.environ, threads, environment),
            sys_path,
            dict(os.environb),
            str(Path.cwd()),
            os.getpriority(os.PRIO_PROCESS, 0),
            Path("/proc/self/oom_score_adj").read_text(),
        )

    def encoded(self) -> bytes:
        """As it travels."""
        return msgspec.msgpack.encode(self)
