"""How many clients may watch: Describe and List calls at the endpoint while a job runs, and what they cost the job.

::

    python -m benchmarks.endpoint                 1,000 calls by 1,000 connections at once, and by 50, while a job runs

The server has keys, and every call is signed. Calls are made over connections that are open already, in a process of their
own, which shares the cores with the job and the server. The job runs without calls and with 1,000 calls in its
steady phase, in turns, and the medians of its steady records a second are compared. Where the machine's own speed changes by
more than the calls can cost, there is another figure besides: the core-seconds that server and client took for the calls and
their connections, as a share of those of the job's steady phase.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast
from urllib.request import Request, urlopen

import psutil
import uvloop

if __package__ in {None, ""}:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.report import machine_facts

CALLS = 1000
CONNECTIONS = (CALLS, 50)
JOBS = 300
LINES = 40_000
KEYS = {"AKIDBENCHMARK": "secret"}
PASSWORD = "pages"

MODEL = '''
"""Arithmetic that takes a core for about a millisecond a record."""
def model_fn(model_dir):
    return None
def transform_fn(model, body, content_type, accept):
    lines = body.encode().split(b"\\n") if isinstance(body, str) else body.split(b"\\n")
    for _ in lines:
        sum(range(40_000))
    return "\\n".join("1" for _ in lines)
'''


@dataclass(frozen=True)
class Server:
    """A server: where it is, and its process."""

    url: str
    process: psutil.Process


@dataclass(frozen=True)
class Steady:
    """A job between its first and its last mini-batch."""

    records: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.records / self.seconds

    @property
    def core_seconds(self) -> float:
        return self.seconds * (psutil.cpu_count() or 1)


@dataclass(frozen=True)
class Calls:
    """What the calls took: latencies in ms, the seconds of all of them, and those of the processors."""

    connections: int
    beside: str
    latencies: Sequence[float]
    errors: int
    seconds: float
    server_cpu_s: float
    client_cpu_s: float

    @property
    def cpu_s(self) -> float:
        return self.server_cpu_s + self.client_cpu_s

    def row(self) -> list[str]:
        """A line of the table."""
        cuts = statistics.quantiles(self.latencies, n=100)
        times = f"{cuts[49]:.1f}", f"{cuts[98]:.1f}", f"{CALLS / self.seconds:,.0f}"
        counts = f"{CALLS:,}", f"{self.connections:,}", self.beside, str(self.errors)
        return [*counts, *times, f"{self.server_cpu_s:.2f}", f"{self.client_cpu_s:.2f}"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=LINES, help="records of the job (%(default)s)")
    parser.add_argument("--repeat", type=int, default=2, help="pairs of jobs for each number of connections (%(default)s)")
    options = parser.parse_args(arguments)
    print("\n".join(machine_facts()), flush=True)
    with tempfile.TemporaryDirectory(prefix="rayxform-endpoint-") as name:
        folder = Path(name)
        write_job(folder, options.lines)
        with serving(folder) as server:
            rows = [Client(server, connections).call("no job").row() for connections in CONNECTIONS]
            alone, watched = [], []
            shares = []
            for connections in CONNECTIONS * options.repeat:
                alone.append(run_job(server, folder))
                client = Client(server, connections)
                found: list[Calls] = []
                watched.append(run_job(server, folder, lambda client=client, found=found: found.append(client.call("the job"))))
                rows.append(found[0].row())
                shares.append(found[0].cpu_s / watched[-1].core_seconds)
    heads = ["calls", "connections", "beside", "errors", "p50 ms", "p99 ms", "calls/s", "server's CPU, s", "client's CPU, s"]
    print(*(f"| {' | '.join(row)} |" for row in (heads, ["--:"] * len(heads), *rows)), sep="\n")
    rates = {name: [one.rate for one in runs] for name, runs in (("alone", alone), ("with calls", watched))}
    print("\nthe job, steady records/s:", {name: [round(rate) for rate in found] for name, found in rates.items()})
    before, beside = map(statistics.median, rates.values())
    print(f"with {CALLS:,} calls and their client on the same cores: {beside / before - 1:+.1%}")
    print(f"the calls' and their client's share of the cores in the job's steady time: {max(shares):.1%} at most")
    return 0


def write_job(folder: Path, lines: int) -> None:
    """A job file, its model and its input; and what the server is told."""
    (folder / "source").mkdir()
    (folder / "source" / "inference.py").write_text(MODEL)
    (folder / "input.jsonl").write_text("".join(f'{{"id": {number}}}\n' for number in range(lines)))
    job = {
        "TransformJobName": "watched",
        "Model": {"SourceDir": "source"},
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3Uri": "input.jsonl"}},
            "ContentType": "application/jsonlines",
            "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": "output"},
        "Rayxform": {"MaxRecordsPerBatch": 200},
    }
    (folder / "job.json").write_text(json.dumps(job))
    settings = {"Keys": KEYS, "PagesPassword": PASSWORD, "AllowedPrefixes": ["s3://"]}
    (folder / "settings.json").write_text(json.dumps(settings))


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server that knows some jobs."""
    from rayxform.server.database import JOBS as TABLE
    from rayxform.server.database import Database

    (folder / "state").mkdir()
    database = Database(folder / "state" / "server.sqlite")
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/input/"}}
    for number in range(JOBS):
        members = {
            "TransformJobName": f"job-{number}",
            "ModelName": "model",
            "TransformInput": {"DataSource": source},
            "TransformOutput": {"S3OutputPath": "s3://bucket/output"},
            "TransformResources": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1},
        }
        now = time.time()
        values = {"status": "Completed", "created_at": now, "modified_at": now, "started_at": now, "ended_at": now}
        database.insert(TABLE, name=f"job-{number}", members=members, job=members, **values)
    database.close()
    command = [
        sys.executable,
        "-m",
        "rayxform",
        "serve",
        str(folder / "job.json"),
        "--port",
        "0",
        "--state",
        str(folder / "state"),
    ]
    server = subprocess.Popen([*command, "--settings", str(folder / "settings.json")], stdout=subprocess.PIPE, text=True)
    try:
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=lambda: lines.put(server.stdout.readline() if server.stdout else ""), daemon=True).start()
        yield Server(lines.get(timeout=60).split()[2], psutil.Process(server.pid))
    finally:
        server.terminate()
        server.wait()


def run_job(server: Server, folder: Path, meanwhile: Callable[[], object] | None = None) -> Steady:
    """Run the job from its page, and do something in its steady phase."""
    before = result_file(folder).stat().st_mtime if has_run(folder) else 0.0
    post(server.url, "/jobs/watched/resume")
    if meanwhile is not None:
        wait_until(lambda: any((folder / "output" / ".rayxform" / "watched" / "parts").rglob("*.part")))
        meanwhile()
    wait_until(
        lambda: has_run(folder) and result_file(folder).stat().st_mtime > before and result_file(folder).stat().st_size > 0
    )
    timings = json.loads(result_file(folder).read_text())["Timings"]
    make_stopped(folder)
    return Steady(timings["SteadyRecords"], timings["SteadySeconds"])


def result_file(folder: Path) -> Path:
    return folder / "state" / "jobs" / "watched" / "result.json"


def has_run(folder: Path) -> bool:
    return result_file(folder).exists()


def make_stopped(folder: Path) -> None:
    """Wait until the server has noted the end, and have it run the job again when it is asked."""
    from rayxform.server.database import JOBS as TABLE
    from rayxform.server.database import Database

    database = Database(folder / "state" / "server.sqlite")
    wait_until(lambda: database.change_job("watched", TABLE.c.status == "Completed", status="Stopped"))
    database.close()


def post(url: str, path: str) -> None:
    import base64

    password = base64.b64encode(f"any:{PASSWORD}".encode()).decode()
    headers = {"Origin": url, "Authorization": f"Basic {password}"}
    urlopen(Request(url + path, b"", headers, method="POST")).read()


def wait_until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        time.sleep(0.1)


class Client:
    """A process that makes CALLS calls over so many connections, half of them Describe and half List, when it is told."""

    def __init__(self, server: Server, connections: int) -> None:
        self._server = server
        self._connections = connections
        command = [sys.executable, "-c", f"from benchmarks.endpoint import *; print_calls({server.url!r}, {connections})"]
        root = Path(__file__).resolve().parents[1]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it has imported and signed what it needs

    def call(self, beside: str) -> Calls:
        """Make the calls."""
        before_s = sum(self._server.process.cpu_times()[:2])
        shown, _ = self._process.communicate("\n")
        server_cpu_s = sum(self._server.process.cpu_times()[:2]) - before_s
        latencies, errors, seconds, client_cpu_s = json.loads(shown)
        return Calls(self._connections, beside, latencies, errors, seconds, server_cpu_s, client_cpu_s)


def print_calls(url: str, connections: int) -> None:
    """Get ready, say so, wait for a line, make the calls, and print latencies in ms, the errors, the seconds, and the CPU's."""
    calls = (("DescribeTransformJob", {"TransformJobName": "job-7"}), ("ListTransformJobs", {}))
    requests = [signed(url, *call) for call in calls]
    print("ready", flush=True)
    sys.stdin.readline()
    before_s = time.process_time()
    found = uvloop.run(make_calls(url, connections, requests))
    print(json.dumps([*found, time.process_time() - before_s]))


async def make_calls(url: str, connections: int, requests: Sequence[bytes]) -> tuple[list[float], int, float]:
    host, _, port = url.removeprefix("http://").partition(":")
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(partial(_Caller, requests, number, CALLS // connections), host, int(port)))[1]
        for number in range(connections)
    ]
    began = time.perf_counter()
    for caller in opened:
        caller.ask()
    await asyncio.gather(*(caller.done for caller in opened))
    seconds = time.perf_counter() - began
    for caller in opened:
        caller.close()
    return [one for caller in opened for one in caller.latencies], sum(caller.errors for caller in opened), seconds


class _Caller(asyncio.Protocol):
    """A connection that makes its calls one after the other, at next to no cost, so that it is the server that is measured."""

    def __init__(self, requests: Sequence[bytes], number: int, calls: int) -> None:
        self._requests, self._number, self._calls = requests, number, calls
        self._received = b""
        self.latencies: list[float] = []
        self.errors = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(self._requests[(self._number + len(self.latencies)) % 2])

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, ended, body = self._received.partition(b"\r\n\r\n")
        if not ended or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            return
        self.latencies.append(1000 * (time.perf_counter() - self._began))
        self.errors += not head.startswith(b"HTTP/1.1 200")
        self._received = b""
        if len(self.latencies) < self._calls:
            self.ask()
        else:
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("closed before it had answered"))


def signed(url: str, operation: str, members: dict[str, str]) -> bytes:
    """A whole HTTP request, signed by botocore."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    body = json.dumps(members).encode()
    headers = {"X-Amz-Target": f"SageMaker.{operation}", "Content-Type": "application/x-amz-json-1.1"}
    request = AWSRequest("POST", f"{url}/", data=body, headers=headers)
    SigV4Auth(Credentials(*next(iter(KEYS.items()))), "sagemaker", "us-east-1").add_auth(request)
    lines = [f"{name}: {value}" for name, value in {**request.headers, "Host": url.removeprefix("http://")}.items()]
    return "\r\n".join(["POST / HTTP/1.1", *lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


if __name__ == "__main__":
    sys.exit(main())
