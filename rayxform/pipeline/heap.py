"""What a process of ours does with memory that it frees: it keeps it for the next block."""

from __future__ import annotations

import ctypes
import functools
from typing import Final

from rayxform.core.batching import MIB

KEPT_BYTES: Final = 64 * MIB
"""So much that is free a process may keep: what a few blocks take."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_LARGEST_THRESHOLD: Final = 32 * MIB


@functools.cache
def keep_freed_memory() -> None:
    """Have malloc keep what is freed up to KEPT_BYTES, instead of giving it back and asking for it anew with the next payload.

    Every page that is asked for is cleared by the system, which for a reader took as long as reading. Source: mallopt(3);
    another C library than glibc has no such call, and is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
