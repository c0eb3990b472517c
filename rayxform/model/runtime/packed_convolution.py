"""A convolution whose weights are put into the order that oneDNN's kernels read once, and not at every call.

That order is not torch's, so each call begins by making a copy of the weights in it. The copy is as long as the weights are,
the work as long as the maps: where a mini-batch's maps have few pixels in all, as the last layers of a ResNet do, the copy
takes up to a fifth of a layer's time. A single record's maps torch does not even give to oneDNN where it computes with one
thread. ResNet18 at 224x224, one core of an EPYC with AVX-512, ms an image in float32, by records: 1: 23.9 before and 16.3
after, 4: 15.6 and 14.0, 8: 14.4 and 13.5; 8 in bfloat16 8.0 and 7.6.
"""

from __future__ import annotations

import math
from typing import Any, Final

from rayxform.model.runtime.loaded import loaded_torch, onednn_has
from rayxform.model.runtime.precision import cpu_computes
from rayxform.model.runtime.stand_in import StandIn, computes_in, has_forward_of

MAX_PIXELS: Final = 4096
"""A copy takes some 87 / pixels of the layer's time, pixels of all records' results counted. With more than so many the gain
is below 2 %, and not worth keeping the weights twice in memory."""


class PackedConvolution(StandIn):
    """Stands in for the ``forward`` of a Conv2d."""

    def __init__(self, convolution: Any) -> None:
        """Put it in place; packs nothing yet."""
        super().__init__(convolution)
        self._packed: tuple[object, Any] | None = None

    @staticmethod
    def fits(convolution: Any) -> bool:
        """Tell whether a plain Conv2d may gain by it."""
        kind = loaded_torch().nn.Conv2d
        is_torchs = has_forward_of(kind, convolution) and type(convolution)._conv_forward is kind._conv_forward  # noqa: SLF001
        has_numbers = convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
        return is_torchs and has_numbers and onednn_has("_convolution_pointwise")

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: what is packed is no tensor that can be copied."""
        return vars(self) | {"_packed": None}

    def __call__(self, maps: Any) -> Any:
        """(n, channels in, height, width) → (n, channels out, height, width), in channels_last."""
        if not self._takes(maps):
            return self._forward(maps)
        one = self._module
        return loaded_torch().ops.mkldnn._convolution_pointwise(  # noqa: SLF001 - torch.compile's own
            maps, self._weights(maps), one.bias, one.padding, one.stride, one.dilation, one.groups, "none", [], ""
        )

    def _takes(self, maps: Any) -> bool:
        torch, one = loaded_torch(), self._module
        if torch.compiler.is_compiling() or not self._may_compute(maps, one.weight):  # what is packed is no part of a graph
            return False
        if maps.dim() != 4 or maps.shape[1] != one.in_channels:
            return False
        pixels = maps.shape[0] * maps.shape[2] * maps.shape[3] // math.prod(one.stride)
        # Values in torch's default order would stay in it: all that comes after would be slower.
        is_in_order = maps.is_contiguous(memory_format=torch.channels_last)
        return 0 < pixels <= MAX_PIXELS and is_in_order and _has_kernels(maps.dtype, one.weight.dtype)

    def _weights(self, maps: Any) -> Any:
        """The weights in the order that is best for such maps; for others of another size it is right, too."""
        state = self._state()
        if self._packed is None or self._packed[0] != state:
            one = self._module
            packed = loaded_torch().ops.mkldnn._reorder_convolution_weight(  # noqa: SLF001 - see ``__call__``
                one.weight.detach(), one.padding, one.stride, one.dilation, one.groups, list(maps.shape)
            )
            self._packed = state, packed
        return self._packed[1]


def _has_kernels(dtype: Any, weights_dtype: Any) -> bool:
    """Tell whether oneDNN is what torch convolves such values with."""
    torch = loaded_torch()
    if dtype != weights_dtype or not computes_in(dtype) or not onednn_has("_convolution_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and cpu_computes("bfloat16"))
