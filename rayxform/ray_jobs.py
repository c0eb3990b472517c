"""Jobs on a Ray cluster's job server: submitted once, looked at, stopped and followed from anywhere.

What is submitted is ``python -m rayxform run`` in a small working folder with the resolved job file and, where it is a
folder of this machine, the model's SourceDir. Ray's client is in here, and its exceptions become rayxform's here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies

from ray.exceptions import RayError

from rayxform.errors import ClusterError, EngineError
from rayxform.pipeline.result import last_result
from rayxform.variables import variable_set

STOP_WAIT_S: Final = 30
"""How long the cluster waits after SIGTERM before it kills a run, which writes down what it has done meanwhile."""

_SOURCE: Final = "source"
"""SourceDir's folder in the working folder."""
_MADE_BY: Final = "rayxform_job"
_WRITES_TO: Final = "rayxform_output"
_CONNECT_S: Final = 10.0
_AGAIN_S: Final = 1.0
"""Before a connection that broke is made again."""

_SERVER_VARIABLE: Final = "RAY_API_SERVER_ADDRESS"
_NOT_CODE: Final = ("__pycache__", ".*")


@dataclass(frozen=True)
class RunState:
    """What is known of a submitted run.

    Attributes:
        is_known: whether the job server knows it; one that was started again has forgotten its jobs.
        is_running: whether it goes on, or has not begun.
        result: what ``rayxform run --json`` printed last; None while it runs, and if it ended without a word.
        exit_code: of the run's process; None where Ray does not tell.
        message: what Ray says.
        was_stopped: whether Ray was told to stop it.
    """

    is_known: bool
    is_running: bool
    result: Mapping[str, Any] | None = None
    exit_code: int | None = None
    message: str = ""
    was_stopped: bool = False

    @property
    def status(self) -> str:
        """AWS's TransformJobStatus: "InProgress", "Completed", "Failed" or "Stopped"."""
        if self.is_running:
            return "InProgress"
        if self.result is not None:
            return str(self.result["TransformJobStatus"])
        return "Stopped" if self.was_stopped else "Failed"


class RayJobs:
    """The job server of a Ray cluster."""

    def __init__(self, address: str) -> None:
        """Connect.

        Args:
            address: the server's URL, ``http://HEAD:8265``.

        Raises:
            ClusterError: nothing that can take jobs is there, or its client is not installed here.
        """
        self.address = address.rstrip("/")
        _check_address(self.address)
        try:
            from ray.job_submission import JobSubmissionClient  # noqa: PLC0415 - ray[default] has it

            for name in ("dashboard_sdk", "job.sdk"):  # they tell of each package and each connection
                logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)
            with variable_set(_SERVER_VARIABLE, self.address):  # else RAY_ADDRESS counts, whatever the client is told
                self._client: Any = JobSubmissionClient(self.address)
        except (ImportError, RuntimeError) as error:
            raise ClusterError(_why_no_client(self.address, error)) from error
        except RayError as error:  # a token is missing, or is another one
            raise ClusterError(f"the job server at {self.address} refuses: {error}") from error
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ClusterError(
                f"{self.address} is no Ray job server ({type(error).__name__}: {error}); write the URL of the cluster's "
                "dashboard, such as http://HEAD:8265"
            ) from error

    def submit(
        self,
        submission_id: str,
        job_members: Mapping[str, Any],
        *,
        name: str,
        workers: int | None = None,
        restart: bool = False,
        within: Sequence[str] = (),
        source_dir: Path | None = None,
    ) -> None:
        """Start a run; one that the server has under this id already, running or ended, is left as it is.

        Args:
            submission_id: the run's name on the server.
            job_members: the job's members, as ``to_members`` gives them: checked, and with absolute locations.
            name: TransformJobName, which names the state folder, so that a later run goes on.
            workers: the size of the actor pool; None for the job's own, or what the cluster suggests.
            restart: whether to begin anew, whatever an earlier run left.
            within: what the job may touch, as ``rayxform.run`` takes it.
            source_dir: a folder of this machine that takes the place of Model.SourceDir; None to leave that as it is.

        Raises:
            ClusterError: the server refuses it, or source_dir is too large to be sent.
            EngineError: the server cannot be reached any more.
        """
        if self.look(submission_id).is_known:
            return
        command = ["python", "-m", "rayxform", "run", "job.json", "--json"]
        command += ["--workers", str(workers)] if workers is not None else []
        command += ["--restart"] if restart else []
        command += [word for prefix in within for word in ("--within", prefix)]
        output = str(job_members["TransformOutput"]["S3OutputPath"])
        with tempfile.TemporaryDirectory(prefix="rayxform-submit-") as folder, self._server_errors("take the job"):
            _fill(Path(folder), {**job_members, "TransformJobName": name}, source_dir)
            try:
                self._client.submit_job(
                    entrypoint=shlex.join(command),
                    submission_id=submission_id,
                    runtime_env={"working_dir": folder, "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}},
                    metadata={_MADE_BY: name, _WRITES_TO: output},
                )
            except ValueError as error:  # so Ray says that a package is too large
                raise ClusterError(f"the job cannot be sent to {self.address}: {error}") from error
            except RuntimeError:
                if not self.look(submission_id).is_known:  # else somebody else was faster, or this was asked twice
                    raise

    def look(self, submission_id: str) -> RunState:
        """What became of a run so far.

        Raises:
            EngineError: the server cannot be reached any more.
        """
        with self._server_errors("tell of a job"):
            try:
                info = self._client.get_job_info(submission_id)
            except RuntimeError as error:
                if "404" not in str(error):
                    raise
                message = f"the job server at {self.address} knows no job {submission_id}"
                return RunState(is_known=False, is_running=False, message=message)
            message = str(info.message or "")
            if not info.status.is_terminal():
                return RunState(is_known=True, is_running=True, message=message)
            result = last_result(self._log(submission_id)) or last_result(message)
            return RunState(
                is_known=True,
                is_running=False,
                result=result,
                exit_code=info.driver_exit_code,
                message=message,
                was_stopped=info.status == "STOPPED",
            )

    def stop(self, submission_id: str) -> None:
        """Ask a run to stop, which takes some seconds; one that has ended, or was never there, is left alone.

        Raises:
            EngineError: the server cannot be reached any more.
        """
        with self._server_errors("stop a job"):
            try:
                self._client.stop_job(submission_id)
            except RuntimeError as error:
                if "404" not in str(error):
                    raise

    def follow_logs(self, submission_id: str) -> Iterator[str]:
        """The lines that a run prints, from the first on, until it has ended; a connection that breaks is made again.

        Raises:
            EngineError: the server cannot be reached any more.
        """
        seen, text = 0, ""
        while True:
            for chunk in self._tail(submission_id, seen):
                seen += len(chunk)
                *lines, text = (text + chunk).split("\n")
                yield from lines
            if not self.look(submission_id).is_running:
                break
            time.sleep(_AGAIN_S)
        if text:
            yield text

    def runs_of(self, name: str, output: str) -> list[str]:
        """The ids of the runs of a job that go on.

        Args:
            name: TransformJobName.
            output: S3OutputPath; a job of the same name that writes elsewhere is another one.

        Raises:
            EngineError: the server cannot be reached any more.
        """
        with self._server_errors("list its jobs"):
            return sorted(
                one.submission_id
                for one in self._client.list_jobs()
                if one.submission_id
                and not one.status.is_terminal()
                and ((one.metadata or {}).get(_MADE_BY), (one.metadata or {}).get(_WRITES_TO)) == (name, output)
            )

    def free_id(self, name: str) -> str:
        """The first of ``name``, ``name-2``, ``name-3`` and so on that no job of the server has.

        Raises:
            EngineError: the server cannot be reached any more.
        """
        with self._server_errors("list its jobs"):
            taken = {one.submission_id for one in self._client.list_jobs()}
        number = 1
        while (found := name if number == 1 else f"{name}-{number}") in taken:
            number += 1
        return found

    def _log(self, submission_id: str) -> str:
        """All that a run has printed; "" where its node is gone."""
        try:
            return str(self._client.get_job_logs(submission_id))
        except RuntimeError:
            return ""

    def _tail(self, submission_id: str, seen: int) -> Iterator[str]:
        """What a run prints, after so many characters, until it ends or the connection does."""
        import aiohttp  # noqa: PLC0415 - Ray's client brings it

        loop = asyncio.new_event_loop()
        pieces = self._client.tail_job_logs(submission_id)  # begins anew each time
        try:
            while (chunk := loop.run_until_complete(_next(pieces))) is not None:
                if rest := chunk[seen:]:
                    yield rest
                seen = max(seen - len(chunk), 0)
        except (aiohttp.ClientError, RayError, RuntimeError, OSError):  # ``look`` tells whether the server is gone
            return
        finally:
            loop.run_until_complete(pieces.aclose())
            loop.close()

    @contextmanager
    def _server_errors(self, what: str) -> Iterator[None]:
        """The one place where Ray's client's exceptions become rayxform's, once it is connected."""
        try:
            yield
        except (RayError, RuntimeError, OSError, LookupError, TypeError) as error:
            raise EngineError(
                f"the job server at {self.address} did not {what}: {error}; what was submitted goes on without it being "
                "watched, and `rayxform status JOB` tells how far it is"
            ) from error


async def _next(pieces: AsyncIterator[str]) -> str | None:
    return await anext(pieces, None)


def _check_address(address: str) -> None:
    """Find out at once that nothing listens there; Ray's client would wait for minutes where a firewall says nothing."""
    parts = urlsplit(address)
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, LookupError) as error:
        raise ClusterError(
            f"--address is {address!r}, which is no URL of a Ray job server; write http://HEAD:8265, where HEAD is the "
            "cluster's head node (the one that `ray start --head` printed)"
        ) from error
    if getproxies():  # then the name may be known to the proxy alone
        return
    try:
        socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_S).close()
    except OSError as error:
        raise ClusterError(
            f"no Ray job server answers at {address}: {error}; check the address, that the head node was started with "
            "--dashboard-host 0.0.0.0 and pip install 'ray[default]', and that its port can be reached from here"
        ) from error


def _why_no_client(address: str, error: Exception) -> str:
    """What Ray says where its client lacks packages, or the cluster has too old a Ray."""
    if isinstance(error, ImportError) or "ray[default]" in str(error):
        return f"submitting needs Ray's job client, which is not installed: {error}; pip install 'rayxform[cluster]'"
    return f"the job server at {address} cannot be used: {error}; install the Ray here that the cluster has"


def _fill(folder: Path, members: Mapping[str, Any], source_dir: Path | None) -> None:
    """Put into the working folder what a run needs."""
    if source_dir is not None:
        members = {**members, "Model": {**members["Model"], "SourceDir": _SOURCE}}
        data = {members["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"], members["TransformOutput"]["S3OutputPath"]}
        _copy_code(source_dir, folder / _SOURCE, {path.rstrip("/") for path in data})
    (folder / "job.json").write_text(json.dumps(members))


def _copy_code(source: Path, target: Path, data: set[str]) -> None:
    """A folder without what is hidden, what Python leaves there, and the job's data; links as what they lead to.

    A .gitignore stays behind as well, for Ray would leave out what it names, weights for example.
    """
    patterns = shutil.ignore_patterns(*_NOT_CODE)

    def ignored(at: str, names: list[str]) -> set[str]:
        return {*patterns(at, names), *(name for name in names if str(Path(at) / name) in data)}

    try:
        shutil.copytree(source, target, ignore=ignored)
    except (shutil.Error, OSError) as error:
        raise ClusterError(f"Model.SourceDir {source} cannot be copied to be sent to the cluster: {error}") from error
