"""A model in half the bits, whatever its ``inference.py`` does: torch's autocast, with the large weights converted once.

Autocast alone converts each weight again for every request; weights alone break models that mix types of their own. So the
weights of convolutions and linear layers, which autocast would convert, are converted when the model is loaded, and autocast
does the rest: it keeps in float32 what needs it (norms, softmax, losses). What a model returns is float32 again, because numpy
knows no bfloat16. ResNet18 at 224x224, images/s of one core with AMX, batches of 8: float32 43, autocast 129, so 146.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

from rayxform.model.runtime.loaded import loaded_torch, map_tensors, modules_of


def lower_precision(model: object, precision: str) -> AbstractContextManager[object]:
    """Have the modules of a model compute in another precision, in place.

    Args:
        model: what model_fn returned; see ``modules_of``.
        precision: ``bfloat16`` or ``float16``.

    Returns:
        What methods of the model other than ``forward`` are to be called in; may be entered again and again.
    """
    torch = loaded_torch()
    dtype = getattr(torch, precision)
    device_types = set()
    for module in modules_of(model):
        device_type = next((one.device.type for one in module.parameters()), "cpu")
        device_types.add(device_type)
        if isinstance(module, torch.jit.ScriptModule):
            module.to(dtype)
            module.forward = _Converting(module.forward, dtype)
            continue
        for part in module.modules():
            if isinstance(part, _heavy_layers()) and not isinstance(part, torch.jit.ScriptModule):
                part.to(dtype=dtype)
        module.forward = _Autocasting(module.forward, device_type, dtype)
    return _Everywhere([(one, dtype) for one in sorted(device_types)])


def slowness(model: object, precision: str) -> str | None:
    """What to say where a model computes in a precision on a CPU that has no instructions for it; None where it has.

    oneDNN then computes with conversions: ResNet18 in bfloat16 on a CPU with AVX2 alone runs at a seventh of float32's speed.

    Args:
        model: what model_fn returned; see ``modules_of``.
        precision: ``bfloat16`` or ``float16``.
    """
    torch = loaded_torch()
    devices = {one.device.type for module in modules_of(model) for one in module.parameters()}
    if "cpu" not in devices or cpu_computes(precision):
        return None
    capability = torch.backends.cpu.get_cpu_capability()
    return (
        f"Rayxform.Precision is {precision}, for which this machine's CPU ({capability}) has no instructions: the model then "
        "computes slower than in float32, perhaps several times (rayxform check measures it); leave Precision out here"
    )


def cpu_computes(precision: str) -> bool:
    """Whether oneDNN has fast ways to compute in a precision on this CPU; True where torch does not tell."""
    name = {"bfloat16": "_is_mkldnn_bf16_supported", "float16": "_is_mkldnn_fp16_supported"}[precision]
    try:
        return bool(getattr(loaded_torch().ops.mkldnn, name)())
    except (AttributeError, RuntimeError):
        return True


def _heavy_layers() -> tuple[Any, ...]:
    nn = loaded_torch().nn
    return (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class _Autocasting:
    """A ``forward`` under autocast; its results are float32."""

    def __init__(self, forward: Any, device_type: str, dtype: Any) -> None:
        self._forward = forward
        self._device_type = device_type
        self._dtype = dtype

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with loaded_torch().autocast(self._device_type, self._dtype):
            return map_tensors(_widened, self._forward(*args, **kwargs))


class _Converting:
    """The ``forward`` of TorchScript, whose operators autocast does not all reach: inputs are converted, and results back."""

    def __init__(self, forward: Any, dtype: Any) -> None:
        self._forward = forward
        self._dtype = dtype

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = map_tensors(self._narrowed, (args, kwargs))
        return map_tensors(_widened, self._forward(*args, **kwargs))

    def _narrowed(self, tensor: Any) -> Any:
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor


def _widened(tensor: Any) -> Any:
    torch = loaded_torch()
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


class _Everywhere(AbstractContextManager[object]):
    """Autocast for some types of devices."""

    def __init__(self, contexts: list[tuple[str, Any]]) -> None:
        self._contexts = contexts
        self._entered: list[contextlib.ExitStack] = []

    def __enter__(self) -> object:
        stack = contextlib.ExitStack()
        for device_type, dtype in self._contexts:
            stack.enter_context(loaded_torch().autocast(device_type, dtype))
        self._entered.append(stack)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._entered.pop().close()
