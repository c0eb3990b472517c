"""A linear layer in float32 on AMD's CPUs: through oneDNN, whose kernels there are twice as fast as those torch takes.

torch multiplies float32 matrices with MKL, which on CPUs that are not Intel's keeps to AVX2, and computes in bfloat16 and
convolves with oneDNN, which uses what the CPU has. One core of an EPYC with AVX-512, 32 rows of 768 values to 3,072:
96 GFLOP/s and 185, 512 rows: 112 and 251; with AVX2 alone 92 and 103, 109 and 123.
"""

from __future__ import annotations

from typing import Any, Final

from rayxform.model.runtime.cpu import is_amd
from rayxform.model.runtime.loaded import loaded_torch, onednn_has
from rayxform.model.runtime.stand_in import StandIn, computes_in, has_forward_of, is_plain

MIN_ROWS: Final = 4
MIN_MULTIPLICATIONS: Final = 1_000_000
"""With less to do MKL is as fast: oneDNN puts the weights into another order first."""


class LinearLayer(StandIn):
    """Stands in for the ``forward`` of a Linear."""

    @staticmethod
    def fits(layer: Any) -> bool:
        """Tell whether a module is a linear layer that may gain by it on this machine."""
        torch = loaded_torch()
        if not isinstance(layer, torch.nn.Linear) or not has_forward_of(torch.nn.Linear, layer):
            return False
        return is_plain(layer) and layer.weight.dtype == torch.float32 and _onednn_is_faster()

    def __call__(self, values: Any) -> Any:
        """(…, values in) → (…, values out)."""
        layer = self._module
        fits = self._may_compute(values, layer.weight) and values.dim() > 0 and values.shape[-1] == layer.in_features
        return linear(values, layer.weight, layer.bias) if fits else self._forward(values)


def linear(values: Any, weight: Any, bias: Any) -> Any:
    """What ``torch.nn.functional.linear`` gives, to rounding; without a gradient.

    Args:
        values: (…, values in), on the CPU.
        weight: (values out, values in).
        bias: (values out), or None.
    """
    torch = loaded_torch()
    if not (_is_worth_it(values, weight) and _onednn_is_faster()):
        return torch.nn.functional.linear(values, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")  # noqa: SLF001 - torch.compile's own


def _is_worth_it(values: Any, weight: Any) -> bool:
    torch = loaded_torch()
    if not (values.dtype == weight.dtype == torch.float32 and computes_in(torch.float32) and weight.is_contiguous()):
        return False
    if torch.compiler.is_compiling():  # then how many rows there will be is not known
        return _is_exporting()
    rows = values.numel() // values.shape[-1]
    return bool(rows >= MIN_ROWS and rows * weight.numel() >= MIN_MULTIPLICATIONS)


def _is_exporting() -> bool:
    """Tell whether torch.export looks on, as for Compile: to a user's own torch.compile weights are no constants."""
    is_exporting = getattr(loaded_torch().compiler, "is_exporting", None)  # not in the oldest releases
    return is_exporting is not None and bool(is_exporting())


def _onednn_is_faster() -> bool:
    return is_amd() and onednn_has("_linear_pointwise")
