"""What a module computes, as a graph: torch.fx runs its ``forward`` on stand-ins for the values."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Traced:
    """A module's graph.

    Attributes:
        graph: its ``torch.fx.Graph``; its layers are in it as ``call_module``.
        owner: a copy of the module, with the same parameters, which has all that the graph names: tensors that ``forward``
            makes itself, too.
        keeps_values: whether the module keeps something that it computes, for whoever looks there later.
    """

    graph: Any
    owner: Any
    keeps_values: bool


def trace(module: Any) -> Traced | None:
    """The graph of a module; None of one whose ``forward`` looks at values or at how many there are, or is not its class's.

    Args:
        module: the module, which stays as it is.
    """
    import torch.fx  # noqa: PLC0415 - only for models with layers to which it matters

    if any("forward" in vars(part) for part in module.modules()):
        return None  # torch.fx would follow the class's
    try:
        # A copy, for tracing runs the user's forward on stand-ins, which it may keep; but one with the same weights.
        traced = copy.deepcopy(module, {id(one): one for one in module.parameters()})
        graph = torch.fx.Tracer().trace(traced)
    except Exception:  # noqa: BLE001 - a forward that looks at values, or anything else
        return None
    return Traced(graph, traced, any(_holds(torch.fx.Proxy, vars(part)) for part in traced.modules()))


def _holds(kind: type, value: object) -> bool:
    """Tell whether a value is of a kind, or a collection that has one in it."""
    if isinstance(value, dict):
        return any(_holds(kind, one) for one in value.values())
    if isinstance(value, (list, tuple, set)):
        return any(_holds(kind, one) for one in value)
    return isinstance(value, kind)
