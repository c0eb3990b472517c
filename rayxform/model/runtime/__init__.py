"""How a user's model runs on torch. Only where the user's own code has imported it, so a handler without torch stays small."""

from rayxform.model.runtime.arithmetic import Arithmetic, Precision, Runtime, prepare
from rayxform.model.runtime.loaded import free_memory, gpu_id, in_training_mode, no_grad, set_threads

__all__ = [
    "Arithmetic",
    "Precision",
    "Runtime",
    "free_memory",
    "gpu_id",
    "in_training_mode",
    "no_grad",
    "prepare",
    "set_threads",
]
