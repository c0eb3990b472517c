"""The cache of a machine, with real processes at once: one fetches and unpacks, and what is in use stays."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from rayxform.cache import cache_folder, keep, make_room, release, released
from rayxform.errors import ModelSourceError

SIZE = 1000

LOCATE = """
import os, sys
made = []
sys.addaudithook(lambda event, values: made.append(values[1]) if event == "os.rename" else None)
import json
from rayxform.pipeline.model_source import locate_model
from rayxform.spec import parse_job
job = parse_job(json.loads(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
files = locate_model(job)
print(json.dumps([str(files.model_dir), str(files.entry_point), [str(one) for one in made]]), flush=True)
sys.stdin.readline()
"""
"""Locates a model, tells which folders this very process gave their names, and goes on using it until it is told."""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("RAYXFORM_CACHE", str(folder))
    monkeypatch.delenv("RAYXFORM_CACHE_MAX_GB", raising=False)
    return folder


def archive_of(content):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, body in (("model.pth", content), ("code/inference.py", b"def model_fn(folder):\n    return None\n")):
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return data.getvalue()


@contextlib.contextmanager
def users_of(members, count):
    """Processes that have located a job's model, all at once, and use it; gives what they say."""
    command = [sys.executable, "-c", LOCATE, json.dumps(members)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        yield [json.loads(process.stdout.readline()) for process in processes]
    finally:
        for process in processes:
            process.communicate("end\n", timeout=60)


def test_processes_that_start_at_once_fetch_and_unpack_once(workspace, bucket, s3_proxy, cache):
    url = bucket.put("model.tar.gz", archive_of(os.urandom(3_000_000)))
    s3_proxy.reset()
    members = workspace.members(Model={"ModelDataUrl": url})
    with users_of(members, 4) as told:
        assert len({(model, entry) for model, entry, _ in told}) == 1
        made = [name for _, _, names in told for name in names if name.startswith(str(cache))]
        assert len(made) == len(set(made)) == 2, "one name for the fetched archive, one for the unpacked model"
        assert told[0][0] in made
    assert s3_proxy.count("^GET .*model.tar.gz") == 1


def test_a_source_dir_may_be_an_archive(workspace, bucket, cache):
    from rayxform.pipeline.model_source import locate_model
    from rayxform.spec import parse_job

    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        member = tarfile.TarInfo("serve.py")
        tar.addfile(member)
    url = bucket.put("sourcedir.tar.gz", data.getvalue())
    job = parse_job(workspace.members(Model={"SourceDir": url, "EntryPoint": "serve.py"}))
    with released():
        found = locate_model(job).entry_point
    assert found.name == "serve.py"
    assert found.is_file()
    assert found.is_relative_to(cache)


def entry(cache, name, used_at):
    """An entry of SIZE bytes that nobody uses, last used at a time in seconds."""
    path = cache / "models" / name
    with released():
        keep(path, lambda new: new.write_bytes(bytes(SIZE)))
    os.utime(path.with_name(f".{name}.use"), (used_at, used_at))
    return path


def names_in(cache):
    return sorted(path.name for path in (cache / "models").iterdir() if path.name[0] != ".")


@pytest.mark.parametrize(("limit", "kept"), [(4, "abcd"), (3, "acd"), (2, "cd"), (1, "d"), (0, "")])
def test_those_that_were_not_used_for_longest_are_removed_until_the_rest_fits(cache, limit, kept):
    for name, used_at in (("a", 200), ("b", 100), ("c", 300), ("d", 400)):
        entry(cache, name, used_at)
    make_room(cache, limit * SIZE)
    assert names_in(cache) == list(kept)
    left = {path.name for path in (cache / "models").iterdir()}
    assert left == {one for name in kept for one in (name, f".{name}.lock", f".{name}.use")}


def test_an_entry_that_is_used_again_is_not_the_next_to_go(cache):
    entry(cache, "a", 100)
    entry(cache, "b", 200)
    with released():
        keep(cache / "models" / "a", lambda new: pytest.fail("it is there"))
    make_room(cache, SIZE)
    assert names_in(cache) == ["a"]


def test_a_new_entry_makes_room_for_itself(cache, monkeypatch):
    entry(cache, "old", 100)
    monkeypatch.setenv("RAYXFORM_CACHE_MAX_GB", str(1.5 * SIZE / 1e9))
    entry(cache, "new", 200)
    assert names_in(cache) == ["new"]


def test_what_a_process_uses_is_never_removed_and_then_it_may_be(workspace, cache):
    (workspace.folder / "model.tar.gz").write_bytes(archive_of(b"weights"))
    members = workspace.members(Model={"ModelDataUrl": str(workspace.folder / "model.tar.gz")})
    with users_of(members, 1) as [(model, inference, _)]:
        make_room(cache, 0)
        assert os.path.isfile(inference)
        assert os.path.isfile(f"{model}/model.pth")
    make_room(cache, 0)
    assert not os.path.exists(model)


def test_a_process_that_is_killed_uses_nothing_any_longer(workspace, cache):
    (workspace.folder / "model.tar.gz").write_bytes(archive_of(b"weights"))
    members = workspace.members(Model={"ModelDataUrl": str(workspace.folder / "model.tar.gz")})
    process = subprocess.Popen(
        [sys.executable, "-c", LOCATE, json.dumps(members)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.stdin.write("go\n")
    process.stdin.flush()
    model = json.loads(process.stdout.readline())[0]
    process.kill()
    process.communicate()
    make_room(cache, 0)
    assert not os.path.exists(model)


def test_what_is_released_may_be_removed_while_the_rest_is_in_use(cache):
    with released():
        first, _ = (keep(cache / "models" / name, lambda new: (new.mkdir(), (new / "a").write_text(""))) for name in "ab")
        release(first / "a")
        make_room(cache, -1)
        assert names_in(cache) == ["b"]
    make_room(cache, -1)
    assert names_in(cache) == []


def test_what_cannot_be_made_leaves_nothing_and_the_next_one_tries(cache):
    path = cache / "models" / "a"

    def fail(new):
        new.mkdir()
        (new / "half").write_text("")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        keep(path, fail)
    assert list(path.parent.iterdir()) == []
    with released():
        assert keep(path, lambda new: new.write_text("whole")).read_text() == "whole"


def test_what_a_killed_process_left_unfinished_goes_when_room_is_needed(cache):
    program = (
        "import os, sys, signal, pathlib; from rayxform.cache import keep\n"
        "def make(new):\n    new.mkdir()\n    (new / 'half').write_bytes(bytes(5000))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "keep(pathlib.Path(sys.argv[1]), make)"
    )
    path = cache / "models" / "a"
    assert subprocess.run([sys.executable, "-c", program, str(path)]).returncode == -9
    assert not path.exists()
    make_room(cache, 5000)
    assert (path.parent / ".new-a" / "half").is_file()
    make_room(cache, 4999)
    assert list(path.parent.iterdir()) == []


def test_what_a_model_brings_is_no_entry_of_its_own(cache):
    """An archive may hold any names; none of them makes the cache remove a part of the model."""

    def make(new):
        new.mkdir()
        (new / "weights").write_text("weights")
        (new / ".weights.use").write_text("999999999")

    with released():
        model = keep(cache / "models" / "a", make)
        make_room(cache, 0)
        assert (model / "weights").is_file()


def test_threads_that_make_and_remove_at_once_never_see_half_an_entry(cache):
    wrong = []

    def make(new):
        new.mkdir()
        (new / "a").write_text("all")

    def work(number):
        for turn in range(30):
            with released():
                path = keep(cache / "models" / str((number + turn) % 3), make)
                if (path / "a").read_text() != "all":
                    wrong.append(path)
            make_room(cache, 0)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(work, range(4))) == [None] * 4
    assert wrong == []
    assert names_in(cache) == []


@pytest.mark.parametrize("text", ["much", "-1", "nan"])
def test_a_limit_that_is_no_number_is_refused(cache, monkeypatch, text):
    monkeypatch.setenv("RAYXFORM_CACHE_MAX_GB", text)
    with pytest.raises(ModelSourceError, match="RAYXFORM_CACHE_MAX_GB is"):
        keep(cache_folder() / "models" / "a", lambda new: new.write_text(""))


HOLDERS = """
import json, os, pathlib
def model_fn(folder):
    return pathlib.Path(folder)
def transform_fn(folder, body, content_type, accept):
    inode = (folder.parent / f".{folder.name}.use").stat().st_ino
    locks = [line.split() for line in pathlib.Path("/proc/locks").read_text().splitlines()]
    pids = [int(lock[-4]) for lock in locks if "FLOCK" in lock and "READ" in lock and lock[-3].endswith(f":{inode}")]
    return json.dumps(sum(pathlib.Path(f"/proc/{pid}/cmdline").read_text().startswith("ray::") for pid in pids))
"""
"""A model that answers how many of Ray's workers share the lock of the model's folder."""


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="only Linux tells who has a lock")
def test_the_worker_of_a_job_that_runs_uses_its_model(workspace, ray_address):
    from rayxform.pipeline.run import run_plan

    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        member = tarfile.TarInfo("code/inference.py")
        member.size = len(HOLDERS)
        tar.addfile(member, io.BytesIO(HOLDERS.encode()))
    archive = workspace.folder / "model.tar.gz"
    archive.write_bytes(data.getvalue())
    workspace.write("a.jsonl", b"1\n")
    with released():
        result = run_plan(workspace.plan(Model={"ModelDataUrl": str(archive)}, Rayxform__Compatibility="aws"), workers=1)
    assert result.status == "Completed", result.failure_reason
    assert workspace.outputs() == {"a.jsonl.out": b"1"}
