"""One Ray for the whole session, and small jobs on real files."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from rayxform.model.zygote import ModelZygote, serving_zygote
from rayxform.pipeline.planning import make_plan
from rayxform.spec import parse_job
from tests.faulty_fs import FaultyFileSystem, announce_faulty
from tests.s3_server import Bucket, S3Proxy
from tests.support import run_main_job

MODELS = Path(__file__).parent / "models"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

fsspec.register_implementation("faulty", FaultyFileSystem)


@pytest.fixture(scope="session")
def s3_proxy() -> Iterator[S3Proxy]:
    """A real S3 server over HTTP, moto's, behind a proxy that counts requests and can break them; where boto3 looks for S3."""
    with S3Proxy.running() as proxy:
        os.environ |= {
            "AWS_ENDPOINT_URL": proxy.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        yield proxy


@pytest.fixture
def bucket(s3_proxy: S3Proxy) -> Iterator[Bucket]:
    """An empty bucket, seen with stock boto3; after the test no upload may be left open in it."""
    bucket = Bucket(s3_proxy)
    yield bucket
    assert bucket.uploads() == []


@pytest.fixture(scope="session")
def ray_address(s3_proxy: S3Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray that runs for the whole session; rayxform joins it, as it would join a cluster.

    Its workers have the environment that it was started in, so S3's and that of faulty:// is there before.
    """
    announce_faulty(tmp_path_factory.mktemp("faulty"))
    import ray

    from rayxform.pipeline.cluster import ray_session
    from rayxform.pipeline.fork_server import warming_up

    zygote = ModelZygote([], {}, None) if sys.platform == "linux" else None
    with warming_up(None) as fork_server, serving_zygote(zygote), ray_session(None, fork_server):
        address = ray.get_runtime_context().gcs_address
        os.environ["RAY_ADDRESS"] = address
        yield address
        del os.environ["RAY_ADDRESS"]


@pytest.fixture(scope="session")
def main_job(tmp_path_factory: pytest.TempPathFactory, ray_address: str) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """The folder that the main job filled, with images and a trained model, and what it printed."""
    data = tmp_path_factory.mktemp("resnet18")
    return data, run_main_job(data)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium; one for the session, since Playwright leaves its loop running in the thread."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium on the path")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a megabyte, which needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


class Workspace:
    """A folder with an input, an output and a job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests = folder / "requests"
        self.requests.mkdir()

    def write(self, name: str, data: bytes) -> Path:
        """Put an input object."""
        path = self.folder / "input" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def members(self, **changes: Any) -> dict[str, Any]:
        """A JSON Lines job; a dotted name (TransformInput__SplitType) replaces a member, None leaves it out."""
        members: dict[str, Any] = {
            "Model": {"SourceDir": str(MODELS / "counting"), "Environment": {"REQUESTS": str(self.requests)}},
            "BatchStrategy": "MultiRecord",
            "MaxPayloadInMB": 1,
            "TransformInput": {
                "DataSource": {"S3DataSource": {"S3Uri": str(self.folder / "input")}},
                "ContentType": "application/jsonlines",
                "SplitType": "Line",
            },
            "TransformOutput": {"S3OutputPath": str(self.folder / "output")},
        }
        for path, value in changes.items():
            *parents, last = path.split("__")
            place = members
            for step in parents:
                place = place.setdefault(step, {})
            place[last] = value
            if value is None:
                del place[last]
        return members

    def job_file(self, **changes: Any) -> Path:
        """The job as a file."""
        path = self.folder / "job.json"
        path.write_text(json.dumps(self.members(**changes)))
        return path

    def plan(self, *, range_bytes: int | None = None, **changes: Any) -> Any:
        """The job's plan."""
        plan = make_plan(parse_job(self.members(**changes)))
        return replace(plan, range_bytes=range_bytes) if range_bytes else plan

    def outputs(self) -> dict[str, bytes]:
        """Every published output by its key."""
        root = self.folder / "output"
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.out")) if path.is_file()}

    def sent(self) -> list[bytes]:
        """The body of every request that reached the model, and nothing of them afterwards."""
        bodies = []
        for path in sorted(self.requests.iterdir()):
            bodies.append(path.read_bytes())
            path.unlink()
        return bodies


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    return Workspace(tmp_path)
