"""torch, where the user's own code has imported it, and the modules that a model consists of."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any


def loaded_torch() -> Any:
    """Return torch if the user's code has imported it, whole; else None."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "no_grad") else None


def onednn_has(operator: str) -> bool:
    """Tell whether torch computes with oneDNN, which a user can turn off, and has one of its operators under that name."""
    torch = loaded_torch()
    onednn = torch.backends.mkldnn
    return bool(onednn.is_available() and onednn.enabled) and hasattr(torch.ops.mkldnn, operator)


def modules_of(model: object) -> Iterator[Any]:
    """Give the torch modules that a model is made of, each once; none where it is something else.

    Args:
        model: what model_fn returned: a module, a tuple, list or dict of them, or an object that has some as attributes,
            as a pipeline of transformers has.
    """
    torch = loaded_torch()
    if torch is None:
        return
    seen: set[int] = set()
    for member in _members(model, torch.nn.Module):
        if isinstance(member, torch.nn.Module) and id(member) not in seen:
            seen.add(id(member))
            yield member


def _members(model: object, module_type: type) -> Iterator[object]:
    if isinstance(model, module_type):
        yield model
    elif isinstance(model, Mapping):
        yield from model.values()
    elif isinstance(model, (tuple, list)):
        yield from model
    else:
        yield from getattr(model, "__dict__", {}).values()


def map_tensors(function: Callable[[Any], Any], tree: Any) -> Any:
    """Replace each tensor in nested tuples, lists, dicts and the output classes that torch knows of."""
    from torch.utils._pytree import tree_map_only  # noqa: PLC0415 - the one way to do it that torch has

    return tree_map_only(loaded_torch().Tensor, function, tree)


def n_records(tree: Any) -> int | None:
    """How long all tensors in it are, as ``map_tensors`` sees them; None if they differ, or there are none."""
    from torch.utils._pytree import tree_leaves  # noqa: PLC0415

    tensors = [one for one in tree_leaves(tree) if isinstance(one, loaded_torch().Tensor)]
    lengths = {int(one.shape[0]) if one.dim() else None for one in tensors}
    return lengths.pop() if len(lengths) == 1 else None


def set_threads(threads: int | None) -> None:
    """Set how many threads torch computes with, where torch is loaded and ``threads`` is not None.

    Left to itself torch takes every core in every worker, and two workers on two cores then run at half the speed of
    one. Threads between operators are of no use to one request at a time, and torch takes their number only once.
    """
    torch = loaded_torch()
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
    torch = loaded_torch()
    context: AbstractContextManager[object] = contextlib.nullcontext() if torch is None else torch.no_grad()
    return context


def gpu_id() -> int | None:
    """Return the number of the GPU that torch uses by default, or None without a GPU or without torch.

    It is 0 for every worker: each sees only the GPUs that are its own (CUDA_VISIBLE_DEVICES).
    """
    torch = loaded_torch()
    return 0 if torch is not None and torch.cuda.is_available() else None


def free_memory() -> None:
    """Give back what nothing refers to any more: cycles of objects, and what torch keeps of a GPU's memory for later."""
    gc.collect()
    torch = loaded_torch()
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def in_training_mode(model: object) -> bool:
    """Tell whether a module of the model is in training mode: dropout is random then, and batch norm mixes records."""
    return any(module.training for module in modules_of(model))
