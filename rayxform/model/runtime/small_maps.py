"""A convolution on a map of one to four pixels, which is a product of matrices.

Most of a 3x3 kernel lies beside such a map, and oneDNN multiplies what lies there with zeros: the last layers of a ResNet18
on images of 32x32 pixels work on 1 and 4 pixels, and take most of its time. What the convolution makes of each pixel alone
are the columns of a matrix; the map, as a vector, times that matrix is its result, with as many multiplications as the
kernel has, or fewer. One core of a Xeon with AMX, images/s in batches of 390: 1,890 before and 3,020 after in float32, 1,840
and 7,060 in bfloat16.
"""

from __future__ import annotations

from typing import Any, Final

from rayxform.model.runtime.linear import linear
from rayxform.model.runtime.loaded import loaded_torch
from rayxform.model.runtime.stand_in import StandIn, has_forward_of

MAX_PIXELS: Final = 4
"""On maps of up to this many pixels the matrix has at most 16/9 of a 3x3 kernel's numbers; on one of nine it would have nine
times as many."""


class SmallMaps(StandIn):
    """Stands in for the ``forward`` of a Conv2d, and passes on what is not a small map."""

    def __init__(self, convolution: Any) -> None:
        """Put it in place."""
        super().__init__(convolution)
        self._matrices: dict[tuple[int, int], tuple[object, Any, Any, tuple[int, int]]] = {}

    @staticmethod
    def fits(convolution: Any) -> bool:
        """Tell whether a plain convolution may gain by it."""
        is_torchs = has_forward_of(loaded_torch().nn.Conv2d, convolution)
        return is_torchs and convolution.groups == 1 and convolution.kernel_size != (1, 1)

    def __call__(self, images: Any) -> Any:
        """(n, channels in, height, width) → (n, channels out, height, width), in channels_last."""
        if not self._takes(images):
            return self._forward(images)
        matrix, bias, (height, width) = self._matrix(images)
        flat = images.permute(0, 2, 3, 1).flatten(1)
        product = linear(flat, matrix, bias)
        return product.view(images.shape[0], height, width, self._module.out_channels).permute(0, 3, 1, 2)

    def _takes(self, images: Any) -> bool:
        torch, convolution = loaded_torch(), self._module
        if not self._may_compute(images, convolution.weight):
            return False
        if images.dim() != 4 or images.shape[2] * images.shape[3] > MAX_PIXELS:
            return False
        kernel = convolution.kernel_size
        costs_no_more = 0 < images.shape[2] * images.shape[3] <= kernel[0] * kernel[1]
        has_its_type = images.dtype == convolution.weight.dtype or torch.is_autocast_enabled("cpu")
        return bool(costs_no_more and images.shape[1] == convolution.in_channels and has_its_type)

    def _matrix(self, images: Any) -> tuple[Any, Any, tuple[int, int]]:
        """The matrix (values out, values in) for maps of this size, its bias, and the result's height and width."""
        size = int(images.shape[2]), int(images.shape[3])
        known = self._matrices.get(size)
        # While a graph is made of the model, its parameters are stand-ins; it has been called before.
        if known is not None and loaded_torch().compiler.is_compiling():
            return known[1:]
        if known is None or known[0] != self._state():
            known = self._matrices[size] = (self._state(), *self._make(size))
        return known[1:]

    def _make(self, size: tuple[int, int]) -> tuple[Any, Any, tuple[int, int]]:
        torch, convolution = loaded_torch(), self._module
        weight, bias = convolution.weight, convolution.bias
        n_pixels, (n_out, n_in, *kernel) = size[0] * size[1], weight.shape
        n_taps = kernel[0] * kernel[1]
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            # Each tap of the kernel alone on each pixel alone, which says where it leads from there; whatever the channels.
            pixels = torch.eye(n_pixels, dtype=torch.float32).view(n_pixels, 1, *size)
            taps = torch.eye(n_taps, dtype=torch.float32).view(n_taps, 1, *kernel)
            maps = convolution._conv_forward(pixels, taps, None)  # noqa: SLF001 - the convolution alone, padding included
            height, width = int(maps.shape[2]), int(maps.shape[3])
            leads = maps.permute(2, 3, 0, 1).reshape(-1, n_taps).to(weight.dtype)
            blocks = (leads @ weight.permute(2, 3, 0, 1).reshape(n_taps, -1)).view(height * width, n_pixels, n_out, n_in)
            matrix = blocks.transpose(1, 2).reshape(height * width * n_out, n_pixels * n_in)
            return matrix, None if bias is None else bias.detach().repeat(height * width), (height, width)
