"""The model of an ``inference.py`` in a process of its own, so that what crashes or hangs costs that process alone.

The worker holds it and outlives it: it learns how the process ended and where, starts another one when it is next asked,
and can end a call that does not return, which no thread could do for native code. ``serving`` is the other side.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from rayxform.errors import InvocationError, ModelLoadError
from rayxform.model.context import InvocationContext
from rayxform.model.exchange import (
    READ_AT_ONCE,
    Ahead,
    Answered,
    Call,
    Expected,
    Failed,
    MemoryFile,
    Ready,
    Start,
    decode_reply,
    encode,
)
from rayxform.model.protocol import Response
from rayxform.model.retrying import retry_at_once
from rayxform.model.runtime import Arithmetic
from rayxform.model.user_code import user_frames
from rayxform.model.zygote import SOCKET_VARIABLE, ForkedProcess
from rayxform.model.zygote.messages import Birth

LOAD_LIMIT_S: Final = 1800.0
"""How long a model may take to load: as a server that is started, see ``command.START_LIMIT_S``."""

_LOOK_S: Final = 0.5
"""How often to look whether the process is still there; mostly its socket says so at once, unless its children hold it."""

_EXIT_WAIT_S: Final = 5.0
_STACK_WAIT_S: Final = 1.0
"""How long to wait for where a process hangs, before it is ended without that."""

_BOOT: Final = (
    "import json, os, sys; os.setpgid(0, 0); sys.path[:] = json.loads(sys.argv[1]); "
    "numbers = [*map(int, sys.argv[2:])]; del sys.argv[1:]; from rayxform.model.serving import main; main(*numbers)"
)
# A process group of its own, so that what it starts can be ended with it; but no session: Linux weighs sessions against each
# other before it looks at niceness (sched(7), autogroup). Not -m: multiprocessing would run such a main module again in each
# process that the user's code spawns.


class _EndedError(Exception):
    """The process ended instead of answering; says how, as in "it was killed by SIGSEGV"."""

    def __init__(self, how: str, stack: str) -> None:
        super().__init__(how)
        self.stack = stack


class _SilentError(Exception):
    """The process did not answer in time, and was ended."""

    def __init__(self, stack: str) -> None:
        super().__init__()
        self.stack = stack


class _Child:
    """One process, from its start to its end."""

    def __init__(self, start: Start) -> None:
        self.body, self.ahead, self._faults = MemoryFile.create(), MemoryFile.create(), MemoryFile.create()
        self.runs_ahead = False
        ours, theirs = socket.socketpair()
        descriptors = (theirs.fileno(), self.body.descriptor, self.ahead.descriptor, self._faults.descriptor)
        with theirs:
            self._process = _forked(start, descriptors) or subprocess.Popen(  # noqa: S603 - this Python, and our own code
                [sys.executable, "-c", _BOOT, json.dumps(sys.path), *map(str, (os.getpid(), *descriptors))],
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
            )
        self._connection = Connection(ours.detach())

    @property
    def has_ended(self) -> bool:
        """Whether it is gone, though nobody has asked it anything since."""
        # Nothing is said unasked, so what there is to read is its end; which who forked it may not yet have been told.
        return self._process.poll() is not None or self._connection.poll()

    def ask(self, question: Start | Call, expected: type[Expected], limit_s: float) -> Expected | Failed:
        """Say something and wait for the reply.

        Raises:
            _EndedError: the process ended.
            _SilentError: it did not reply in time, and was ended.
        """
        try:
            self._connection.send_bytes(encode(question))
            if self._is_silent(limit_s):
                stack = self._where_it_hangs()
                self.end()
                raise _SilentError(stack)
            return decode_reply(self._connection.recv_bytes(), expected)
        except (EOFError, OSError) as error:
            raise self._ended() from error

    def tell(self, message: Ahead) -> None:
        """Say something to which there is no reply; that the process is gone is seen when it is next asked."""
        with contextlib.suppress(OSError):
            self._connection.send_bytes(encode(message))

    def end(self) -> None:
        """End it, and what it has started, at once."""
        self._kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a disk or a device
            self._process.wait(_EXIT_WAIT_S)
        self._connection.close()
        self.body.close()
        self.ahead.close()
        self._faults.close()

    def leave(self) -> None:
        """Let it end by itself, and end it if it does not."""
        self._connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_WAIT_S)
        self.end()

    def _is_silent(self, limit_s: float) -> bool:
        """Wait for it to say something, or to end; whether it has done neither in time."""
        give_up_at = time.monotonic() + limit_s
        while not self._connection.poll(max(min(give_up_at - time.monotonic(), _LOOK_S), 0)):
            if self._process.poll() is not None:
                # A process that it forked may hold the socket, so there may be no end to read. What was said last is there.
                if not self._connection.poll():
                    raise EOFError
                return False
            if time.monotonic() >= give_up_at:
                return True
        return False

    def _ended(self) -> _EndedError:
        try:
            code: int | None = self._process.wait(_EXIT_WAIT_S)
        except subprocess.TimeoutExpired:
            code = None
        error = _EndedError(_how_it_ended(code), user_frames(self._faults.text()))
        self.end()
        return error

    def _where_it_hangs(self) -> str:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGUSR1)
        give_up_at, before = time.monotonic() + _STACK_WAIT_S, ""
        while time.monotonic() < give_up_at:
            time.sleep(0.02)
            text = self._faults.text()
            if text and text == before:
                break
            before = text
        return user_frames(before)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()  # where it had no time yet to make a group


def _forked(start: Start, descriptors: tuple[int, ...]) -> ForkedProcess | None:
    """A process forked of what has imported already what the model's code will, where there is such a zygote for it."""
    address = os.environ.get(SOCKET_VARIABLE)
    if address is None or start.packages is not None:
        return None
    birth = Birth.like_this_process(start.threads, start.environment, sys.path)
    with contextlib.suppress(OSError):
        return ForkedProcess(address, birth, (*descriptors, 1, 2))
    return None


class ModelProcess:
    """A model in a process of its own; ``Model`` documents what all models have."""

    def __init__(
        self,
        model_dir: Path,
        entry_point: Path | None,
        environment: Mapping[str, str],
        threads: int | None,
        *,
        packages: Path | None = None,
        arithmetic: Arithmetic | None = None,
        timeout_s: float,
        reads_input: bool = False,
    ) -> None:
        """Start the process and load the model in it.

        Args:
            model_dir: as of ``Handler.load``, like the next three.
            entry_point: the entry point's file, or None for the defaults alone.
            environment: what is added to this process's own.
            threads: how many threads torch, OpenMP and MKL compute with.
            packages: a folder that comes first on its sys.path, or None.
            arithmetic: how torch modules are to compute; None for as they are.
            timeout_s: how long one request may take, in seconds (InvocationsTimeoutInSeconds).
            reads_input: whether it loads no model, and answers with what input_fn makes of a request.

        Raises:
            ModelLoadError: the model cannot be loaded, its process ended, or it took more than LOAD_LIMIT_S.
        """
        self.model_dir = str(model_dir)
        self._timeout_s = timeout_s
        self._start = Start(
            self.model_dir,
            None if entry_point is None else str(entry_point),
            dict(environment),
            threads,
            None if packages is None else str(packages),
            arithmetic or Arithmetic(),
            reads_input,
        )
        # Linux ends the process with the thread that started it, so that thread has to last.
        self._starter = ThreadPoolExecutor(1, "rayxform-model")
        self._child: _Child | None = None
        self.warnings: tuple[str, ...] = ()
        self._has_answered = False
        self._n_ahead = 0
        self._ahead: dict[tuple[str, int, int], int] = {}
        self._child = self._load()

    def transform(
        self,
        body: bytes | memoryview,
        content_type: str,
        accept: str,
        context: InvocationContext,
        staged: bytes | memoryview | None = None,
    ) -> Response:
        """Ask the process, or a new one if the last has ended.

        Raises:
            InvocationError: the user's code raised; or the process ended at this request, or was ended because it did not
                answer in time (``ended_process``): then it carries where that was.
            ModelLoadError: a new process could not load the model.
        """
        child = self._living()
        number = self._ahead.pop(_place(context), None)
        try:
            sent = body if staged is None else staged
            if number is None:
                child.body.write(sent)
            call = Call(len(sent), content_type, accept, context, number, staged is not None)
            reply = child.ask(call, Answered, self._limit_s)
        except (_EndedError, _SilentError) as error:
            self._child = None
            if self._ahead:  # what was read ahead may be to blame, so this one is asked by itself
                return self.transform(body, content_type, accept, context, staged)
            raise self._lost(error) from error
        except BaseException:  # the worker is stopped; what is still answered is not the answer to what is asked next
            self._child = None
            child.end()
            raise
        if isinstance(reply, Failed):
            raise _invocation_error(reply, context.n_records)
        self._has_answered = True
        self.warnings = (*self.warnings, *(one for one in reply.warnings if one not in self.warnings))
        return Response(child.body.read(reply.n_bytes), reply.content_type)

    def run_ahead(self, body: bytes | memoryview, content_type: str, context: InvocationContext) -> None:
        """Have input_fn work on the request after the one that is asked next, where the entry point says that it may."""
        child = self._child
        if child is None or not child.runs_ahead:
            return
        self._n_ahead += 1
        self._ahead[_place(context)] = self._n_ahead
        while len(self._ahead) > READ_AT_ONCE:  # one that was not asked after all
            del self._ahead[next(iter(self._ahead))]
        child.ahead.write(body)
        child.tell(Ahead(self._n_ahead, len(body), content_type, context))

    def _lost(self, error: _EndedError | _SilentError) -> InvocationError:
        """What became of a request whose process ended, or was ended."""
        if isinstance(error, _EndedError):
            return InvocationError(f"the model's process ended: {error}{_see_log()}", error.stack, ended_process=True)
        return InvocationError(
            f"no answer within InvocationsTimeoutInSeconds = {self._timeout_s:g}, so the model's process was ended; "
            "raise ModelClientConfig.InvocationsTimeoutInSeconds if it needs longer",
            error.stack,
            ended_process=True,
        )

    @property
    def _limit_s(self) -> float:
        """How long a request may take; where the model is compiled, the first one waits for that, too."""
        is_compiled = self._start.arithmetic.compile and not self._has_answered
        return self._timeout_s + (LOAD_LIMIT_S if is_compiled else 0)

    def retry(self, ask: Callable[[int], Response], retries: int) -> Response:
        """Ask again at once, since no network lies between."""
        return retry_at_once(ask, retries)

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.leave()
        self._child = None
        self._starter.shutdown()

    def _living(self) -> _Child:
        """The process, or another one if it has ended, which no request is to blame for if it was between two."""
        if self._child is not None and self._child.has_ended:
            self._child.end()
            self._child = None
        self._child = self._child or self._load()
        return self._child

    def _load(self) -> _Child:
        self._ahead.clear()
        child = self._starter.submit(_Child, self._start).result()
        try:
            reply = child.ask(self._start, Ready, LOAD_LIMIT_S)
        except _EndedError as error:
            raise ModelLoadError(
                f"the model's process ended while it loaded the model: {error}{_see_log()}", error.stack
            ) from error
        except _SilentError as error:
            raise ModelLoadError(f"the model was not loaded within {LOAD_LIMIT_S:g} s", error.stack) from error
        except BaseException:  # the worker is to end
            child.end()
            raise
        if isinstance(reply, Failed):
            child.leave()
            raise ModelLoadError(reply.message, reply.user_traceback)
        self.warnings = reply.warnings
        child.runs_ahead = reply.runs_ahead
        return child


def _place(context: InvocationContext) -> tuple[str, int, int]:
    """What tells requests of one job apart."""
    return context.object, context.first_record, context.n_records


def _invocation_error(failed: Failed, n_records: int) -> InvocationError:
    if not failed.is_out_of_memory:
        return InvocationError(failed.message, failed.user_traceback)
    if n_records > 1:  # fewer of them may fit, the same ones would not
        return InvocationError(failed.message, failed.user_traceback, is_out_of_memory=True, is_final=True)
    remedy = "one record alone is too much for the memory there is; run fewer workers on a machine, or give them more memory"
    return InvocationError(f"{failed.message}; {remedy}", failed.user_traceback, is_out_of_memory=True)


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "it closed its connection and went on"
    if code >= 0:
        return f"it exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    reason = ", as the system does where memory runs out" if -code == signal.SIGKILL else ""
    return f"it was killed by {name}{reason}"


def log_file() -> str:
    """The file that this process and its model's print to, which on Ray is the worker's log; "" if it is none, or not known."""
    try:
        is_file = stat.S_ISREG(os.fstat(2).st_mode)
        return str(Path("/proc/self/fd/2").readlink()) if is_file else ""
    except OSError:
        return ""


def _see_log() -> str:
    path = log_file()
    return f"; see {path}" if path else ""
