"""What ends a job early from elsewhere: ``rayxform stop``, and another run that took it over."""

from __future__ import annotations

import _thread
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rayxform.ending import end_if_interrupted
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

    def end_if_asked(self) -> None:
        """End the run here, where that can be done.

        Raises:
            KeyboardInterrupt: somebody asked for it, the lease is lost, or what SIGTERM raised before was lost.
        """
        if self.is_asked:
            raise KeyboardInterrupt
        end_if_interrupted()


@contextmanager
def watched(stop: Stop) -> Iterator[None]:
    """For as long as the context lasts, a stop that is asked for raises KeyboardInterrupt in the main thread, as Ctrl-C does.

    In a job that runs in another thread nothing can be interrupted; ``stop`` tells it there.
    """
    ended = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()

    def watch() -> None:
        while not ended.wait(POLL_S):
            if stop.look() and not ended.is_set():
                if is_main:
                    _thread.interrupt_main()
                return

    try:
        threading.Thread(target=watch, daemon=True, name="stop").start()
        yield
    finally:
        ended.set()
