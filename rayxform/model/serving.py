"""The process of a model: loads an ``inference.py`` and answers what the worker asks, until the worker is gone.

``process`` starts it. It imports neither ray nor pyarrow, so that the model has the process for itself, and what the model
does to it (memory, signals, a crash) is not the worker's. Tracebacks of a crash, and on SIGUSR1 the place where it is now,
go to a file that the worker reads; they are written in C, so that native code which holds the GIL does not keep them back.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from io import TextIOWrapper
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from rayxform.errors import ModelError, ModelLoadError
from rayxform.model import runtime
from rayxform.model.exchange import (
    READ_AT_ONCE,
    Ahead,
    Answered,
    Call,
    Failed,
    MemoryFile,
    Ready,
    Start,
    decode,
    decode_request,
    encode,
)
from rayxform.model.handler import Handler
from rayxform.model.user_code import describe, is_out_of_memory, user_traceback

_PR_SET_PDEATHSIG: Final = 1


def main(worker: int, connection: int, body: int, ahead: int, faults: int) -> None:
    """Run as the worker's child.

    Args:
        worker: the worker's process id.
        connection: the inherited descriptor of the socket to it.
        body: that of the file through which bodies go.
        ahead: that of the file for bodies of requests that are to come.
        faults: that of the file for tracebacks of crashes.
    """
    _end_with(worker)
    for descriptor in (connection, body, ahead, faults):
        os.set_inheritable(descriptor, False)
    faulthandler.enable(faults)
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, faults)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # what the user prints is in the log when the process crashes
    try:
        serve(Connection(connection), MemoryFile(body), MemoryFile(ahead))
    except (EOFError, ConnectionError):
        return  # the worker is gone, or has closed the model


def serve(connection: Connection, body: MemoryFile, ahead: MemoryFile) -> None:
    """Load the model, then answer requests one by one.

    Raises:
        EOFError: the worker asks no more.
    """
    try:
        handler = _load(decode(connection.recv_bytes(), Start))
    except ModelLoadError as error:
        connection.send_bytes(encode(Failed(error.message, error.user_traceback)))
        return
    connection.send_bytes(encode(Ready(handler.warnings, handler.runs_ahead)))
    begun = _Begun(handler)
    while True:
        request = decode_request(connection.recv_bytes())
        if isinstance(request, Ahead):
            begun.begin(request, ahead.read(request.n_bytes))
        else:
            connection.send_bytes(encode(_answer(handler, body, request, begun)))


class _Begun:
    """Requests that came ahead, whose input another thread reads."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._thread = ThreadPoolExecutor(1, "input_fn")
        self._requests: dict[int, tuple[bytes, Future[Any]]] = {}

    def begin(self, ahead: Ahead, body: bytes) -> None:
        """Read its input; what came before the last few will not be asked any more."""
        read = self._thread.submit(self._handler.read_input, body, ahead.content_type, ahead.context)
        self._requests[ahead.number] = body, read
        while len(self._requests) > READ_AT_ONCE:
            _, forgotten = self._requests.pop(next(iter(self._requests)))
            forgotten.cancel()

    def take(self, number: int) -> tuple[bytes, Future[Any]]:
        """Its body, and what input_fn makes of it, which are let go here."""
        return self._requests.pop(number)


def _load(start: Start) -> Handler:
    if start.packages is not None:
        sys.path.insert(0, start.packages)
    entry_point = None if start.entry_point is None else Path(start.entry_point)
    return Handler.load(Path(start.model_dir), entry_point, start.environment, start.threads, start.arithmetic)


def _answer(handler: Handler, body: MemoryFile, call: Call, begun: _Begun) -> Answered | Failed:
    try:
        n_told = len(handler.warnings)
        data, read = (body.read(call.n_bytes), None) if call.ahead is None else begun.take(call.ahead)
        result = None if read is None else read.result
        response = handler.transform(data, call.content_type, call.accept, call.context, result)
        body.write(response.body)
        return Answered(len(response.body), response.content_type, handler.warnings[n_told:])
    except ModelError as error:
        failed = Failed(error.message, error.user_traceback, is_out_of_memory(error))
    except Exception as error:  # noqa: BLE001 - memory that ran out between the user's functions, or an odd response object
        failed = Failed(f"the request raised {describe(error)}", user_traceback(error), is_out_of_memory(error))
    if failed.is_out_of_memory:  # here, where the exception no longer keeps the frames that hold the memory
        runtime.free_memory()
    return failed


def _end_with(worker: int) -> None:
    """Have the system kill this process when the worker ends, whatever native code this process is then in.

    Elsewhere than on Linux it ends when it next asks the socket for a message.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker:
        os._exit(0)
