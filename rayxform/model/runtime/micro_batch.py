"""A mini-batch goes through the model in pieces of so many records: what lies between two layers then stays in the cache.

MaxPayloadInMB says how much is sent; what the model likes is another matter. ResNet18 at 224x224, one core, images/s by size:
4: 42, 8: 43, 16: 38, 26: 38 in float32; 159, 146, 120 and 126 in bfloat16. 0 looks for the best, once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rayxform.cache import keep
from rayxform.model.runtime.loaded import loaded_torch, map_tensors, n_records

SMALLEST: Final = 4
SEARCH_S: Final = 2.0
"""How long the search may take, more or less: it ends with the size that is being tried then."""

GAIN: Final = 0.02
"""Less than this share sooner is no reason for smaller pieces."""


class MicroBatches:
    """Stands in for the ``forward`` of a module; every record's result is what it is in the whole, to rounding."""

    def __init__(self, forward: Callable[..., Any], size: int | None, kept: Path | None = None) -> None:
        """Take its place.

        Args:
            forward: the module's own.
            size: records in a piece; None to look for the best size at the first call that has enough of them.
            kept: the file where that is kept; None for nowhere.
        """
        self._forward = forward
        self._size = size
        self._kept = kept
        self._can_be_cut = True

    @property
    def size(self) -> int | None:
        """Records in a piece; None as long as it is not known."""
        return self._size

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's result for all records, from that for each piece."""
        count = n_records((args, kwargs)) if self._can_be_cut else None
        if count is None or count < 2:
            return self._forward(*args, **kwargs)
        if self._size is None and count > SMALLEST:
            self._size = self._find(count, args, kwargs)
        if self._size is None or count <= self._size:
            return self._forward(*args, **kwargs)
        pieces = pieces_of(self._forward, self._size, count, args, kwargs)
        if pieces is None:
            self._can_be_cut = False
            return self._forward(*args, **kwargs)
        return joined(pieces)

    def _run(self, begin: int, count: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return _run(self._forward, begin, count, args, kwargs)

    def _find(self, count: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
        """The best size for what the first large call brings, or what a process before found."""
        if self._kept is None:
            return best_size(self._measure(count, args, kwargs))

        def measure(path: Path) -> None:
            seconds = self._measure(count, args, kwargs)
            path.write_text(json.dumps({"size": best_size(seconds), "seconds_per_record": seconds}))

        return int(json.loads(keep(self._kept, measure).read_text())["size"])

    def _measure(self, count: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[int, float]:
        """Seconds a record for sizes from the smallest up to all records at once."""
        self._run(0, SMALLEST, args, kwargs)  # a model may be compiled at its first call, which is no part of the search
        give_up_at = time.monotonic() + SEARCH_S
        seconds: dict[int, float] = {}
        for size in candidates(count):
            if seconds and time.monotonic() > give_up_at:
                break
            self._run(0, size, args, kwargs)  # what is set up for a shape once
            seconds[size] = min(self._timed(begin, size, args, kwargs) for begin in (0, count - size)) / size
        return seconds

    def _timed(self, begin: int, size: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
        began = time.perf_counter()
        self._run(begin, size, args, kwargs)
        if loaded_torch().cuda.is_initialized():
            loaded_torch().cuda.synchronize()
        return time.perf_counter() - began


def pieces_of(
    forward: Callable[..., Any], size: int, count: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[Any] | None:
    """What a forward gives for its records in pieces; None if it says one thing of all of them, so that they belong together.

    Args:
        forward: what to call.
        size: records in a piece at the most.
        count: records in all, which is how long the tensors of ``args`` and ``kwargs`` are.
        args: its arguments.
        kwargs: those that have names.
    """
    step = -(-count // -(-count // size))  # pieces of one size, rather than a short last one
    pieces = []
    for begin in range(0, count, step):
        length = min(step, count - begin)
        pieces.append(_run(forward, begin, length, args, kwargs))
        if n_records(pieces[-1]) != length:
            return None
    return pieces


def _run(forward: Callable[..., Any], begin: int, count: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    args, kwargs = map_tensors(lambda tensor: tensor.narrow(0, begin, count), (args, dict(kwargs)))
    return forward(*args, **kwargs)


def candidates(count: int) -> list[int]:
    """The sizes to try for a mini-batch of so many records: powers of two, and all."""
    sizes = []
    size = SMALLEST
    while size < count:
        sizes.append(size)
        size *= 2
    return [*sizes, count]


def best_size(seconds: Mapping[int, float]) -> int:
    """The largest size that is about as fast as the fastest.

    Args:
        seconds: size → seconds a record.
    """
    least = min(seconds.values())
    return max(size for size, each in seconds.items() if each <= least * (1 + GAIN))


def joined(pieces: Sequence[Any]) -> Any:
    """The result for all records from those of the pieces."""
    from torch.utils._pytree import tree_flatten, tree_unflatten  # noqa: PLC0415

    torch = loaded_torch()
    _, form = tree_flatten(pieces[0])
    leaves = [tree_flatten(piece)[0] for piece in pieces]
    joined = [torch.cat(parts) if isinstance(parts[0], torch.Tensor) else parts[0] for parts in zip(*leaves, strict=True)]
    return tree_unflatten(joined, form)
