"""A data set's files appear together, replace those of the job's run before, and leave others alone."""

import json

import fsspec
import pytest

from rayxform.errors import StorageError
from rayxform.storage.datasets import DatasetFolder
from rayxform.storage.publishing import OutputFolder
from rayxform.storage.state import StateFolder


@pytest.fixture(params=["file", "memory"])
def url(request, tmp_path):
    if request.param == "file":
        return f"{tmp_path}/out"
    return f"memory://{tmp_path}/out"


def listed(url):
    """Every file but the job's state."""
    filesystem, root = fsspec.core.url_to_fs(url)
    paths = filesystem.find(root)
    return {path.removeprefix(f"{root}/"): filesystem.cat_file(path) for path in paths if "/.rayxform/" not in path}


def run(url, files):
    """A run that ends with a data set of these files."""
    dataset = DatasetFolder(OutputFolder(url, "job"))
    StateFolder(dataset.output).begin(b"{}", [])
    staged = {}
    for number, (name, data) in enumerate(files.items()):
        with dataset.stage(f"0/{number}") as file:
            file.write(data)
        staged[name] = f"0/{number}"
    before = listed(url)
    dataset.commit(staged)
    StateFolder(dataset.output).end()
    return before


def test_runs_replace_each_other(url):
    filesystem, root = fsspec.core.url_to_fs(url)
    assert run(url, {"d=1/a": b"1", "d=1/b": b"2", "d=2/e=x/a": b"3"}) == {}
    first = listed(url)
    assert first == {"d=1/a": b"1", "d=1/b": b"2", "d=2/e=x/a": b"3"}
    filesystem.pipe_file(f"{root}/d=1/foreign", b"0")
    assert run(url, {"d=1/b": b"4", "d=3/a": b"5"}) == first | {"d=1/foreign": b"0"}
    assert listed(url) == {"d=1/b": b"4", "d=3/a": b"5", "d=1/foreign": b"0"}
    assert not filesystem.exists(f"{root}/d=2")
    run(url, {})
    assert listed(url) == {"d=1/foreign": b"0"}
    assert filesystem.find(f"{root}/.rayxform") == []


def test_a_commit_that_was_cut_short_leaves_nothing_that_the_next_one_does_not_know_of(tmp_path):
    url = str(tmp_path)
    run(url, {"d=1/a": b"1", "d=2/a": b"2"})
    (tmp_path / "d=4/a").mkdir(parents=True)  # a folder in the way
    with pytest.raises(StorageError, match="cannot commit the data set"):
        run(url, {"d=1/a": b"3", "d=3/a": b"4", "d=4/a": b"5"})
    assert listed(url) == {"d=1/a": b"3", "d=2/a": b"2", "d=3/a": b"4"}
    (tmp_path / "d=4/a").rmdir()
    run(url, {"d=5/a": b"6"})
    assert listed(url) == {"d=5/a": b"6"}


def test_a_record_that_is_damaged_or_leads_out_of_the_output_removes_nothing(tmp_path):
    (tmp_path / "outside").write_bytes(b"1")
    url = str(tmp_path / "out")
    run(url, {"d=1/a": b"1"})
    record = tmp_path / "out/.rayxform/job/dataset.json"
    record.write_text(json.dumps({"Files": ["../outside", f"{tmp_path}/outside", "d=1/a"]}))
    run(url, {"d=2/a": b"2"})
    assert listed(url) == {"d=2/a": b"2"}
    assert (tmp_path / "outside").exists()
    record.write_text("{")
    with pytest.raises(StorageError, match="remove that data set and this file by hand"):
        run(url, {"d=3/a": b"3"})
    assert listed(url) == {"d=2/a": b"2"}


def test_lines_of_parts_are_read_in_order_empty_ones_too(tmp_path):
    dataset = DatasetFolder(OutputFolder(str(tmp_path), "job"))
    StateFolder(dataset.output).begin(b"{}", [])
    long = b"x" * (9 * 1024 * 1024)
    dataset.output.write_parts([("0/0", [b"a\n\n", long + b"\n"])])
    dataset.output.write_parts([("0/1", [b"\n"])])
    dataset.output.write_parts([("0/2", [b"b\n"])])
    assert list(dataset.read_lines(["0/0", "0/1", "0/2"])) == [b"a", b"", long, b"", b"b"]
