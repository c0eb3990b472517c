"""A Ray of the job's own does without what Ray Data starts for clusters; any other one is left as it is."""

import contextlib
import subprocess
import sys

import psutil
import pytest

from rayxform.pipeline import own_ray
from tests.pipeline.test_resume import end, wait_for

ACTORS = ("_StatsActor", "AutoscalingCoordinator", "ActorLocationTracker")
WAITING = """
import os, pathlib, time
def model_fn(folder):
    return pathlib.Path(os.environ["REQUESTS"])
def transform_fn(requests, body, content_type, accept):
    (requests / "priority").write_text(str(os.getpriority(os.PRIO_PROCESS, 0)))
    (requests / "began").touch()
    while not (requests / "go").exists():
        time.sleep(0.01)
    return body
"""


def titles_of(process):
    """What the processes of a command call themselves."""
    titles = []
    for one in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # others end meanwhile
            titles.append(" ".join(one.cmdline()))
    return titles


def test_a_ray_of_the_jobs_own_has_no_processes_for_clusters_and_the_priority_of_the_command(workspace, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (workspace.folder / "model").mkdir()
    (workspace.folder / "model/inference.py").write_text(WAITING)
    workspace.write("a.jsonl", b"1\n2\n")
    environment = {"REQUESTS": str(workspace.requests)}
    job = workspace.job_file(Model={"SourceDir": str(workspace.folder / "model"), "Environment": environment})
    command = [sys.executable, "-m", "rayxform", "run", str(job), "--workers", "1", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for((workspace.requests / "began").exists)
    titles = titles_of(process)
    (workspace.requests / "go").touch()
    code, result, error = end(process)
    assert (code, result.get("TransformJobStatus")) == (0, "Completed"), error
    assert workspace.outputs() == {"a.jsonl.out": b'{"SageMakerOutput":1}\n{"SageMakerOutput":2}\n'}
    assert (workspace.requests / "priority").read_text() == str(psutil.Process().nice())  # the command's own, not Ray's 15
    assert any("ray::MapWorker" in title for title in titles)
    assert not [title for title in titles if any(actor in title for actor in ACTORS)]


def names():
    return [vars(place)[name] for place, name, _ in own_ray._REPLACED]


@pytest.mark.parametrize("is_own", [True, False])
def test_what_is_replaced_is_put_back_whatever_comes(is_own):
    before, within = names(), []

    def fail():
        with own_ray.without_actors_of_clusters(is_own=is_own):
            within.extend(names())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [one is other for one, other in zip(within, before, strict=True)] == [not is_own] * len(before)
    assert all(one is other for one, other in zip(names(), before, strict=True))


def test_a_release_of_ray_with_other_names_is_left_as_it_is(monkeypatch):
    place, name, _ = own_ray._REPLACED[0]
    before = names()
    monkeypatch.delattr(place, name)
    with own_ray.without_actors_of_clusters(is_own=True):
        assert [vars(place)[name] for place, name, _ in own_ray._REPLACED[1:]] == before[1:]
