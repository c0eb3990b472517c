"""Which threads give way to others where there are not cores enough for all."""

from __future__ import annotations

import os
import sys
import threading

_LOWER_NICENESS = 4
"""As little as helps: where other programs keep all cores busy, these would keep who gives way more waiting, and with it who
waits for that. Beside four such programs on two cores a job's first mini-batch came after 100 s at 19, after 11 s at 4; on an
idle machine it made no difference which of both it was, while at 0 Ray's own processes came up 0.1 s later."""


def give_way() -> None:
    """Lower the priority of this thread, for good."""
    if sys.platform == "linux":  # elsewhere priorities are a process's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _LOWER_NICENESS)
