"""The end of a process, without what an interpreter tidies up for nobody."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import NoReturn

_OUTPUT_LOST = 120
"""What Python exits with where standard output could not be flushed."""


def end_process(code: int) -> NoReturn:
    """End this process as ``sys.exit`` does, but leave its memory to the system.

    A Python that has imported torch takes 0.8 s of a core to free one by one what the system frees at once. Threads that are
    no daemons are waited for, what ``atexit`` knows is called, and standard output and error are flushed; then the process
    ends as those do that multiprocessing forks.

    Args:
        code: the exit status.
    """
    threading._shutdown()  # type: ignore[attr-defined] # noqa: SLF001 - as multiprocessing does it, nor is there another way
    atexit._run_exitfuncs()  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # there is none, or who read it is gone, or it was closed
            code = code or (_OUTPUT_LOST if stream is sys.stdout else 0)
    os._exit(code)
