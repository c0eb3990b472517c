"""What computes in place of a module's own ``forward``, where it may: the result is the same to rounding, and there sooner.

Nothing of the model is replaced: its modules, their classes and their weights stay what the user's code expects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rayxform.model.runtime.loaded import loaded_torch


class StandIn:
    """Stands in for the ``forward`` of a module on the CPU, and calls that for whatever it does not compute itself."""

    def __init__(self, module: Any) -> None:
        """Put it in place."""
        self._module = module
        self._forward: Callable[..., Any] = module.forward
        self.__wrapped__ = module.forward  # whose signature is looked at, by libraries that pass arguments by name
        module.forward = self

    def remove(self) -> None:
        """Give the module its own ``forward`` back."""
        vars(self._module).pop("forward", None)

    def _may_compute(self, values: Any, weight: Any) -> bool:
        """Tell whether values lie where a weight does, and no gradient is wanted: that is one of the module's own weights.

        Nor does torch.jit look on, which would keep what is decided here for values of any shape.
        """
        torch = loaded_torch()
        wants_gradient = torch.is_grad_enabled() or self._module.training
        return values.device == weight.device and not wants_gradient and not torch.jit.is_tracing()

    def _state(self) -> object:
        """Something that changes when a layer's weights do."""
        weights = (self._module.weight, self._module.bias)
        return tuple((id(one), one.data_ptr(), _version(one), one.dtype) for one in weights if one is not None)


def is_plain(layer: Any) -> bool:
    """Tell whether the weights of a layer on the CPU are parameters with a shape, and floats."""
    torch = loaded_torch()
    # A parametrized weight (spectral_norm and the like) is no parameter of its own, and a lazy one has no shape yet.
    weight = dict(layer.named_parameters(recurse=False)).get("weight")
    if weight is None or torch.nn.parameter.is_lazy(weight) or weight.device.type != "cpu":
        return False
    return bool(weight.is_floating_point())


def has_forward_of(kind: Any, layer: Any) -> bool:
    """Tell whether a layer computes what torch's class does."""
    return type(layer).forward is kind.forward and "forward" not in vars(layer)


def computes_in(dtype: Any) -> bool:
    """Tell whether autocast, if it is on, computes in a type."""
    torch = loaded_torch()
    return not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") == dtype


def _version(tensor: Any) -> int:
    return 0 if tensor.is_inference() else int(tensor._version)  # noqa: SLF001 - torch's counter of changes in place
