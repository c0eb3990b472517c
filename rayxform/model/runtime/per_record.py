"""Whether a model makes of each record what it makes of it among others, read off its graph.

Every operation has to be one that is known to; a model with one that is not here may mix records for all that we know.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

from rayxform.model.runtime.graph import Traced
from rayxform.model.runtime.loaded import loaded_torch

_ACTIVATIONS: Final = ("ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Sigmoid", "Tanh")
_HARD_ACTIVATIONS: Final = ("Hardswish", "Hardsigmoid", "Hardtanh", "Softplus")
_POOLS: Final = ("MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d")
_SIZES: Final = ("Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d", "PixelShuffle", "ZeroPad2d", "ReflectionPad2d")
_OTHERS: Final = ("Conv2d", "ConvTranspose2d", "Linear", "Identity", "Dropout", "Dropout2d", "GroupNorm", "LocalResponseNorm")
_LAYERS: Final = {*_ACTIVATIONS, *_HARD_ACTIVATIONS, *_POOLS, *_SIZES, *_OTHERS}
"""Layers of torch.nn that do, whatever their settings, once they are not in training."""

_OPERATORS: Final = ("add", "add_", "sub", "mul", "mul_", "truediv", "iadd", "imul", "neg", "contiguous")
_OF_ACTIVATIONS: Final = ("relu", "relu_", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish", "sigmoid", "tanh", "hardswish")
_OF_POOLS: Final = ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d")
_FUNCTIONS: Final = {*_OPERATORS, *_OF_ACTIVATIONS, *_OF_POOLS, "hardsigmoid", "stochastic_depth"}
"""Functions and methods that do; those of two values take numbers and weights, too, as ``_may_broadcast`` says."""

_PACKAGES: Final = frozenset(("torch", "torchvision", "_operator", "builtins"))
"""Whose functions these are; a user's own may have the same names."""

_DIMENSIONS: Final = {"flatten": "start_dim", "cat": "dim", "mean": "dim", "softmax": "dim", "log_softmax": "dim"}
"""Those that do along any dimensions but the first, and the argument that names them."""

_TAKE_WEIGHTS: Final = ("add", "sub", "mul", "layer_norm")


def computes_each_record_alone(module: Any, traced: Traced) -> bool:
    """Tell whether a module on the CPU, out of training, computes each record of one input by itself; if in doubt, not.

    Args:
        module: the module.
        traced: its graph.
    """
    parameters = list(module.parameters())
    if traced.keeps_values or not parameters or any(one.device.type != "cpu" for one in parameters):
        return False
    parts = dict(module.named_modules(remove_duplicate=False))
    inputs = [node for node in traced.graph.nodes if node.op == "placeholder" and node.users]
    return len(inputs) == 1 and all(_is_known(node, parts, traced.owner) for node in traced.graph.nodes)


def _is_known(node: Any, parts: dict[str, Any], owner: Any) -> bool:
    """Tell whether a node's values belong to a record each, if those do that it is given."""
    if node.op == "call_module":
        return _is_known_layer(parts[node.target])
    if node.op == "get_attr":
        has_known_users = all(_name(user) in _TAKE_WEIGHTS for user in node.users)
        return has_known_users and _may_broadcast(operator.attrgetter(node.target)(owner))
    if node.op in ("call_function", "call_method"):
        return _is_known_call(node)
    return node.op in ("placeholder", "output")


def _is_known_layer(layer: Any) -> bool:
    nn = loaded_torch().nn
    name = type(layer).__name__
    if type(layer) is not getattr(nn, name, None):
        return False
    settings: dict[str, Callable[[], object]] = {
        "BatchNorm2d": lambda: layer.running_mean is not None,
        "LayerNorm": lambda: len(layer.normalized_shape) == 1,
        "Flatten": lambda: layer.start_dim >= 1,
        "Softmax": lambda: _are_behind_records(layer.dim),
        "LogSoftmax": lambda: _are_behind_records(layer.dim),
    }
    return bool(settings[name]()) if name in settings else name in _LAYERS


def _is_known_call(node: Any) -> bool:
    name = _name(node)
    if node.op == "call_function" and str(getattr(node.target, "__module__", "")).split(".")[0] not in _PACKAGES:
        return False
    if name in _DIMENSIONS:
        return _are_behind_records(_argument(node, 1, _DIMENSIONS[name]))
    settings: dict[str, Callable[[], object]] = {
        "view": lambda: _keeps_count(node),
        "reshape": lambda: _keeps_count(node),
        "size": lambda: _is_about_count(node),
        "getattr": lambda: _is_about_count(node),
        "getitem": lambda: _is_about_count(node),
        "permute": lambda: _argument(node, 1, "dims") == 0 or _first(_argument(node, 1, "dims")) == 0,
        "layer_norm": lambda: len(_argument(node, 1, "normalized_shape") or ()) == 1,
        "dropout": lambda: _argument(node, 2, "training") is False,
    }
    return bool(settings[name]()) if name in settings else name in _FUNCTIONS


def _keeps_count(node: Any) -> bool:
    """Tell whether a new shape begins with the number of records, as in ``x.view(x.size(0), -1)``."""
    return len(node.args) > 1 and _is_count(node.args[1]) and all(isinstance(one, int) for one in node.args[2:])


def _is_about_count(node: Any) -> bool:
    """Tell whether all that is taken of a shape is the number of records, to begin another shape with."""
    if _is_count(node):
        return all(_name(user) in ("view", "reshape") and user.args[1] is node for user in node.users)
    return _is_shape(node) and all(_is_count(user) for user in node.users)


def _is_count(node: Any) -> bool:
    """Tell whether a node is the number of records: ``x.size(0)``, ``x.size()[0]`` or ``x.shape[0]``."""
    if _name(node) == "size":
        return tuple(node.args[1:]) == (0,)
    return _name(node) == "getitem" and node.args[1] == 0 and _is_shape(node.args[0])


def _is_shape(node: Any) -> bool:
    if _name(node) == "size":
        return len(node.args) == 1 and not node.kwargs
    return _name(node) == "getattr" and node.args[1] == "shape"


def _are_behind_records(dimensions: Any) -> bool:
    """Tell whether dimensions are given, and none is the first; from the end, that is not known."""
    given = dimensions if isinstance(dimensions, (list, tuple)) else [dimensions]
    return bool(given) and all(isinstance(one, int) and one >= 1 for one in given)


def _argument(node: Any, place: int, name: str) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name)


def _first(values: Any) -> Any:
    return values[0] if isinstance(values, (list, tuple)) and values else None


def _name(node: Any) -> str:
    """The name of what a node calls; "" for one that calls nothing."""
    target = getattr(node, "target", "") if getattr(node, "op", "") in ("call_function", "call_method") else ""
    return target if isinstance(target, str) else str(getattr(target, "__name__", ""))


def _may_broadcast(weight: Any) -> bool:
    """Tell whether a weight, or a constant, is the same for all records: its first dimension is no record's."""
    if not isinstance(weight, loaded_torch().Tensor):
        return False
    return weight.dim() <= 1 or weight.shape[0] == 1 or tuple(weight.shape[1:]) == (1, 1)
