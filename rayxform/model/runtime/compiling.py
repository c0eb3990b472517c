"""A model compiled once, and loaded by every worker: torch.export and AOTInductor.

``torch.compile`` would have each worker trace the model again, whatever it has cached of the code; what AOTInductor makes is a
library that a worker loads in 30 ms. It holds the weights, too, so it has the name of all that went into it (``kept``). Shapes
are known when the first request is there, so that is when it is made, by one worker a machine while the others wait; the
number of records stays open. ResNet18 in bfloat16 at 224x224, one core with AMX, batches of 8: 247 images/s instead of 146.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from rayxform.cache import keep
from rayxform.errors import ModelLoadError
from rayxform.model.runtime.loaded import loaded_torch, map_tensors, n_records

FEWEST: Final = 2
"""torch's code for any number of records begins here; a single one is sent twice."""

MAX_VARIANTS: Final = 8
"""For so many shapes of inputs a model is compiled; what comes with yet another one runs as it is."""


class Compiled:
    """Stands in for the ``forward`` of a module."""

    def __init__(self, module: Any, folder: Path, key: str, warn: Callable[[str], None]) -> None:
        """Take its place; compiles nothing yet.

        Args:
            module: the module, its ``forward`` as it is to be compiled.
            folder: where compiled models are kept.
            key: names the module and all that its code depends on.
            warn: takes a sentence about what is not compiled.

        Raises:
            ModelLoadError: it is TorchScript, or there is no C++ compiler.
        """
        torch = loaded_torch()
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelLoadError(
                "Rayxform.Compile is true, but model_fn returned TorchScript, which torch cannot compile any further; leave "
                "Compile out, or have model_fn return the module that it was made from"
            )
        _check_compiler()
        self._module = module
        self._forward = module.forward
        self._folder = folder
        self._key = key
        self._warn = warn
        self._variants: dict[str, Callable[..., Any] | None] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's result, from what was compiled for such inputs, or is compiled now."""
        torch = loaded_torch()
        if torch.compiler.is_compiling() or torch.is_grad_enabled():
            return self._forward(*args, **kwargs)
        inputs = map_tensors(_settled, (args, kwargs))
        signature = _signature(inputs)
        if signature not in self._variants:
            self._variants[signature] = self._variant(signature, *inputs)
        variant = self._variants[signature]
        return self._forward(*args, **kwargs) if variant is None else _call(variant, *inputs)

    def _variant(self, signature: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any] | None:
        """The compiled model for these inputs; None if they run uncompiled."""
        if len(self._variants) == MAX_VARIANTS:
            self._warn(f"Compile: inputs of more than {MAX_VARIANTS} shapes came; those of others run uncompiled")
        if len(self._variants) >= MAX_VARIANTS:
            return None
        name = hashlib.sha256(f"{self._key} {signature}".encode()).hexdigest()[:32] + ".pt2"
        try:
            return _load(keep(self._folder / name, lambda path: self._compile(path, args, kwargs)))
        except Exception as error:  # noqa: BLE001 - torch's compiler fails in many ways, and the model runs without it
            first = str(error).strip().partition("\n")[0]
            self._warn(f"Compile: the model runs uncompiled, since torch cannot compile it: {type(error).__name__}: {first}")
            return None

    def _compile(self, path: Path, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        torch = loaded_torch()
        from torch._inductor import aoti_compile_and_package  # noqa: PLC0415 - documented under this name

        if n_records((args, kwargs)) == 1:
            args, kwargs = map_tensors(_doubled, (args, kwargs))
        number = torch.export.Dim("records", min=FEWEST, max=2**31)
        shapes = torch.export.ShapesCollection()
        map_tensors(lambda tensor: shapes.__setitem__(tensor, {0: number}), (args, kwargs))
        with _as_it_was(self._module, self._forward), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # on a machine without a GPU it says so
            self._module(*args, **kwargs)  # what is made at the first call is then there
            program = torch.export.export(_whole(self._module), args, kwargs, dynamic_shapes=shapes)
            aoti_compile_and_package(program, package_path=str(path))


def _whole(module: Any) -> Any:
    """A module around it with a ``forward`` that is a method: torch.export looks at its code, and ours is an object."""

    class Whole(loaded_torch().nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.module(*args, **kwargs)

    return Whole().eval()


def _load(path: Path) -> Callable[..., Any]:
    from torch._inductor import aoti_load_package  # noqa: PLC0415 - see ``_compile``

    loaded: Callable[..., Any] = aoti_load_package(str(path))
    return loaded


def _call(variant: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if n_records((args, kwargs)) != 1:
        return variant(*args, **kwargs)
    args, kwargs = map_tensors(_doubled, (args, kwargs))
    return map_tensors(lambda tensor: tensor[:1] if tensor.dim() else tensor, variant(*args, **kwargs))


def _doubled(tensor: Any) -> Any:
    return loaded_torch().cat([tensor, tensor])


def _settled(tensor: Any) -> Any:
    """As the compiled code takes it: it was made for one order of the values in memory, and checks that no more."""
    torch = loaded_torch()
    last = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
    return tensor.contiguous(memory_format=last)


def _signature(inputs: Any) -> str:
    """What a compiled variant is made for: types and shapes but for the number of records, and all else as it is."""
    from torch.utils._pytree import tree_flatten  # noqa: PLC0415 - as in ``loaded.map_tensors``

    torch = loaded_torch()
    leaves, form = tree_flatten(inputs)
    shown = [
        f"{one.dtype} {one.device} {tuple(one.shape[1:])} {one.dim()}" if isinstance(one, torch.Tensor) else repr(one)
        for one in leaves
    ]
    return f"{shown} {form}"


@contextlib.contextmanager
def _as_it_was(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """The module with the ``forward`` that it had."""
    ours = module.forward
    module.forward = forward
    try:
        yield
    finally:
        module.forward = ours


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler  # noqa: PLC0415 - what the compiler will use
    from torch._inductor.exc import InvalidCxxCompiler  # noqa: PLC0415

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError) as error:
        raise ModelLoadError(
            "Rayxform.Compile is true, but there is no C++ compiler, which torch needs for it: install g++ on every machine "
            f"(CXX is {os.environ.get('CXX', 'not set')}), or leave Compile out"
        ) from error
