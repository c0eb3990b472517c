"""The model: its archive, the user's ``inference.py`` or an HTTP server, torch and aiohttp, imported here alone, on demand."""

from rayxform.model.archives import MAX_MODEL_BYTES, MAX_MODEL_MEMBERS, file_digest, unpack_model
from rayxform.model.context import InvocationContext, sagemaker_environment
from rayxform.model.entry_point import DEFAULT_ENTRY_POINT, check_syntax, find_entry_point
from rayxform.model.handler import Handler
from rayxform.model.process import ModelProcess, log_file
from rayxform.model.protocol import Model, Response
from rayxform.model.requirements import are_met, install_requirements
from rayxform.model.runtime import Arithmetic

__all__ = [
    "DEFAULT_ENTRY_POINT",
    "MAX_MODEL_BYTES",
    "MAX_MODEL_MEMBERS",
    "Arithmetic",
    "Handler",
    "InvocationContext",
    "Model",
    "ModelProcess",
    "Response",
    "are_met",
    "check_syntax",
    "file_digest",
    "find_entry_point",
    "install_requirements",
    "log_file",
    "sagemaker_environment",
    "unpack_model",
]
