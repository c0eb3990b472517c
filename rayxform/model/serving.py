"""The process of a model: loads an ``inference.py`` and answers what the worker asks, until the worker is gone.

``process`` starts it. It imports neither ray nor pyarrow, so that the model has the process for itself, and what the model
does to it (memory, signals, a crash) is not the worker's. Tracebacks of a crash, and on SIGUSR1 the place where it is now,
go to a file that the worker reads; they are written in C, so that native code which holds the GIL does not keep them back.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from io import TextIOWrapper
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NoReturn

from rayxform.ending import end_process
from rayxform.errors import InvocationError, ModelError, ModelLoadError
from rayxform.model import runtime
from rayxform.model.context import InvocationContext
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
from rayxform.model.protocol import Response
from rayxform.model.staging import STAGED_TYPE, dump_input
from rayxform.model.user_code import describe, is_out_of_memory, user_traceback

_PR_SET_PDEATHSIG: Final = 1


def main(worker: int, connection: int, body: int, ahead: int, faults: int) -> NoReturn:
    """Run as the worker's child, and end with it.

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
    with contextlib.suppress(EOFError, ConnectionError):  # the worker is gone, or has closed the model
        serve(Connection(connection), MemoryFile(body), MemoryFile(ahead))
    end_process(0)


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
    begun = _Begun(handler) if isinstance(handler, Handler) else None
    while True:
        request = decode_request(connection.recv_bytes())
        if isinstance(request, Ahead):
            if begun is not None:
                begun.begin(request, ahead.read(request.n_bytes))
        else:
            connection.send_bytes(encode(_answer(handler, body, request, begun)))


class InputHandler:
    """The first part of a handler in a process of its own: answers a request with what its input_fn makes of it."""

    runs_ahead = False

    def __init__(self, handler: Handler) -> None:
        """Take a handler that has loaded no model.

        Raises:
            ModelLoadError: its entry point reads its input in transform_fn.
        """
        if not handler.has_input_fn:
            raise ModelLoadError(
                "Rayxform.StageInput runs input_fn by itself, but the entry point defines transform_fn, which reads its input "
                "and predicts in one; define input_fn, predict_fn and output_fn instead, or leave StageInput out"
            )
        self._handler = handler
        self.warnings: tuple[str, ...] = ()

    def transform(
        self,
        body: bytes | memoryview,
        content_type: str,
        accept: str,  # noqa: ARG002 - a handler's arguments
        context: InvocationContext,
        staged: bytes | None = None,  # noqa: ARG002
        read: Callable[[], Any] | None = None,  # noqa: ARG002
    ) -> Response:
        """Read one request's input.

        Raises:
            InvocationError: input_fn raised, or what it returned cannot be pickled.
        """
        value = self._handler.read_input(bytes(body), content_type, context)
        try:
            return Response(dump_input(value), STAGED_TYPE)
        except Exception as error:  # whatever the user's own classes raise
            raise InvocationError(f"what input_fn returned cannot be sent to another process: {describe(error)}") from error


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


def _load(start: Start) -> Handler | InputHandler:
    if start.packages is not None:
        sys.path.insert(0, start.packages)
    entry_point = None if start.entry_point is None else Path(start.entry_point)
    handler = Handler.load(
        Path(start.model_dir),
        entry_point,
        start.environment,
        start.threads,
        start.arithmetic,
        loads_model=not start.reads_input,
    )
    return InputHandler(handler) if start.reads_input else handler


def _answer(handler: Handler | InputHandler, body: MemoryFile, call: Call, begun: _Begun | None) -> Answered | Failed:
    try:
        n_told = len(handler.warnings)
        response = handler.transform(*_request(call, body, begun))
        body.write(response.body)
        return Answered(len(response.body), response.content_type, handler.warnings[n_told:])
    except ModelError as error:
        failed = Failed(error.message, error.user_traceback, is_out_of_memory(error))
    except Exception as error:  # noqa: BLE001 - memory that ran out between the user's functions, or an odd response object
        failed = Failed(f"the request raised {describe(error)}", user_traceback(error), is_out_of_memory(error))
    if failed.is_out_of_memory:  # here, where the exception no longer keeps the frames that hold the memory
        runtime.free_memory()
    return failed


def _request(call: Call, body: MemoryFile, begun: _Begun | None) -> tuple[Any, ...]:
    """What ``Handler.transform`` takes: the body, or what input_fn has made of it, in this process or in another."""
    about = (call.content_type, call.accept, call.context)
    if call.ahead is not None and begun is not None:
        data, read = begun.take(call.ahead)
        return data, *about, None, read.result
    data = body.read(call.n_bytes)
    return (b"", *about, data) if call.is_staged else (data, *about)


def _end_with(worker: int) -> None:
    """Have the system kill this process when the worker ends, whatever native code this process is then in.

    Elsewhere than on Linux it ends when it next asks the socket for a message.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker:
        os._exit(0)
