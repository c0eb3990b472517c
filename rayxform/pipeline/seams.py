"""Where the readers of one large object tell each other how far they came, and all of them what is settled: Ray's own store.

An actor for it cost half a second of start-up and 50 MiB; the store is there on every Ray cluster.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from ray.experimental import internal_kv

from rayxform.core.batching import Seam
from rayxform.pipeline.planning import ByteRange

# Ray has no public way to its store; its own libraries use it by these names.
# ruff: noqa: SLF001

_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.1
_LEAST_BLOCK = "least block"


class SharedSeams:
    """A name for a job's seams in the store; travels with every read task."""

    def __init__(self) -> None:
        self._namespace = f"rayxform-{uuid.uuid4()}"

    def tell(self, one: ByteRange, seam: Seam) -> None:
        """The range after ``one`` begins at ``seam``."""
        value = msgspec.msgpack.encode(seam)
        internal_kv._internal_kv_put(_key(one.file, one.index + 1), value, namespace=self._namespace)

    def wait(self, one: ByteRange, timeout_s: float) -> Seam | None:
        """Where ``one`` begins, or None if that is not known in time."""
        give_up_at = time.monotonic() + timeout_s
        pause_s = _FIRST_PAUSE_S
        while True:
            value = internal_kv._internal_kv_get(_key(one.file, one.index), namespace=self._namespace)
            if value is not None:
                return msgspec.msgpack.decode(value, type=Seam)
            left_s = give_up_at - time.monotonic()
            if left_s <= 0:
                return None
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def settle(self, n_bytes: int) -> int:
        """How small blocks may be: what the first reader said that was asked, so that one that is started again cuts alike."""
        value = msgspec.msgpack.encode(n_bytes)
        if not internal_kv._internal_kv_put(_LEAST_BLOCK, value, overwrite=False, namespace=self._namespace):
            return n_bytes
        first = internal_kv._internal_kv_get(_LEAST_BLOCK, namespace=self._namespace)
        return 0 if first is None else msgspec.msgpack.decode(first, type=int)

    def forget(self) -> None:
        """Remove what was told, if Ray still runs."""
        if internal_kv._internal_kv_initialized():
            internal_kv._internal_kv_del("", del_by_prefix=True, namespace=self._namespace)


@contextmanager
def shared_seams() -> Iterator[SharedSeams]:
    """Seams for the time of a job."""
    seams = SharedSeams()
    try:
        yield seams
    finally:
        seams.forget()


def _key(file: int, index: int) -> str:
    return f"{file}/{index}"
