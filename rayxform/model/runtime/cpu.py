"""What this machine's CPU is."""

from __future__ import annotations

import functools
import platform
from pathlib import Path


@functools.cache
def is_amd() -> bool:
    """Tell whether it is one of AMD's."""
    return "AuthenticAMD" in (_line("vendor_id") or platform.processor())


def cpu_features() -> str:
    """What its instructions are, which what was compiled on another machine may use."""
    return _line("flags", "Features") or platform.processor()


def _line(*names: str) -> str:
    """The first line of /proc/cpuinfo that begins with one of the names; "" without any, or without that file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(names)), "")
