"""Jobs that are disturbed at random, each compared byte for byte with an undisturbed one; ``faults`` and ``soak`` run them.

All runs share one Ray cluster of several nodes on this machine, whose processes are killed too. Input and output lie on a file
system that fails by a script. A disturbed job is run again, by the same command, until it is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from typing_extensions import Self

from tests.faulty_fs import Faults, announce_faulty

FILES, RECORDS, RECORDS_PER_REQUEST = 4, 300, 10
TOTAL = FILES * RECORDS
LONGEST_RUN_S = 120.0
MOST_ATTEMPTS = 12
"""How often a job is run before the campaign gives it up as one that does not come to an end."""

MODEL = """
import os, pathlib, time, uuid
def model_fn(folder):
    return pathlib.Path(os.environ["REQUESTS"])
def transform_fn(requests, body, content_type, accept):
    lines = body.splitlines()
    with (requests / uuid.uuid4().hex).open("w") as file:
        file.write(str(len(lines)))
    time.sleep(0.03)
    return "\\n".join('{"length": %d}' % len(line) for line in lines)
"""

STORAGE: Mapping[str, dict[str, Any]] = {
    "read fails": {"operation": "read", "path": "input", "kind": "EIO"},
    "read is short": {"operation": "read", "path": "input", "kind": "short"},
    "listing fails": {"operation": "list", "path": "input", "kind": "ETIMEDOUT"},
    "write fails": {"operation": "write", "path": "output", "kind": "EIO"},
    "write's answer is lost": {"operation": "close", "path": "output", "kind": "lost EIO"},
    "rename fails": {"operation": "move", "path": "output", "kind": "EBUSY"},
    "rename's answer is lost": {"operation": "move", "path": "output", "kind": "lost timeout"},
    "slow store": {"operation": "read|write", "path": "put", "kind": "delay"},
}
"""Failures of the file system that pass."""

KILLS = ("driver killed", "driver stopped", "model killed", "worker killed", "reader killed", "node killed")
KINDS = (*KILLS, "input denied", *STORAGE)
OF_ONE_MACHINE = tuple(
    kind for kind in KINDS if kind != "node killed" and STORAGE.get(kind, {"path": "input"})["path"] == "input"
)
"""What can happen to a Ray of the job's own that writes to a plain disk."""


@dataclass
class Report:
    """What a campaign came to.

    Attributes:
        faults: kind → how many were injected.
        jobs: how many jobs were brought to their end.
        runs: how often the command was given.
        differences: what was not as in the undisturbed job, a sentence each.
        sent: how many records reached the model.
    """

    faults: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    runs: int = 0
    differences: list[str] = field(default_factory=list)
    sent: int = 0

    @property
    def resent_share(self) -> float:
        """Records that were sent more than once, as a share of all that had to be sent."""
        return self.sent / (self.jobs * TOTAL) - 1 if self.jobs else 0.0

    def lines(self) -> Iterator[str]:
        yield "| fault | injected |"
        yield "|---|--:|"
        for kind, count in sorted(self.faults.items()):
            yield f"| {kind} | {count} |"
        yield f"| all | {sum(self.faults.values())} |"
        yield ""
        yield f"{self.runs} runs of {self.jobs} jobs of {TOTAL} records, {len(self.differences)} differences."
        yield f"{self.resent_share:.2%} of the records were sent again."
        yield from self.differences


class Campaign:
    """Runs jobs in a folder, disturbs them, and keeps count."""

    def __init__(self, folder: Path, seed: int, kinds: tuple[str, ...] = KINDS, *, one_machine: bool = False) -> None:
        """Nothing is started before the campaign is entered.

        Args:
            folder: where jobs read and write.
            seed: of the random choices.
            kinds: which faults.
            one_machine: whether each job starts a Ray of its own, and writes to a plain disk.
        """
        self.report = Report()
        self._folder = folder
        self._random = random.Random(seed)
        self._kinds = kinds
        self._one_machine = one_machine
        self._nodes = "node killed" in kinds
        self._faults = Faults(folder)
        self._requests = folder / "requests"
        self._job = folder / "job.json"
        self._expected: dict[str, bytes] = {}
        self._cluster: Any = None
        self._lost_node: Any = None

    def __enter__(self) -> Self:
        announce_faulty(self._folder / "announced")
        self._write_job()
        if not self._one_machine:
            self._start_cluster()
        self._undisturbed()
        return self

    def _start_cluster(self) -> None:
        from ray.cluster_utils import Cluster

        os.environ |= {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_USAGE_STATS_ENABLED": "0"}
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        if self._nodes:
            self._lost_node = self._cluster.add_node(num_cpus=2)
        os.environ["RAY_ADDRESS"] = self._cluster.address

    def __exit__(self, *error: object) -> None:
        if self._cluster is not None:
            os.environ.pop("RAY_ADDRESS", None)
            self._cluster.shutdown()

    def run_job(self, n_faults: int) -> None:
        """One job with so many faults."""
        self._clean()
        planned = [self._random.choice(self._kinds) for _ in range(n_faults)]
        denied = "input denied" in planned
        passing = [kind for kind in planned if kind in STORAGE]
        rules = [STORAGE[kind] | {"calls": [self._random.randint(1, 12)]} for kind in passing]
        victim = f"{self._random.randrange(FILES)}.jsonl"
        if denied:
            rules.insert(0, {"operation": "open|read", "path": f"input/{victim}$", "kind": "EACCES"})
        self._faults.set(*rules)
        kills = [kind for kind in planned if kind not in STORAGE and kind != "input denied"]
        for _ in range(MOST_ATTEMPTS):
            status, reason = self._run(kills)
            if status == "Failed" and denied:
                self._check_denied(victim, reason)
                self._count_storage(rules, ["input denied", *passing])
                denied = False
                self._faults.set()
            elif status == "Failed":
                self.report.differences.append(f"a run failed: {reason}")
                break
            elif status == "Completed":
                break
        else:
            self.report.differences.append(f"a job did not come to its end in {MOST_ATTEMPTS} runs, with {planned}")
        if self._faults.injected():
            self._count_storage(rules, (["input denied"] if denied else []) + passing)
        self._compare(planned)
        self.report.jobs += 1
        self.report.sent += self._sent()

    def _check_denied(self, victim: str, reason: str) -> None:
        found = self._outputs()
        if f"{victim}.out" in found or victim not in reason:
            self.report.differences.append(f"{victim} could not be read, and that was not said, or it has an output: {reason}")
        if any(self._expected[name] != data for name, data in found.items()):
            self.report.differences.append("an output beside one that failed is not what it should be")

    def _count_storage(self, rules: list[dict[str, Any]], kinds: list[str]) -> None:
        seen = [line.split(" /")[0] for line in self._faults.injected()]
        for rule, kind in zip(rules, kinds, strict=True):
            operations = rule["operation"].split("|")
            if any(f"{operation} {rule['kind']}" in seen for operation in operations):
                self.report.faults[kind] += 1

    def _compare(self, planned: list[str]) -> None:
        found = self._outputs()
        for name in sorted(self._expected.keys() | found.keys()):
            if difference := _difference(found.get(name), self._expected.get(name)):
                self.report.differences.append(f"{name} {difference}, after {planned}")

    def _run(self, kills: list[str]) -> tuple[str, str]:
        """Give the command, and kill something at a random moment for as long as there is something to be killed."""
        self.report.runs += 1
        process = subprocess.Popen(
            [sys.executable, "-m", "rayxform", "run", str(self._job), "--workers", "2", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            while kills and process.poll() is None:
                self._wait_for_requests(process, self._random.randint(0, FILES * RECORDS // RECORDS_PER_REQUEST))
                kind = kills[0]
                if process.poll() is None and self._kill(kind, process):
                    kills.pop(0)
                    self.report.faults[kind] += 1
            out, error = process.communicate(timeout=LONGEST_RUN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return "Failed", f"a run did not end in {LONGEST_RUN_S:g} s"
        finally:
            self._mend_cluster()
        lines = [line for line in out.splitlines() if line.startswith("{")]
        # SIGTERM ends a process at once before it has imported rayxform, and while Ray's core starts in it.
        if process.returncode in {-signal.SIGKILL, -signal.SIGTERM, 130}:
            return "Stopped", ""
        if not lines:
            return "Failed", f"exit code {process.returncode}, and it said: {error or 'nothing'}"
        result = json.loads(lines[-1])
        return result["TransformJobStatus"], result.get("FailureReason") or ""

    def _wait_for_requests(self, process: subprocess.Popen[str], more: int) -> None:
        """Until so many more requests have reached the model, or the run ends, or a moment passes without any."""
        begun, last_at, last = self._n_requests(), time.monotonic(), -1
        while process.poll() is None and (now := self._n_requests()) < begun + more:
            if now != last:
                last_at, last = time.monotonic(), now
            if last > begun and time.monotonic() - last_at > 1.0:
                return
            time.sleep(0.01)

    def _kill(self, kind: str, driver: subprocess.Popen[str]) -> bool:
        if kind == "driver killed":
            driver.kill()
        elif kind == "driver stopped":
            driver.send_signal(signal.SIGTERM)
        elif kind == "node killed":
            if self._lost_node is None:
                return True
            self._cluster.remove_node(self._lost_node, allow_graceful=False)
            self._lost_node = None
        else:
            titles = {"model killed": "rayxform.model.serving", "worker killed": "ray::MapWorker", "reader killed": "ray::Read"}
            victims = list(_processes(titles[kind]))
            if not victims:
                time.sleep(0.05)
                return kind == "reader killed"  # it may have read everything
            with contextlib.suppress(psutil.NoSuchProcess):
                self._random.choice(victims).kill()
        return True

    def _mend_cluster(self) -> None:
        if self._nodes and self._lost_node is None:
            self._lost_node = self._cluster.add_node(num_cpus=2)

    def _write_job(self) -> None:
        (self._folder / "model").mkdir()
        (self._folder / "model/inference.py").write_text(MODEL)
        (self._folder / "input").mkdir()
        for number in range(FILES):
            lines = (json.dumps({"id": f"{number}-{i}", "text": "x" * 400}) + "\n" for i in range(RECORDS))
            (self._folder / f"input/{number}.jsonl").write_text("".join(lines))
        members = {
            "Model": {"SourceDir": str(self._folder / "model"), "Environment": {"REQUESTS": str(self._requests)}},
            "TransformInput": {
                "DataSource": {"S3DataSource": {"S3Uri": f"faulty://{self._folder}/input"}},
                "ContentType": "application/jsonlines",
                "SplitType": "Line",
            },
            "TransformOutput": {"S3OutputPath": f"{'' if self._one_machine else 'faulty://'}{self._folder}/output"},
            "DataProcessing": {"JoinSource": "Input", "OutputFilter": "$['SageMakerOutput','id']"},
            "Rayxform": {"MaxRecordsPerBatch": RECORDS_PER_REQUEST},
        }
        self._job.write_text(json.dumps(members))

    def _undisturbed(self) -> None:
        self._clean()
        self._faults.set()
        status, reason = self._run([])
        if status != "Completed" or self._sent() != TOTAL:
            raise SystemExit(f"the undisturbed job is {status}, and sent {self._sent()} of {TOTAL} records: {reason}")
        self._expected = self._outputs()
        self.report.runs = 0

    def _clean(self) -> None:
        for folder in (self._folder / "output", self._requests):
            shutil.rmtree(folder, ignore_errors=True)
        self._requests.mkdir()

    def _outputs(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self._folder / "output").glob("*.out")}

    def _n_requests(self) -> int:
        return sum(1 for _ in os.scandir(self._requests))

    def _sent(self) -> int:
        return sum(int(path.read_text() or 0) for path in self._requests.iterdir())


def _difference(found: bytes | None, expected: bytes | None) -> str | None:
    """What is wrong with an output, if anything is."""
    if found == expected:
        return None
    if found is None or expected is None:
        return "is missing" if found is None else "is there, and should not be"
    at = next(
        (i for i, (one, other) in enumerate(zip(found, expected, strict=False)) if one != other),
        min(map(len, (found, expected))),
    )
    return f"has {len(found)} bytes for {len(expected)} and differs from byte {at} on"


def _processes(title: str) -> Iterator[psutil.Process]:
    """The processes of this campaign's cluster with something in their command line."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if title in " ".join(process.cmdline()):
                yield process


def report(campaign: Campaign, say: Callable[[str], None] = print) -> int:
    """Print what it came to; the exit code."""
    for line in campaign.report.lines():
        say(line)
    return 1 if campaign.report.differences else 0
