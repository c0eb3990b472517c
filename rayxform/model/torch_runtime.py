"""How a model runs on torch: threads, memory layout, no gradients. Only where the user's own code has imported torch.

Nothing here imports torch by itself, so a handler without it starts in milliseconds and stays small.

**channels_last.** The convolutions of a model on the CPU run on oneDNN, whose fast kernels want the channels innermost.
With weights in torch's default layout every layer converts its input and its output again; with weights in
``channels_last`` nothing is converted in between. ResNet18 at 224x224 on two cores: 33 images/s before, 45 to 51 after.
The numbers are those of another summation order, that is, the same to rounding. One thing can go wrong:
``x.view(n, -1)`` on such an output raises, where ``reshape`` or ``flatten`` would not; ``Layout.restore`` is for that.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

_VIEW_FAILED: Final = "view size is not compatible with input tensor's size and stride"


@dataclass(frozen=True)
class Layout:
    """The convolutions whose weights were put into channels_last, so that they can be put back."""

    modules: tuple[Any, ...] = ()

    def is_cause_of(self, error: BaseException) -> bool:
        """Tell whether the error is torch's complaint about a view that only the default layout allows."""
        link: BaseException | None = error
        while self.modules and link is not None:
            if isinstance(link, RuntimeError) and _VIEW_FAILED in str(link):
                return True
            link = link.__cause__ or link.__context__  # the user's code may have wrapped it
        return False

    def restore(self) -> None:
        """Put the weights back into torch's default layout."""
        torch = _loaded_torch()
        for module in self.modules:
            module.to(memory_format=torch.contiguous_format)


def prepare(model: object, threads: int | None) -> Layout:
    """Set torch's threads, and lay out a model's convolutions for the CPU, in place.

    The model's results stay the same to rounding, and its mode (training or not) stays what it is.

    Args:
        model: what model_fn returned: a module, a tuple, list or dict of them, or anything else, which is left alone.
        threads: how many threads torch computes with; None leaves that to torch.

    Returns:
        What was laid out anew; empty without torch, on a GPU, for TorchScript, or without convolutions.
    """
    torch = _loaded_torch()
    if torch is None:
        return Layout()
    set_threads(threads)
    convolutions = [part for module in _modules(model) for part in module.modules() if _gains(part)]
    return Layout(tuple(part for part in convolutions if _to_channels_last(part)))


def set_threads(threads: int | None) -> None:
    """Set how many threads torch computes with, where torch is loaded and ``threads`` is not None.

    Left to itself torch takes every core in every worker, and two workers on two cores then run at half the speed of
    one. Threads between operators are of no use to one request at a time, and torch takes their number only once.
    """
    torch = _loaded_torch()
    if torch is None or threads is None:
        return
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:
        with contextlib.suppress(RuntimeError):
            torch.set_num_interop_threads(1)


def no_grad() -> AbstractContextManager[object]:
    """Return a context without gradients; one that does nothing where torch is not loaded.

    It is ``no_grad`` and not ``inference_mode``: code that wants a gradient after all can ask for it inside with
    ``torch.enable_grad()``, which cannot be had back from inference mode.
    """
    torch = _loaded_torch()
    context: AbstractContextManager[object] = contextlib.nullcontext() if torch is None else torch.no_grad()
    return context


def gpu_id() -> int | None:
    """Return the number of the GPU that torch uses by default, or None without a GPU or without torch.

    It is 0 for every worker: each sees only the GPUs that are its own (CUDA_VISIBLE_DEVICES).
    """
    torch = _loaded_torch()
    return 0 if torch is not None and torch.cuda.is_available() else None


def free_memory() -> None:
    """Give back what nothing refers to any more: cycles of objects, and what torch keeps of a GPU's memory for later."""
    gc.collect()
    torch = _loaded_torch()
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def in_training_mode(model: object) -> bool:
    """Tell whether a module of the model is in training mode: dropout is random then, and batch norm mixes records."""
    return any(module.training for module in _modules(model))


def _loaded_torch() -> Any:
    """Return torch if the user's code has imported it, whole; else None."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "no_grad") else None


def _modules(model: object) -> Iterator[Any]:
    torch = _loaded_torch()
    if torch is None:
        return
    members = model.values() if isinstance(model, Mapping) else model if isinstance(model, (tuple, list)) else (model,)
    yield from (member for member in members if isinstance(member, torch.nn.Module))


def _gains(module: Any) -> bool:
    """Tell whether it is a plain Conv2d with its weights on the CPU, and not in channels_last already."""
    torch = _loaded_torch()
    if not isinstance(module, torch.nn.Conv2d):
        return False
    # A parametrized weight (spectral_norm and the like) is no parameter of its own, and a lazy one has no shape yet.
    weight = dict(module.named_parameters(recurse=False)).get("weight")
    if weight is None or torch.nn.parameter.is_lazy(weight) or weight.device.type != "cpu":
        return False
    return bool(weight.is_floating_point() and not weight.is_contiguous(memory_format=torch.channels_last))


def _to_channels_last(module: Any) -> bool:
    try:
        module.to(memory_format=_loaded_torch().channels_last)
    except RuntimeError:
        return False  # a model that forbids it runs as it is
    return True
