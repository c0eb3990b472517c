"""The job on the stack that SageMaker's PyTorch containers run: TorchServe with AWS's inference toolkit, driven over HTTP.

``pip install torchserve torch-model-archiver sagemaker-pytorch-inference 'setuptools<81'``, and Java 11 or later. The model is
rayxform's own example, as ``model.tar.gz`` has it, or, with ``--code``, what another folder's ``inference.py`` makes of its
weights. The client does what Batch Transform does: lines are packed into requests of up to 1 MiB, whatever ``--batch`` says,
posted to /invocations, and each answer is joined to its records. Its default is one request at a time
(MaxConcurrentTransforms) and torch's own threads; ``--concurrency 2 --threads 1`` is what one would tune by hand on two cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from benchmarks.peers.images import job_parser, mark
from jobs.resnet18_data import INFERENCE_FILE

MAX_PAYLOAD_BYTES = 2**20
START_LIMIT_S = 180
LINES = "application/jsonlines"


def main() -> None:
    parser = job_parser(__doc__)
    parser.add_argument("--concurrency", type=int, default=1, help="requests at a time, and workers of the server")
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of the server (default: torch's own)")
    parser.add_argument("--code", type=Path, default=INFERENCE_FILE.parent, help="the folder of inference.py")
    options = parser.parse_args()

    options.output.mkdir(parents=True)
    stack = server(options.model, options.code, options.concurrency, options.threads)
    with stack as url, ThreadPoolExecutor(options.concurrency) as posts:
        for source in sorted(options.input.iterdir()):
            with (options.output / f"{source.name}.out").open("w") as output:
                under_way: deque[tuple[list[bytes], Future[bytes]]] = deque()
                for lines in requests(source):
                    under_way.append((lines, posts.submit(post, url, b"\n".join(lines))))
                    while len(under_way) > options.concurrency:
                        output.write(joined(*under_way.popleft(), options.marks))
                while under_way:
                    output.write(joined(*under_way.popleft(), options.marks))


def requests(source: Path) -> Iterator[list[bytes]]:
    """As many lines as fit into a request."""
    lines: list[bytes] = []
    size = 0
    with source.open("rb") as file:
        for line in map(bytes.rstrip, file):
            if lines and size + len(line) + 1 > MAX_PAYLOAD_BYTES:
                yield lines
                lines, size = [], 0
            lines.append(line)
            size += len(line) + 1
    if lines:
        yield lines


def post(url: str, body: bytes) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": LINES, "Accept": LINES})
    with urllib.request.urlopen(request, timeout=600) as answer:
        data: bytes = answer.read()
    return data


def joined(lines: list[bytes], answer: Future[bytes], marks: Path) -> str:
    predictions = answer.result().splitlines()
    mark(marks, len(lines))
    results = []
    for line, prediction in zip(lines, predictions, strict=True):
        record = json.loads(line)
        results.append(json.dumps({"SageMakerOutput": json.loads(prediction), "id": record["id"], "date": record["date"]}))
    return "\n".join(results) + "\n"


@contextlib.contextmanager
def server(model: Path, source: Path, workers: int, threads: int | None) -> Iterator[str]:
    """Start TorchServe as ``sagemaker_pytorch_serving_container.torchserve`` does; gives the URL of /invocations."""
    from sagemaker_pytorch_serving_container import handler_service, torchserve

    with tempfile.TemporaryDirectory() as made:
        base = Path(made)
        shutil.copytree(model, base / "model")
        code = base / "model/code"
        shutil.rmtree(code, ignore_errors=True)
        shutil.copytree(source, code, ignore=shutil.ignore_patterns("data", "__pycache__"))
        (code / "requirements.txt").unlink(missing_ok=True)  # they are installed
        port, management, metrics = (free_port() for _ in range(3))
        config = base / "ts.properties"
        config.write_text(
            f"{Path(torchserve.DEFAULT_TS_CONFIG_FILE).read_text()}\n"
            f"default_workers_per_model={workers}\n"
            f"inference_address=http://127.0.0.1:{port}\nmanagement_address=http://127.0.0.1:{management}\n"
            f"metrics_address=http://127.0.0.1:{metrics}\ndefault_service_handler={handler_service.__file__}:handle\n"
            "default_response_timeout=600\nmax_request_size=67108864\n"
        )
        environment = {
            **os.environ,
            "SAGEMAKER_BASE_DIR": made,
            "SAGEMAKER_PROGRAM": INFERENCE_FILE.name,
            "SAGEMAKER_SUBMIT_DIRECTORY": str(code),
            "PYTHONPATH": os.pathsep.join([str(code), os.environ.get("PYTHONPATH", "")]),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "LOG_LOCATION": made,
            "METRICS_LOCATION": made,
            **({} if threads is None else {"OMP_NUM_THREADS": str(threads)}),
        }
        (base / "store").mkdir()
        command = ["torchserve", "--start", "--foreground", "--model-store", str(base / "store"), "--ts-config", str(config)]
        command += ["--log-config", torchserve.DEFAULT_TS_LOG_FILE, "--models", f"model={base / 'model'}"]
        with (base / "log").open("wb") as log:
            process = subprocess.Popen(
                command, env=environment, cwd=made, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                wait_until_ready(f"http://127.0.0.1:{port}/ping", process, base / "log")
                yield f"http://127.0.0.1:{port}/invocations"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + START_LIMIT_S
    while True:
        with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(url, timeout=5) as answer:
            if json.load(answer)["status"] == "Healthy":
                return
        if process.poll() is not None or time.monotonic() > give_up_at:
            raise RuntimeError(f"TorchServe did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    main()
