"""What input_fn made of a request, as bytes: made in one process, used in another (``Rayxform.StageInput``).

Arrays go behind the pickle as they lie in memory (PEP 574), tensors as arrays, so that no byte of theirs is pickled. Where
there is a GPU they arrive in pinned memory, from which the copy to it runs beside the model.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any, Final

import msgspec

STAGED_TYPE: Final = "application/x-rayxform-input"
"""The media type of what a request's input became."""

_ALIGNED_BYTES: Final = 64
"""Every array begins at a multiple of this, as torch's own do."""

_HEAD_BYTES: Final = 8


def dump_input(value: Any) -> bytes:
    """What input_fn returned, as bytes.

    Args:
        value: anything that can be pickled; arrays and tensors in it are best on the CPU.
    """
    arrays: list[memoryview] = []
    pickled = _Bytes()
    _Pickler(pickled, protocol=5, buffer_callback=lambda buffer: arrays.append(buffer.raw())).dump(value)
    pieces = [*pickled.pieces, *(piece for array in arrays for piece in (array, bytes(-array.nbytes % _ALIGNED_BYTES)))]
    sizes = msgspec.msgpack.encode((sum(map(len, pickled.pieces)), [array.nbytes for array in arrays]))
    head = len(sizes).to_bytes(_HEAD_BYTES, "little") + sizes
    return b"".join((head, *pieces))


def load_input(data: bytes | memoryview) -> Any:
    """What ``dump_input`` was given; its arrays are copies that may be written to, in pinned memory where there is a GPU.

    Args:
        data: its result.
    """
    whole = memoryview(data)
    begin = _HEAD_BYTES + int.from_bytes(whole[:_HEAD_BYTES], "little")
    pickled_bytes, sizes = msgspec.msgpack.decode(whole[_HEAD_BYTES:begin], type=tuple[int, list[int]])
    arrays = _writable(whole[begin + pickled_bytes :])
    buffers = []
    at = 0
    for size in sizes:
        buffers.append(arrays[at : at + size])
        at += size + -size % _ALIGNED_BYTES
    return pickle.loads(whole[begin : begin + pickled_bytes], buffers=buffers)  # noqa: S301 - of a process of this job


class _Bytes:
    """A file that keeps what is written to it in pieces."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: Any) -> int:
        self.pieces.append(bytes(data))
        return len(self.pieces[-1])


class _Pickler(pickle.Pickler):
    """A pickler for which a plain tensor is an array."""

    def reducer_override(self, value: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is None or type(value) is not torch.Tensor or not _is_plain(torch, value):
            return NotImplemented
        order = _order(torch, value)
        flat = value.permute(order).contiguous().reshape(-1).view(torch.uint8).numpy()
        dtype = str(value.dtype).removeprefix("torch.")
        return _tensor, (pickle.PickleBuffer(flat), dtype, [value.shape[axis] for axis in order], order)


def _is_plain(torch: Any, tensor: Any) -> bool:
    is_dense = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    return is_dense and not tensor.requires_grad and not tensor.is_conj() and not tensor.is_neg()


def _order(torch: Any, tensor: Any) -> list[int]:
    """The tensor's axes in the order in which they lie in memory: images with their channels last stay so."""
    axes = list(range(tensor.dim()))
    is_last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
    return [0, 2, 3, 1] if is_last else axes


def _tensor(buffer: Any, dtype: str, shape: list[int], order: list[int]) -> Any:
    import torch  # noqa: PLC0415 - whoever is sent a tensor has it

    kind = getattr(torch, dtype)
    flat = torch.frombuffer(buffer, dtype=kind) if memoryview(buffer).nbytes else torch.empty(0, dtype=kind)
    return flat.reshape(shape).permute([order.index(axis) for axis in range(len(order))])


def _writable(data: memoryview) -> memoryview:
    """A copy, from which a GPU can be given its bytes at once where there is one."""
    torch = sys.modules.get("torch")
    if torch is None or not data.nbytes or not torch.cuda.is_available():
        return memoryview(bytearray(data))
    pinned = memoryview(torch.empty(data.nbytes, dtype=torch.uint8, pin_memory=True).numpy())
    pinned[:] = data
    return pinned
