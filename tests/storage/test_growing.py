"""Outputs that grow in place: what came in turn is written once, and whatever happens on the way, the bytes are the same."""

import errno
import os
import random
import subprocess
import sys

import pytest

from rayxform import locking
from rayxform.core.naming import growing_name, part_name
from rayxform.errors import StorageError
from rayxform.storage import growing
from rayxform.storage.growing import written
from rayxform.storage.publishing import OutputFolder
from rayxform.storage.state import StateFolder, WrittenPart
from tests.storage.test_faults import fill

RECORD = b"%05d %s\n"


def records(first, count, size=500):
    return b"".join(RECORD % (number, b"x" * size) for number in range(first, first + count))


@pytest.fixture
def output(tmp_path):
    output = OutputFolder(str(tmp_path / "out"), "job")
    StateFolder(output).begin(b"{}", [])
    return output


def folder_of(output):
    return output.appender()._folder


def append(output, first, count, *, file=0, appender=None):
    return (appender or output.appender()).append(file, first, count, [records(first, count)])


def write(output, first, count, *, file=0):
    name, data = part_name(file, first, count), records(first, count)
    assert output.write_parts([(name, [data])]) == [None]
    return name, len(data)


def test_parts_in_turn_are_the_output_itself(output, tmp_path):
    lengths = [append(output, first, 10) for first in (0, 10, 20)]
    assert lengths == [len(records(0, end)) for end in (10, 20, 30)]
    inode = (folder_of(output) / growing_name(0)).stat().st_ino
    output.publish("a", [(growing_name(0), lengths[-1])])
    appeared = tmp_path / "out/a.out"
    assert (appeared.read_bytes(), appeared.stat().st_ino) == (records(0, 30), inode)
    assert [*folder_of(output).rglob("*")] == []


def test_a_part_out_of_turn_is_one_of_its_own_and_is_put_behind(output, tmp_path):
    assert append(output, 0, 10)
    appender = output.appender()
    assert append(output, 20, 10, appender=appender) is None
    assert append(output, 30, 10, appender=appender) is None, "and nobody waits for the same part twice"
    end = append(output, 10, 10)
    parts = [(growing_name(0), end), write(output, 20, 10), write(output, 30, 10)]
    output.publish("a", parts)
    assert (tmp_path / "out/a.out").read_bytes() == records(0, 40)
    assert [*folder_of(output).rglob("*")] == []


def test_a_part_waits_for_the_one_before_it_that_is_just_being_written(output, monkeypatch):
    monkeypatch.setattr(growing, "WAIT_S", 30.0)  # a busy machine takes its time to start a process
    code = "import sys; sys.path[:] = sys.argv[2:]; from tests.storage.test_growing import *; "
    code += "append(OutputFolder(sys.argv[1], 'job'), 0, 10)"
    other = subprocess.Popen([sys.executable, "-c", code, output.url, *sys.path])
    assert append(output, 10, 10) == len(records(0, 20))
    assert other.wait(60) == 0


@pytest.mark.parametrize("left", [b"", b"half a rec", b"x" * 100_000], ids=["nothing", "a little", "much"])
def test_what_an_append_that_was_cut_short_has_left_does_not_count(output, tmp_path, left):
    end = append(output, 0, 10)
    with (folder_of(output) / growing_name(0)).open("ab") as file:
        file.write(left)
    assert written(str(folder_of(output) / growing_name(0))) == (10, end)
    assert [*StateFolder(output).parts()] == [WrittenPart(0, 0, 10, growing_name(0), end)]
    output.publish("short", [(growing_name(0), end)])
    assert (tmp_path / "out/short.out").read_bytes() == records(0, 10)
    end = append(output, 0, 10, file=1)
    with (folder_of(output) / growing_name(1)).open("ab") as file:
        file.write(left)
    output.publish("long", [(growing_name(1), append(output, 10, 5, file=1))])
    assert (tmp_path / "out/long.out").read_bytes() == records(0, 15)


def test_an_end_without_its_output_tells_that_this_was_published(output):
    assert append(output, 0, 10)
    (folder_of(output) / growing_name(0)).unlink()
    assert written(str(folder_of(output) / growing_name(0))) == (0, 0)
    assert [*StateFolder(output).parts()] == []
    assert append(output, 10, 10) is None, "a block that ran twice does not begin it anew"
    assert not (folder_of(output) / growing_name(0)).exists()


def test_an_output_of_which_no_part_came_in_turn_leaves_nothing(output, tmp_path):
    assert append(output, 10, 10) is None
    output.publish("a", [write(output, 0, 10), write(output, 10, 10)])
    assert (tmp_path / "out/a.out").read_bytes() == records(0, 20)
    assert [*folder_of(output).rglob("*")] == []


def test_where_nothing_can_be_locked_parts_are_files_of_their_own(output, monkeypatch):
    """Some file systems that others serve have no locks; no such one is at hand, so its answer is."""

    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locking.fcntl, "flock", refuse)
    assert append(output, 0, 10) is None
    assert not (folder_of(output) / growing_name(0)).exists()


def test_an_output_that_is_shorter_than_it_should_be_is_not_published(output, tmp_path):
    end = append(output, 0, 10)
    os.truncate(folder_of(output) / growing_name(0), end - 1)
    with pytest.raises(StorageError, match="cannot publish .*a.out: the answer ended 1 bytes early"):
        output.publish("a", [(growing_name(0), end)])
    assert not (tmp_path / "out/a.out").exists()


def test_a_part_that_was_written_twice_counts_once(output):
    end = append(output, 0, 30)
    write(output, 20, 10)
    behind, n_bytes = write(output, 30, 10)
    found = [*StateFolder(output).parts()]
    assert found == [WrittenPart(0, 0, 30, growing_name(0), end), WrittenPart(0, 30, 10, behind, n_bytes)]
    StateFolder(output).remove_parts([part.name for part in found])
    assert [*StateFolder(output).parts()] == []


def test_a_full_disk_fails_the_part_and_keeps_what_was_there(small_disk):
    output = OutputFolder(str(small_disk / "out"), "job")
    StateFolder(output).begin(b"{}", [])
    end = append(output, 0, 100)
    fill(small_disk / "rest")
    error = append(output, 100, 1000)
    assert "growing: No space left on device; free space on the device" in str(error)
    assert [*StateFolder(output).parts()] == [WrittenPart(0, 0, 100, growing_name(0), end)]
    (small_disk / "rest").unlink()
    output.publish("a", [(growing_name(0), append(output, 100, 100))])
    assert (small_disk / "out/a.out").read_bytes() == records(0, 200)


WRITER = """
import random, sys, time
sys.path[:] = sys.argv[4:]
from tests.storage.test_growing import *
output, me, of = OutputFolder(sys.argv[1], "job"), int(sys.argv[2]), int(sys.argv[3])
appender = output.appender()
for part in range(me, 60, of):
    if random.Random(part).random() < 0.2:
        time.sleep(0.02)
    end = append(output, 10 * part, 10, appender=appender)
    if end is None:
        write(output, 10 * part, 10)
    print(part, end or "alone")
"""


def test_many_who_write_at_once_make_one_whole_output(output, tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, output.url, str(me), "4", *sys.path], stdout=subprocess.PIPE, text=True)
        for me in range(4)
    ]
    lines = [line.split() for writer in writers for line in writer.communicate(timeout=120)[0].splitlines()]
    assert [writer.returncode for writer in writers] == [0] * 4
    assert sorted(int(part) for part, _ in lines) == [*range(60)]
    ends = [int(end) for _, end in lines if end != "alone"]
    alone = sorted(int(part) for part, end in lines if end == "alone")
    assert ends, "the first one is always in turn"
    grown = [(growing_name(0), max(ends))]
    rest = [(part_name(0, 10 * part, 10), len(records(10 * part, 10))) for part in alone]
    output.publish("a", grown + rest)
    assert (tmp_path / "out/a.out").read_bytes() == records(0, 600)


def test_parts_of_many_outputs_do_not_wait_for_each_other(output):
    appender = output.appender()
    order = [(file, 10 * part) for file in range(3) for part in range(4)]
    random.Random(0).shuffle(order)
    order.sort(key=lambda one: one[1])  # of one file in turn
    assert all(append(output, first, 10, file=file, appender=appender) for file, first in order)
    assert [(part.file, part.n_records) for part in StateFolder(output).parts()] == [(0, 40), (1, 40), (2, 40)]
