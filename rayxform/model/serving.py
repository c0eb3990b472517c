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
from io import TextIOWrapper
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from rayxform.errors import ModelError, ModelLoadError
from rayxform.model import runtime
from rayxform.model.exchange import Answered, Call, Failed, MemoryFile, Ready, Start, decode, encode
from rayxform.model.handler import Handler
from rayxform.model.user_code import describe, is_out_of_memory, user_traceback

_PR_SET_PDEATHSIG: Final = 1


def main(worker: int, connection: int, body: int, faults: int) -> None:
    """Run as the worker's child.

    Args:
        worker: the worker's process id.
        connection: the inherited descriptor of the socket to it.
        body: that of the file through which bodies go.
        faults: that of the file for tracebacks of crashes.
    """
    _end_with(worker)
    for descriptor in (connection, body, faults):
        os.set_inheritable(descriptor, False)
    faulthandler.enable(faults)
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, faults)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # what the user prints is in the log when the process crashes
    try:
        serve(Connection(connection), MemoryFile(body))
    except (EOFError, ConnectionError):
        return  # the worker is gone, or has closed the model


def serve(connection: Connection, body: MemoryFile) -> None:
    """Load the model, then answer requests one by one.

    Raises:
        EOFError: the worker asks no more.
    """
    try:
        handler = _load(decode(connection.recv_bytes(), Start))
    except ModelLoadError as error:
        connection.send_bytes(encode(Failed(error.message, error.user_traceback)))
        return
    connection.send_bytes(encode(Ready(handler.warnings)))
    while True:
        call = decode(connection.recv_bytes(), Call)
        connection.send_bytes(encode(_answer(handler, body, call)))


def _load(start: Start) -> Handler:
    if start.packages is not None:
        sys.path.insert(0, start.packages)
    entry_point = None if start.entry_point is None else Path(start.entry_point)
    return Handler.load(Path(start.model_dir), entry_point, start.environment, start.threads, start.arithmetic)


def _answer(handler: Handler, body: MemoryFile, call: Call) -> Answered | Failed:
    try:
        n_told = len(handler.warnings)
        response = handler.transform(body.read(call.n_bytes), call.content_type, call.accept, call.context)
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
