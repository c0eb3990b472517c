"""How convolutions run on the CPU: the channels innermost, and small maps as a product of matrices.

**channels_last.** The convolutions of a model on the CPU run on oneDNN, whose fast kernels want the channels innermost.
With weights in torch's default layout every layer converts its input and its output again; with weights in
``channels_last`` nothing is converted in between. ResNet18 at 224x224 on two cores: 33 images/s before, 45 to 51 after.
The numbers are those of another summation order, that is, the same to rounding. One thing can go wrong:
``x.view(n, -1)`` on such an output raises, where ``reshape`` or ``flatten`` would not; ``Layout.restore`` is for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from rayxform.model.runtime.loaded import loaded_torch, modules_of
from rayxform.model.runtime.small_maps import SmallMaps, is_plain

_VIEW_FAILED: Final = "view size is not compatible with input tensor's size and stride"


@dataclass(frozen=True)
class Layout:
    """What runs otherwise than the user's code has it, so that it can be put back.

    Attributes:
        modules: the convolutions whose weights were put into channels_last.
        small_maps: what runs in place of convolutions on maps of few pixels.
    """

    modules: tuple[Any, ...] = ()
    small_maps: tuple[SmallMaps, ...] = ()

    def is_cause_of(self, error: BaseException) -> bool:
        """Tell whether the error is torch's complaint about a view that only the default layout allows."""
        link: BaseException | None = error
        while (self.modules or self.small_maps) and link is not None:
            if isinstance(link, RuntimeError) and _VIEW_FAILED in str(link):
                return True
            link = link.__cause__ or link.__context__  # the user's code may have wrapped it
        return False

    def restore(self) -> None:
        """Put the weights back into torch's default layout, and let convolutions be convolutions."""
        for module in self.modules:
            module.to(memory_format=loaded_torch().contiguous_format)
        for one in self.small_maps:
            one.remove()


def lay_out(model: object) -> Layout:
    """Lay out a model's convolutions for the CPU, in place; the results stay the same to rounding.

    Args:
        model: what model_fn returned; see ``modules_of``.

    Returns:
        What was changed; empty without torch, on a GPU, for TorchScript, or without convolutions.
    """
    if loaded_torch() is None:
        return Layout()
    parts = [part for module in modules_of(model) for part in module.modules() if is_plain(part)]
    laid_out = tuple(part for part in parts if _gains(part) and _to_channels_last(part))
    return Layout(laid_out, tuple(SmallMaps(part) for part in parts if SmallMaps.fits(part)))


def _gains(convolution: Any) -> bool:
    """Tell whether its weights are not in channels_last already."""
    return not convolution.weight.is_contiguous(memory_format=loaded_torch().channels_last)


def _to_channels_last(convolution: Any) -> bool:
    try:
        convolution.to(memory_format=loaded_torch().channels_last)
    except RuntimeError:
        return False  # a model that forbids it runs as it is
    return True
