"""What ends a job early: Ctrl-C, SIGTERM, ``rayxform stop``, and another run that took it over."""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rayxform.errors import StorageError
from rayxform.storage.lease import Lease
from rayxform.storage.state import StateFolder

POLL_S = 1.0
"""How often the state folder is looked at; a stop takes effect within three seconds."""


class Stop:
    """Whether the run is to end."""

    def __init__(self, state: StateFolder, lease: Lease) -> None:
        self._state = state
        self._lease = lease
        self.is_asked = False

    def look(self) -> bool:
        """Look whether somebody asked for it, or the lease is lost."""
        with contextlib.suppress(StorageError):  # a store that does not answer now may do so the next time
            self.is_asked = self.is_asked or self._lease.is_lost or self._state.is_asked_to_stop()
        return self.is_asked


@contextmanager
def stoppable(stop: Stop) -> Iterator[None]:
    """For as long as the context lasts, what asks the job to end raises KeyboardInterrupt, as Ctrl-C does.

    ray.init sets a handler of its own for SIGTERM, so this comes after it. In a thread other than the main one nothing can be
    interrupted; ``stop`` tells it there.
    """
    is_main = threading.current_thread() is threading.main_thread()
    ended = threading.Event()

    def interrupt() -> None:
        if is_main:
            _thread.interrupt_main(signal.SIGTERM)

    watcher = threading.Thread(target=_watch, args=(stop, ended, interrupt), daemon=True, name="stop")
    with _sigterm_interrupts() if is_main else contextlib.nullcontext():
        watcher.start()
        try:
            yield
        finally:
            ended.set()


def _watch(stop: Stop, ended: threading.Event, interrupt: Callable[[], None]) -> None:
    while not ended.wait(POLL_S):
        if stop.look() and not ended.is_set():
            interrupt()
            return


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    def interrupt(number: int, frame: object) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
