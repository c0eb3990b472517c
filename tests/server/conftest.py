"""The endpoint as a process of its own, as `rayxform serve` starts it."""

import json
import queue
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.conftest import MODELS
from tests.s3_server import Bucket

ONE_WORKER = {"Rayxform": {"CpusPerWorker": 2}}
"""Settings by which a job starts one worker and not two, which takes half as long."""
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312-ubuntu22.04-sagemaker"


class Server:
    """A running `rayxform serve`; its jobs join the session's Ray."""

    def __init__(self, folder: Path, settings: dict[str, Any], *arguments: str) -> None:
        self.state = folder / "state"
        self.settings = folder / "settings.json"
        self.settings.write_text(json.dumps(settings))
        self.keys = settings.get("Keys", {})
        self.arguments = arguments
        self.url = ""
        self.start()

    def start(self, port: int = 0) -> None:
        command = [sys.executable, "-m", "rayxform", "serve", "--port", str(port), "--state", str(self.state)]
        command += ["--settings", str(self.settings), *self.arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=(self.state.parent / "log").open("ab"), text=True
        )
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=lambda: lines.put(self.process.stdout.readline()), daemon=True).start()
        line = lines.get(timeout=60)
        assert line.startswith("rayxform serve: http://"), f"{line!r}: {self.log()}"
        self.url = line.split()[2]

    def log(self) -> str:
        return (self.state.parent / "log").read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.start(int(self.url.rpartition(":")[2]))

    def client(self, **changes: Any) -> Any:
        """Stock boto3 with another endpoint_url."""
        key, secret = next(iter(self.keys.items()), ("any", "key"))
        given = {"aws_access_key_id": key, "aws_secret_access_key": secret, **changes}
        return boto3.client(
            "sagemaker", endpoint_url=self.url, region_name="us-east-1", config=Config(retries={"max_attempts": 1}), **given
        )

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=30)


@pytest.fixture(scope="session")
def start_server(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start servers; they end with the session."""
    servers = []

    def start(settings: dict[str, Any] | None = None, *arguments: str) -> Server:
        servers.append(Server(tmp_path_factory.mktemp("server"), settings or {}, *arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


@pytest.fixture(scope="session")
def server(start_server: Callable[..., Server]) -> Server:
    """A server that most tests share, with default settings."""
    return start_server(ONE_WORKER)


@pytest.fixture
def sagemaker(server: Server) -> Any:
    """Stock boto3 that talks to it."""
    return server.client()


class World:
    """A bucket with a model and an input in it, and the requests that name them."""

    def __init__(self, bucket: Bucket, folder: Path, name: str) -> None:
        self.bucket = bucket
        self.folder = folder
        self.name = name
        self.model_name = f"{name}-model"

    def put_model(self, source: str = "echo") -> str:
        """A model.tar.gz of one of the tests' models."""
        archive = self.folder / "model.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(MODELS / source, "code")
        return self.bucket.put("models/model.tar.gz", archive.read_bytes())

    def model(self, **changes: Any) -> dict[str, Any]:
        """CreateModel's members."""
        container = {"Image": IMAGE, "ModelDataUrl": f"{self.bucket.url}/models/model.tar.gz"}
        return {"ModelName": self.model_name, "PrimaryContainer": container, **changes}

    def job(self, name: str = "job", **changes: Any) -> dict[str, Any]:
        """CreateTransformJob's members."""
        source = {"S3DataType": "S3Prefix", "S3Uri": f"{self.bucket.url}/input/"}
        members = {
            "TransformJobName": f"{self.name}-{name}",
            "ModelName": self.model_name,
            "MaxPayloadInMB": 1,
            "BatchStrategy": "MultiRecord",
            "TransformInput": {
                "DataSource": {"S3DataSource": source},
                "ContentType": "application/jsonlines",
                "SplitType": "Line",
            },
            "TransformOutput": {"S3OutputPath": f"{self.bucket.url}/output-{name}", "AssembleWith": "Line"},
            "TransformResources": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1},
        }
        return {**members, **changes}

    def outputs(self, name: str = "job") -> dict[str, bytes]:
        """What a job published."""
        prefix = f"output-{name}/"
        keys = [key for key in self.bucket.keys(prefix) if "/.rayxform/" not in key]
        return {key.removeprefix(prefix): self.bucket.get(key) for key in keys}


@pytest.fixture
def world(bucket: Bucket, tmp_path: Path, request: pytest.FixtureRequest) -> World:
    """A world whose names are this test's own."""
    return World(bucket, tmp_path, bucket.name)


def wait_for(client: Any, name: str, *statuses: str, timeout_s: float = 120) -> dict[str, Any]:
    """The job's description when it has one of these states, else when it has ended."""
    give_up_at = time.monotonic() + timeout_s
    while True:
        described = client.describe_transform_job(TransformJobName=name)
        if described["TransformJobStatus"] in (statuses or ("Completed", "Failed", "Stopped")):
            return described
        assert time.monotonic() < give_up_at, described
        time.sleep(0.1)
