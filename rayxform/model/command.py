"""A model server that the worker starts itself, on a free port, and that ends with it; started again if it dies."""

from __future__ import annotations

import json
import os
import selectors
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from rayxform.errors import InvocationError, ModelLoadError
from rayxform.model.context import InvocationContext
from rayxform.model.protocol import Response
from rayxform.model.retrying import retry_with_back_off
from rayxform.model.server import ServerClient
from rayxform.spec import ExecutionParameters

START_LIMIT_S: Final = 1800.0
"""How long a server may take to get ready while its process lives: as on SageMaker, where it was observed to be 30 minutes."""

_EXIT_WAIT_S: Final = 3.0
"""How long to wait for the exit of a server that seems to be down, before it is taken for one that is alive but silent."""

_HOST: Final = "http://127.0.0.1"
_SUPERVISOR: Final = Path(__file__).with_name("supervisor.py")


class ServerProcess:
    """A running command; a supervisor (see that module) ends it when this process is gone, or when it is told to."""

    def __init__(self, words: list[str], environment: Mapping[str, str]) -> None:
        life, self._life = os.pipe()
        self._report, report = os.pipe()
        self._result: tuple[int | None, str] | None = None
        self._lock = threading.Lock()
        start = [sys.executable, "-I", str(_SUPERVISOR), str(life), str(report), *words]
        try:
            subprocess.run(  # noqa: S603 - the job's own command
                start, env=dict(environment), stdin=subprocess.DEVNULL, stdout=2, pass_fds=(life, report), check=True
            )
        finally:
            os.close(life)
            os.close(report)

    def result(self, wait_s: float = 0.0) -> tuple[int | None, str] | None:
        """None while it runs, else its exit code (None if nobody saw it end) and the end of its output.

        Args:
            wait_s: how long to wait for its end, in seconds.
        """
        with self._lock:
            if self._result is None and _is_readable(self._report, wait_s):
                with os.fdopen(self._report, "rb") as pipe:
                    said = json.loads(pipe.read() or b"{}")
                self._result = said.get("exit_code"), said.get("output", "")
            return self._result

    def end(self) -> None:
        """End it: SIGTERM, and some seconds later SIGKILL, in the background."""
        with self._lock:
            if self._life >= 0:
                os.close(self._life)
            self._life = -1


class CommandServer:
    """A model behind a server of the worker's own; ``Model`` documents what all models have."""

    model_dir = ""
    warnings: tuple[str, ...] = ()

    def __init__(self, command: str, environment: Mapping[str, str], *, timeout_s: float, chunked: bool) -> None:
        """Start the command and wait until it answers ``/ping``.

        Args:
            command: a program and its arguments, quoted as in a shell, though no shell reads them; ``{port}`` becomes the
                port's number. It runs in the worker's working directory, and programs of the worker's Python come first.
            environment: all of its environment variables; ``PORT`` and ``SAGEMAKER_BIND_TO_PORT`` are added.
            timeout_s: how long one request may take, in seconds.
            chunked: whether bodies are sent in chunks without a length.

        Raises:
            ModelLoadError: it ended, or did not get ready; carries the end of its output.
        """
        self._command = command
        self._environment = environment
        self._lock = threading.Lock()
        client = ServerClient(_HOST, timeout_s=timeout_s, chunked=chunked)
        try:
            self._process, self._client = self._start(client)
        except ModelLoadError:
            client.close()
            raise

    def transform(
        self,
        body: bytes | memoryview,
        content_type: str,
        accept: str,
        context: InvocationContext,
        staged: bytes | memoryview | None = None,  # noqa: ARG002 - a server reads its input itself
    ) -> Response:
        """Post a request to the server, which is started again if it died at an earlier one.

        Raises:
            InvocationError: there was no whole answer within the time-out, or it was not a 2xx.
            ModelLoadError: the server could not be started again.
        """
        process, client = self._living()
        try:
            return client.transform(body, content_type, accept, context)
        except InvocationError as error:
            # A server that died gives no answer; its exit is seen a moment after the connection's end.
            ended = process.result(_EXIT_WAIT_S) if error.is_servers_fault else process.result()
            if ended is None:
                raise
            raise InvocationError(f"{error.message}; {_how_it_ended(ended)}", _output(ended)) from error

    def execution_parameters(self) -> ExecutionParameters:
        """As of ServerClient."""
        return self._client.execution_parameters()

    def run_ahead(self, body: bytes | memoryview, content_type: str, context: InvocationContext) -> None:
        """Do nothing: a server reads a request when it gets it."""

    def retry(self, ask: Callable[[int], Response], retries: int) -> Response:
        """Ask again with growing pauses, unless the error would stay."""
        return retry_with_back_off(ask, retries)

    def close(self) -> None:
        """End the server."""
        self._client.close()
        self._process.end()

    def _living(self) -> tuple[ServerProcess, ServerClient]:
        with self._lock:
            if self._process.result() is not None:
                self._process.end()
                self._process, self._client = self._start(self._client)
            return self._process, self._client

    def _start(self, client: ServerClient) -> tuple[ServerProcess, ServerClient]:
        port = _free_port()
        words = [word.replace("{port}", str(port)) for word in shlex.split(self._command)]
        variables = {"PORT": str(port), "SAGEMAKER_BIND_TO_PORT": str(port)}
        process = ServerProcess(words, {**self._environment, **variables})
        # The connections are the same client's for good: another thread may be about to ask at the old port.
        client = client.at(f"{_HOST}:{port}")
        try:
            client.wait_until_ready(START_LIMIT_S, check=lambda: self._check_runs(process))
        except ModelLoadError as error:
            process.end()
            ended = process.result(wait_s=10.0)
            raise ModelLoadError(error.message, error.user_traceback or (_output(ended) if ended else "")) from error
        return process, client

    def _check_runs(self, process: ServerProcess) -> None:
        ended = process.result()
        if ended is not None:
            problem = f"Model.Command {self._command!r}: {_how_it_ended(ended)} before it answered /ping"
            raise ModelLoadError(problem, _output(ended))


def _how_it_ended(ended: tuple[int | None, str]) -> str:
    code = ended[0]
    if code is None:
        return "the server ended, and so did the process that watched it"
    return f"the server was ended by signal {-code}" if code < 0 else f"the server exited with code {code}"


def _output(ended: tuple[int | None, str]) -> str:
    text = ended[1].strip("\n")
    return f"the end of its output:\n{text}" if text else "it printed nothing"


def _is_readable(pipe: int, wait_s: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        return bool(selector.select(wait_s))


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
