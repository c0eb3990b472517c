"""A mini-batch of images goes through a model on the CPU a few at a time, where the model provably makes of each what it is.

What lies between two layers then stays in the cache. Two processes of one thread each, images/s at 224x224 in pieces of 4 and
24 at once, on an EPYC with AVX-512: ResNet18 123 and 106, ResNet50 42 and 40, MobileNetV3 430 and 347, EfficientNet-B0 205
and 134, ConvNeXt-T 31 and 25, VGG11 26 and 24, DenseNet121 43 and 37; ResNet18 at 32x32 in pieces of 192 7,313, of 384 7,277.

Whether a model computes each record by itself is read off its graph (``per_record``), so results are the same to rounding.
ModelMicroBatch is for all other models, and for a size that is measured.
"""

from __future__ import annotations

from typing import Any, Final

from rayxform.model.runtime.loaded import loaded_torch
from rayxform.model.runtime.micro_batch import joined, pieces_of
from rayxform.model.runtime.stand_in import StandIn

MAX_BYTES: Final = 4 * 224 * 224 * 4
"""The bytes that a channel of a piece takes: those of four photos of 224x224 in float32, of eight in bfloat16."""


class SmallPieces(StandIn):
    """Stands in for the ``forward`` of a module that computes each record by itself."""

    def __init__(self, module: Any) -> None:
        """Put it in place."""
        super().__init__(module)
        self._parts = list(module.modules())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's result for all records, from that for each piece."""
        size = self._size(args, kwargs)
        if size is None or len(args[0]) <= size:
            return self._forward(*args, **kwargs)
        pieces = pieces_of(self._forward, size, len(args[0]), args, kwargs)
        return self._forward(*args, **kwargs) if pieces is None else joined(pieces)

    def _size(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        """How many records a piece holds; None if they have to stay together."""
        torch = loaded_torch()
        if len(args) != 1 or kwargs or not isinstance(args[0], torch.Tensor) or args[0].dim() != 4:
            return None
        weight = next(self._module.parameters())
        if torch.compiler.is_compiling() or not self._may_compute(args[0], weight) or any(map(_is_watched, self._parts)):
            return None
        channel_bytes = max(args[0].shape[2] * args[0].shape[3], 1) * weight.element_size()
        return int(max(MAX_BYTES // channel_bytes, 1))


def _is_watched(part: Any) -> bool:
    """Tell whether somebody looks at what goes in or out, or it is in training, where records may be mixed."""
    return bool(part.training or part._forward_hooks or part._forward_pre_hooks)  # noqa: SLF001 - nothing public tells
