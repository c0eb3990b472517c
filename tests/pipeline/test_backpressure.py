"""Fast input with a slow model, or a slow output: what waits stays within its limit, and nothing is spilled."""

import threading
from pathlib import Path

import pytest
import ray

from rayxform.core.batching import MIB
from rayxform.pipeline.dataset import MAX_BLOCK_BYTES, READ_AHEAD_BYTES, TASKS_IN_FLIGHT
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


class Store:
    """The most that Ray's object store held from now on."""

    def __init__(self):
        self._ended = threading.Event()
        self._before = self._used_bytes()
        self.peak_bytes = 0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _used_bytes(self):
        name = "object_store_memory"
        return ray.cluster_resources()[name] - ray.available_resources().get(name, 0)

    def _watch(self):
        while not self._ended.wait(0.05):
            self.peak_bytes = max(self.peak_bytes, self._used_bytes() - self._before)

    def end(self):
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
    store = Store()
    try:
        result = run_plan(workspace.plan(**changes), workers=2)
    finally:
        store.end()
    assert (result.status, result.records, spilled_files()) == ("Completed", INPUT_BYTES // len(line), [])
    # A block beyond what is allowed may be under way from each reader.
    allowed = max(READ_AHEAD_BYTES, 2 * 2 * TASKS_IN_FLIGHT * MAX_BLOCK_BYTES)
    assert MAX_BLOCK_BYTES < store.peak_bytes <= allowed + 2 * MAX_BLOCK_BYTES
