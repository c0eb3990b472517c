"""Fast input with a slow model, or a slow output: what waits stays within its limit, and nothing is spilled."""

import threading
from pathlib import Path

import pytest
import ray

from rayxform.core.batching import MIB
from rayxform.pipeline.cluster import cluster_resources
from rayxform.pipeline.flow import MAX_BLOCK_BYTES, READ_AHEAD_BYTES, TASKS_IN_FLIGHT
from rayxform.pipeline.pool import plan_pool
from rayxform.pipeline.run import run_plan
from tests.faulty_fs import Faults

pytestmark = pytest.mark.usefixtures("ray_address")

INPUT_BYTES = 220 * MIB
SLOW = """
import os, time
def model_fn(folder):
    return float(os.environ["PAUSE_S"])
def transform_fn(pause_s, body, content_type, accept):
    time.sleep(pause_s)
    return b"\\n".join([b"{}"] * len(body.splitlines()))
"""


class Watch:
    """The most that was used of one of Ray's resources, beyond what had been."""

    def __init__(self, name):
        self._name = name
        self._ended = threading.Event()
        self._before = self._used()
        self.peak = 0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _used(self):
        return ray.cluster_resources()[self._name] - ray.available_resources().get(self._name, 0)

    def _watch(self):
        while not self._ended.wait(0.05):
            self.peak = max(self.peak, self._used() - self._before)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._ended.set()
        self._thread.join()


def spilled_files():
    """What Ray has written of its store to a disk."""
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    return [path for folder in session.glob("ray_spilled_objects*") for path in folder.iterdir()]


@pytest.mark.parametrize("slow", ["model", "output"])
def test_what_waits_stays_within_its_limit(workspace, slow):
    line = b'{"x":"%s"}\n' % (b"x" * 9_990)
    workspace.write("a.jsonl", line * (INPUT_BYTES // len(line)))
    model = workspace.folder / "model"
    model.mkdir()
    (model / "inference.py").write_text(SLOW)
    changes = {"Model": {"SourceDir": str(model), "Environment": {"PAUSE_S": "0.02" if slow == "model" else "0"}}}
    if slow == "output":
        Faults(workspace.folder).set({"operation": "close", "path": "output/.*part", "kind": "delay"})
        changes["TransformOutput__S3OutputPath"] = f"faulty://{workspace.folder}/output"
    with Watch("object_store_memory") as store:
        result = run_plan(workspace.plan(**changes), workers=2)
    assert (result.status, result.records, spilled_files()) == ("Completed", INPUT_BYTES // len(line), [])
    # A block beyond what is allowed may be under way from each reader.
    allowed = max(READ_AHEAD_BYTES, 2 * 2 * TASKS_IN_FLIGHT * MAX_BLOCK_BYTES)
    assert MAX_BLOCK_BYTES < store.peak <= allowed + 2 * MAX_BLOCK_BYTES


def test_no_more_read_at_a_time_than_the_workers_can_take(workspace):
    """One worker leaves CPUs for three readers here; with each comes memory, and less of it is left for the others."""
    line = b'{"x":"%s"}\n' % (b"x" * 9_990)
    for number in range(6):
        workspace.write(f"{number}.jsonl", line * 1_800)
    Faults(workspace.folder).set({"operation": "open|read", "path": "input/.*jsonl", "kind": "delay"})
    pool = plan_pool(cluster_resources(), workers=1, cpus_per_worker=0.25)
    changes = {
        "TransformInput__DataSource__S3DataSource__S3Uri": f"faulty://{workspace.folder}/input",
        "Rayxform__CpusPerWorker": 0.25,
    }
    with Watch("CPU") as cpus:
        result = run_plan(workspace.plan(**changes), workers=1)
    assert (result.status, result.records) == ("Completed", 6 * 1_800)
    assert (pool.readers, pool.reader_cpus) == (1, 0.5)
    # Ray's own actors reserve thousandths.
    n_readers = (cpus.peak - pool.reserved_cpus) / pool.reader_cpus
    assert 1 <= n_readers < pool.readers + 0.1
