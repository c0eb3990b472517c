"""How many clients may watch: Describe and List calls at the endpoint while a job runs, and what they cost the job.

::

    python -m benchmarks.endpoint                 1,000 calls by 1,000 connections at once, and by 50, while a job runs

The server has keys, and every call is signed. Calls are made over connections that are open already, in a process of their
own, which shares the cores with the job and the server. The job runs twice without calls and twice with 1,000 calls in its
steady phase, in turns, and its steady records a second are compared.
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
from pathlib import Path
from urllib.request import Request, urlopen

if __package__ in {None, ""}:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.report import machine_facts, table

CALLS = 1000
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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=LINES, help="records of the job (%(default)s)")
    options = parser.parse_args(arguments)
    print("\n".join(machine_facts()), flush=True)
    with tempfile.TemporaryDirectory(prefix="rayxform-endpoint-") as name:
        folder = Path(name)
        write_job(folder, options.lines)
        with serving(folder) as url:
            rows = [measure_calls(url, connections, "no job") for connections in (CALLS, 50)]
            rates: dict[str, list[float]] = {"alone": [], "with calls": []}
            for _ in range(2):
                rates["alone"].append(run_job(url, folder, []))
                rates["with calls"].append(run_job(url, folder, rows))
        print(table(("calls", "connections", "beside", "errors", "p50 ms", "p99 ms", "calls/s"), rows))
        alone, watched = (statistics.median(rates[one]) for one in ("alone", "with calls"))
        print(f"\nthe job: {alone:,.0f} records/s alone, {watched:,.0f} with {CALLS} calls: {watched / alone - 1:+.1%}")
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
def serving(folder: Path) -> Iterator[str]:
    """A server that knows some jobs; its URL."""
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
        yield lines.get(timeout=60).split()[2]
    finally:
        server.terminate()
        server.wait()


def run_job(url: str, folder: Path, rows: list[list[str]]) -> float:
    """Run the job from its page; its steady records a second. With rows to fill, calls are made while it runs."""
    before = result_file(folder).stat().st_mtime if has_run(folder) else 0.0
    post(url, "/jobs/watched/resume")
    if rows:
        wait_until(lambda: any((folder / "output" / ".rayxform" / "watched" / "parts").rglob("*.part")))
        rows += [measure_calls(url, connections, "the job") for connections in (CALLS, 50)]
    wait_until(
        lambda: has_run(folder) and result_file(folder).stat().st_mtime > before and result_file(folder).stat().st_size > 0
    )
    timings = json.loads(result_file(folder).read_text())["Timings"]
    # The page runs again what failed or was stopped; a job that is complete is made so.
    make_stopped(folder)
    return float(timings["SteadyRecords"] / timings["SteadySeconds"])


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


def measure_calls(url: str, connections: int, beside: str) -> list[str]:
    """A row of the table: CALLS calls over so many connections, half of them Describe and half List, by another process."""
    command = [sys.executable, "-c", f"from benchmarks.endpoint import *; print_calls({url!r}, {connections})"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[1])
    latencies, errors, seconds = json.loads(shown.stdout)
    cuts = statistics.quantiles(latencies, n=100)
    return [
        f"{CALLS:,}",
        f"{connections:,}",
        beside,
        str(errors),
        f"{cuts[49]:.1f}",
        f"{cuts[98]:.1f}",
        f"{CALLS / seconds:,.0f}",
    ]


def print_calls(url: str, connections: int) -> None:
    """Make the calls; print latencies in ms, the number of errors, and the seconds."""
    print(json.dumps(asyncio.run(make_calls(url, connections))))


async def make_calls(url: str, connections: int) -> tuple[list[float], int, float]:
    requests = [
        signed(url, *call) for call in (("DescribeTransformJob", {"TransformJobName": "job-7"}), ("ListTransformJobs", {}))
    ]
    host, _, port = url.removeprefix("http://").partition(":")
    opened = [await asyncio.open_connection(host, int(port)) for _ in range(connections)]
    latencies: list[float] = []
    errors = 0

    async def call(number: int) -> None:
        nonlocal errors
        reader, writer = opened[number]
        for turn in range(CALLS // connections):
            began = time.perf_counter()
            writer.write(requests[(number + turn) % 2])
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            latencies.append(1000 * (time.perf_counter() - began))
            errors += not head.startswith(b"HTTP/1.1 200")

    began = time.perf_counter()
    await asyncio.gather(*map(call, range(connections)))
    seconds = time.perf_counter() - began
    for _, writer in opened:
        writer.close()
    return latencies, errors, seconds


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
