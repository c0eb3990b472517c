"""How layers run on the CPU: convolutions with the channels innermost, and what computes in place of a layer's own code.

**channels_last.** The convolutions of a model on the CPU run on oneDNN, whose fast kernels want the channels innermost.
With weights in torch's default layout every layer converts its input and its output again; with weights in
``channels_last`` nothing is converted in between. ResNet18 at 224x224 on two cores: 33 images/s before, 45 to 51 after.
The numbers are those of another summation order, that is, the same to rounding. One thing can go wrong:
``x.view(n, -1)`` on such an output raises, where ``reshape`` or ``flatten`` would not; ``Layout.restore`` is for that.

**In place of a layer** stand products of matrices for convolutions on small maps (``small_maps``), convolutions whose weights
are packed once (``packed_convolution``), and on AMD's CPUs oneDNN's product for that of MKL (``linear``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rayxform.model.runtime.linear import LinearLayer
from rayxform.model.runtime.loaded import loaded_torch
from rayxform.model.runtime.packed_convolution import PackedConvolution
from rayxform.model.runtime.small_maps import SmallMaps
from rayxform.model.runtime.stand_in import StandIn, is_plain

_VIEW_FAILED: Final = "view size is not compatible with input tensor's size and stride"


@dataclass(frozen=True)
class Layout:
    """What runs otherwise than the user's code has it, so that it can be put back.

    Attributes:
        modules: the convolutions whose weights were put into channels_last.
        stand_ins: what computes in place of convolutions.
    """

    modules: tuple[Any, ...] = ()
    stand_ins: tuple[StandIn, ...] = ()

    def is_cause_of(self, error: BaseException) -> bool:
        """Tell whether the error is torch's complaint about a view that only the default layout allows."""
        link: BaseException | None = error
        while (self.modules or self.stand_ins) and link is not None:
            if isinstance(link, RuntimeError) and _VIEW_FAILED in str(link):
                return True
            link = link.__cause__ or link.__context__  # the user's code may have wrapped it
        return False

    def restore(self) -> None:
        """Put the weights back into torch's default layout, and let convolutions compute as they did."""
        for module in self.modules:
            module.to(memory_format=loaded_torch().contiguous_format)
        for one in self.stand_ins:
            one.remove()


def lay_out(modules: Sequence[Any]) -> Layout:
    """Have the layers of a model run as is best on the CPU, in place; the results stay the same to rounding.

    Args:
        modules: what the model is made of; see ``modules_of``.

    Returns:
        What was changed of its convolutions; empty on a GPU, for TorchScript, or without convolutions.
    """
    layers = [part for module in modules for part in module.modules()]
    convolutions = [layer for layer in layers if isinstance(layer, loaded_torch().nn.Conv2d) and is_plain(layer)]
    laid_out = tuple(one for one in convolutions if _gains(one) and _to_channels_last(one))
    for layer in layers:
        if LinearLayer.fits(layer):
            LinearLayer(layer)
    return Layout(laid_out, tuple(stand_in for one in convolutions for stand_in in _stand_ins(one)))


def _stand_ins(convolution: Any) -> Iterator[StandIn]:
    """What computes in a convolution's place, the innermost first."""
    has_small_maps = SmallMaps.fits(convolution)
    if PackedConvolution.fits(convolution):
        yield PackedConvolution(convolution)
    if has_small_maps:
        yield SmallMaps(convolution)


def _gains(convolution: Any) -> bool:
    """Tell whether its weights are not in channels_last already."""
    return not convolution.weight.is_contiguous(memory_format=loaded_torch().channels_last)


def _to_channels_last(convolution: Any) -> bool:
    try:
        convolution.to(memory_format=loaded_torch().channels_last)
    except RuntimeError:
        return False  # a model that forbids it runs as it is
    return True
