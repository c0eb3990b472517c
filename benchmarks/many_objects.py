"""How does a job over very many small objects go: its plan, its driver's memory, and how soon it goes on when it was cut short.

::

    python -m benchmarks.many_objects                          1,000,000 objects, of which 99 % are done
    python -m benchmarks.many_objects --objects 20000 --done 0

The objects are made up by a file system that lists, and gives, one record each; the model echoes. The state of what is done is
written as an earlier run would have left it. Memory is the driver's own: what it shares with no other process (USS).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fsspec
import msgspec
import psutil
from fsspec import AbstractFileSystem

from rayxform.pipeline.fingerprint import fingerprint
from rayxform.pipeline.planning import make_plan
from rayxform.spec import parse_job
from rayxform.storage.event_log import Event, EventLog
from rayxform.storage.state import StateFolder
from tests.faulty_fs import announce

FOLDER_SIZE = 1000
RECORD = b'{"id":"%09d"}\n'
ECHO = "def transform_fn(model, body, content_type, accept):\n    return body\ndef model_fn(folder):\n    return None\n"


class MadeUpFileSystem(AbstractFileSystem):
    """``madeup://N/input`` has N objects of one record, in folders of a thousand."""

    protocol = "madeup"
    cachable = False

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        count, _, rest = self._strip_protocol(path).strip("/").partition("/")
        steps = rest.split("/")
        if len(steps) == 1:
            found = [self._folder(f"{count}/input/{i:06d}") for i in range(-(-int(count) // FOLDER_SIZE))]
        else:
            begin = int(steps[1]) * FOLDER_SIZE
            numbers = range(begin, min(begin + FOLDER_SIZE, int(count)))
            found = [self._file(f"{count}/input/{steps[1]}/{i:09d}.jsonl") for i in numbers]
        return found if detail else [info["name"] for info in found]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path).strip("/")
        return self._file(path) if path.endswith(".jsonl") else self._folder(path)

    def _open(self, path: str, *_: Any, **__: Any) -> io.BytesIO:
        return io.BytesIO(RECORD % int(Path(path).stem))

    @staticmethod
    def _folder(path: str) -> dict[str, Any]:
        return {"name": path, "type": "directory", "size": 0}

    @staticmethod
    def _file(path: str) -> dict[str, Any]:
        return {"name": path, "type": "file", "size": len(RECORD % 0), "mtime": 1.0}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=1_000_000, help="how many (default: %(default)s)")
    parser.add_argument("--done", type=float, default=0.99, help="the share that is done (default: %(default)s)")
    options = parser.parse_args(arguments)
    fsspec.register_implementation("madeup", MadeUpFileSystem)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        announce(folder / "announced", "madeup", "benchmarks.many_objects:MadeUpFileSystem")
        job_file = _write_job(folder, options.objects)
        done = int(options.objects * options.done)
        if done:
            _leave_done(job_file, done)
        result, peak_mib, seconds = _run(job_file)
    times = result["Timings"]
    rate = times["SteadyRecords"] / max(times["SteadySeconds"], 0.001)
    print("| objects | done before | status | in all, s | first mini-batch, s | objects/s, steady | driver, MiB |")
    print("|--:|--:|---|--:|--:|--:|--:|")
    print(
        f"| {options.objects:,} | {done:,} | {result['TransformJobStatus']} | {seconds:.1f} | "
        f"{times['FirstMiniBatchSeconds']:.1f} | {rate:,.0f} | {peak_mib:,.0f} |"
    )
    return 0 if result["TransformJobStatus"] == "Completed" else 1


def _write_job(folder: Path, count: int) -> Path:
    (folder / "model").mkdir()
    (folder / "model/inference.py").write_text(ECHO)
    members = {
        "Model": {"SourceDir": str(folder / "model")},
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3Uri": f"madeup://{count}/input"}},
            "ContentType": "application/jsonlines",
            "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": str(folder / "output")},
    }
    job_file = folder / "job.json"
    job_file.write_text(json.dumps(members))
    return job_file


def _leave_done(job_file: Path, done: int) -> None:
    """The state folder of a run that was cut short."""
    plan = make_plan(parse_job(json.loads(job_file.read_text())), "job")
    StateFolder(plan.output).begin(msgspec.json.encode(fingerprint(plan.job, "0" * 32, 0.0)), plan.inputs)
    log = EventLog(plan.output.state_url, plan.output.encryption)
    log.open()
    now = time.time()
    for file, source in enumerate(plan.inputs[:done]):
        for event in ("FileComplete", "FileDone"):
            log.append(Event(event, now, file=file, object=source.key, records=1, output_bytes=40))
    log.close()


def _run(job_file: Path) -> tuple[dict[str, Any], float, float]:
    began = time.monotonic()
    command = [sys.executable, "-m", "rayxform", "run", str(job_file), "--json"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    process, peak = psutil.Process(driver.pid), 0
    while driver.poll() is None:
        with contextlib.suppress(psutil.Error):
            peak = max(peak, process.memory_full_info().uss)
        time.sleep(0.2)
    out = driver.stdout.read() if driver.stdout else ""
    return json.loads(out.splitlines()[-1]), peak / 2**20, time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
