"""The end of a process: asked for by SIGTERM, and without what an interpreter tidies up for nobody."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

_OUTPUT_LOST = 120
"""What Python exits with where standard output could not be flushed."""

TO_END_S: Final = 10.0
"""How long after a SIGTERM another one changes nothing: what is ending writes down meanwhile what was done."""


class _Terminator:
    """What SIGTERM does where it is as Ctrl-C."""

    def __init__(self) -> None:
        self._ends_until = 0.0
        self.has_interrupted = False

    def __call__(self, number: int, frame: object) -> None:
        del number, frame
        if time.monotonic() >= self._ends_until:  # the last one may have been lost in a place that cannot raise
            self.interrupt()

    def interrupt(self) -> NoReturn:
        """Raise what ends the main thread."""
        self.let_end()
        self.has_interrupted = True
        raise KeyboardInterrupt

    def let_end(self) -> None:
        """Do nothing for TO_END_S."""
        self._ends_until = time.monotonic() + TO_END_S


def end_on_sigterm() -> None:
    """From now on SIGTERM ends this process's main thread, which calls this, as Ctrl-C does; once in TO_END_S."""
    signal.signal(signal.SIGTERM, _Terminator())


@contextmanager
def terminable() -> Iterator[None]:
    """For as long as the context lasts, SIGTERM ends the main thread as by ``end_on_sigterm``, if it does not already.

    In other threads nothing can be interrupted, and nothing is changed.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or isinstance(before, _Terminator):
        yield
        return
    end_on_sigterm()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def let_end() -> None:
    """What comes now ends by itself within TO_END_S; until then SIGTERM does nothing, where it is as Ctrl-C."""
    terminator = signal.getsignal(signal.SIGTERM)
    if isinstance(terminator, _Terminator):
        terminator.let_end()


def end_if_interrupted() -> None:
    """End the main thread if it goes on though SIGTERM came: in places what that raises is only printed, as in a ``__del__``.

    Raises:
        KeyboardInterrupt: SIGTERM came, where it is as Ctrl-C.
    """
    terminator, is_main = signal.getsignal(signal.SIGTERM), threading.current_thread() is threading.main_thread()
    if is_main and isinstance(terminator, _Terminator) and terminator.has_interrupted:
        terminator.interrupt()


@contextmanager
def own_sigterm() -> Iterator[Callable[[], None]]:
    """What takes SIGTERM for itself in the context does not keep it, nor does it decide how this process ends.

    Yields:
        What takes it back before the context ends.
    """
    before = signal.getsignal(signal.SIGTERM)

    def take_back() -> None:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)

    try:
        yield take_back
    except SystemExit:
        if isinstance(before, _Terminator):
            before.interrupt()
        raise
    finally:
        take_back()
        if isinstance(before, _Terminator) and before.has_interrupted:
            signal.alarm(0)  # Ray's core gives a process that was sent SIGTERM three seconds, then it aborts it


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
