"""The name of what is found out about a model once, and kept (``cache``) for all workers and the next job with the same model.

It holds all that the finding depends on: the model's files and code, what else is installed, the machine, and the settings.
So nothing is ever out of date; what has another name is not looked at.
"""

from __future__ import annotations

import hashlib
import inspect
import platform
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rayxform._version import __version__
from rayxform.model.runtime.cpu import cpu_features
from rayxform.model.runtime.loaded import loaded_torch, modules_of


def model_key(model: object, given: Mapping[str, object]) -> str:
    """A name for a model as it runs in this process, as hexadecimal digits.

    Args:
        model: what model_fn returned.
        given: what else it depends on: the digest of its files, and the settings.
    """
    from importlib.metadata import distributions  # noqa: PLC0415 - takes a while to import, and few jobs need it

    torch = loaded_torch()
    devices = {str(one.device) for module in modules_of(model) for one in module.parameters()}
    gpus = [torch.cuda.get_device_name(one) for one in devices if one.startswith("cuda")]
    folders = [one for one in sys.path if not one.endswith("_vendor")]  # which setuptools adds when it is imported
    facts: dict[str, object] = {
        **given,
        "rayxform": __version__,
        "python": sys.version,
        "torch": [torch.__version__, torch.version.git_version, torch.backends.cpu.get_cpu_capability()],
        "machine": [platform.machine(), cpu_features(), torch.get_num_threads(), gpus],
        "installed": sorted(f"{one.metadata['Name']} {one.version}" for one in distributions(path=folders)),
        "code": _code_digests(module for module in modules_of(model)),
    }
    return hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:32]


def _code_digests(modules: Iterable[Any]) -> list[tuple[str, str]]:
    """The source files of the classes that a model is made of, which may lie anywhere, and may be edited in place."""
    files = set()
    for kind in {type(part) for module in modules for part in module.modules()}:
        try:
            files.add(inspect.getfile(kind))
        except (TypeError, OSError):  # TorchScript, or defined where there is no file: the model's own files say it
            continue
    return [(name, hashlib.sha256(Path(name).read_bytes()).hexdigest()) for name in sorted(files) if Path(name).is_file()]
