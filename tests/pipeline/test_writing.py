"""Parts: what a worker writes of a block, and what it says of it."""

import pytest

from rayxform.core.naming import growing_name, part_name
from rayxform.errors import RecordError
from rayxform.pipeline.offsets import Offsets
from rayxform.pipeline.rows import encode_error, error_entry
from rayxform.pipeline.writing import Answer, PartWriter
from rayxform.storage.state import StateFolder

LINE = b'{"length":1}\n'


@pytest.fixture
def plan(workspace):
    workspace.write("a.jsonl", b'{"id":1}\n')
    plan = workspace.plan(Rayxform__OnRecordError="skip", Rayxform__Compatibility="aws")
    StateFolder(plan.output).begin(b"{}", plan.inputs)
    return plan


def batch(first_record, n_records, **changes):
    row = {"file": 0, "object": "a.jsonl", "offset": 0, "source": None, "read_s": 0.0, "error": None}
    return row | {"first_record": first_record, "n_records": n_records} | changes


def written(plan, *taken, appender=None):
    """The rows of a block, and what lies among the parts then."""
    writer = PartWriter(plan.job, plan.recipe, plan.output, None, Offsets(plan.recipe), appender)
    for row in taken:
        answer = Answer(10, 1.0, 2.0, LINE * row["n_records"]) if row["n_records"] and row["error"] is None else None
        writer.take(row, answer)
    return [(row.get("part"), row.get("grown_to"), row.get("total_records")) for row in writer.flush()]


def names(plan):
    folder = plan.output.appender()._folder
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_parts_in_turn_go_to_the_end_of_their_output(plan):
    appender = plan.output.appender()
    assert written(plan, batch(0, 2), batch(2, 3), appender=appender) == [(part_name(0, 0, 5), 5 * len(LINE), None)]
    assert written(plan, batch(5, 1), batch(6, 0), appender=appender) == [
        (part_name(0, 5, 1), 6 * len(LINE), None),
        (None, None, 6),
    ]
    assert names(plan) == [growing_name(0), f"{growing_name(0)}.end"]


def test_a_part_that_is_all_of_its_file_is_a_file(plan):
    rows = written(plan, batch(0, 2), batch(2, 0), appender=plan.output.appender())
    assert rows == [(part_name(0, 0, 2), None, None), (None, None, 2)]
    assert names(plan) == [part_name(0, 0, 2)]


def test_a_part_with_bad_records_lies_beside_their_list(plan):
    bad = batch(2, 1, error=encode_error(error_entry(RecordError("it is bad", 2, 0), key="a.jsonl")))
    ((part, grown_to, _),) = written(plan, batch(0, 2), bad, appender=plan.output.appender())
    assert (part, grown_to) == (part_name(0, 0, 3), None)
    assert names(plan) == [part, f"{part}.errors"]


def test_on_a_cluster_every_part_is_a_file(plan):
    assert written(plan, batch(0, 2)) == [(part_name(0, 0, 2), None, None)]
    assert names(plan) == [part_name(0, 0, 2)]
