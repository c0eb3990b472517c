"""Batch norms folded into the convolutions that feed them: the same numbers to rounding, and one pass less over each map.

In evaluation a batch norm multiplies each channel by a constant and adds another, which the convolution's weights and bias can
take over (torch.nn.utils.fusion). Which convolution feeds which norm, and nothing else, is seen in the model's graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from rayxform.model.runtime.graph import Traced
from rayxform.model.runtime.loaded import loaded_torch


def fold_batch_norms(module: Any, traced: Traced) -> None:
    """Fold what can be folded, in place.

    Args:
        module: a module.
        traced: its graph.
    """
    for convolution, norm in list(_pairs(module, traced.graph)):
        _fold(convolution, norm)


def _pairs(module: Any, graph: Any) -> Iterator[tuple[Any, Any]]:
    """Convolutions and the norms that are all that takes what they give."""
    parts = dict(module.named_modules(remove_duplicate=False))
    uses = Counter(id(parts[node.target]) for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        if node.op != "call_module" or len(node.args) != 1 or not isinstance(node.args[0], type(node)):
            continue
        before = node.args[0]
        if before.op != "call_module" or len(before.users) != 1:
            continue
        convolution, norm = parts[before.target], parts[node.target]
        are_used_once = uses[id(convolution)] == uses[id(norm)] == 1
        if are_used_once and is_foldable_norm(norm) and _is_foldable_convolution(convolution):
            yield convolution, norm


def _is_foldable_convolution(module: Any) -> bool:
    torch = loaded_torch()
    if type(module) not in (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d):
        return False
    return not module.training and _is_its_own(module) and bool(module.weight.is_floating_point())


def is_foldable_norm(module: Any) -> bool:
    """Tell whether a module is a batch norm that is a constant factor and offset for each channel."""
    torch = loaded_torch()
    if type(module) not in (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d):
        return False
    if module.training or module.running_var is None or module.running_mean is None or not _is_its_own(module):
        return False
    return module.weight is None or bool((module.weight != 0).all())  # else there is no way back


def _is_its_own(module: Any) -> bool:
    """Whether nobody looks at what goes in and out, and weights are parameters as torch made them."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    is_plain = not hasattr(module, "parametrizations") and "forward" not in vars(module)
    return is_plain and not any(getattr(module, name, None) for name in hooks)


def _fold(convolution: Any, norm: Any) -> None:
    torch = loaded_torch()
    from torch.nn.utils.fusion import fuse_conv_bn_weights  # noqa: PLC0415

    with torch.no_grad():
        weight, bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
    convolution.weight, convolution.bias = weight, bias
    norm.forward = _Folded(norm)


class _Folded:
    """Stands in for the ``forward`` of a norm that its convolution has taken over."""

    def __init__(self, norm: Any) -> None:
        self._norm = norm
        self._forward = norm.forward

    def __call__(self, maps: Any) -> Any:
        norm = self._norm
        if not norm.training:
            return maps
        # A handler that puts the model into training after all, as Monte Carlo dropout does, gets what it asked for.
        shape = (1, -1, *[1] * (maps.dim() - 2))
        shifted = maps if norm.bias is None else maps - norm.bias.view(shape)
        scaled = shifted if norm.weight is None else shifted / norm.weight.view(shape)
        return self._forward(scaled * (norm.running_var + norm.eps).sqrt().view(shape) + norm.running_mean.view(shape))
