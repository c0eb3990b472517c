"""Partitioned data sets through a real Ray, read with the readers that people have."""

import json
import threading

import duckdb
import polars as pl
import pyarrow.dataset
import pyarrow.parquet
import pytest

import rayxform
from rayxform.pipeline.partitioning import DatasetPublisher, PartitionSetup, partition_input
from rayxform.pipeline.run import run_plan
from rayxform.storage.datasets import DatasetFolder
from rayxform.storage.publishing import OutputFolder
from rayxform.storage.state import StateFolder

pytestmark = pytest.mark.usefixtures("ray_address")

PARQUET = {"By": ["$.date"], "Format": "parquet"}
LINES = {"By": ["$.date"], "Format": "jsonlines"}


def run(workspace, *, workers=1, range_bytes=None, partition=PARQUET, **changes):
    changes = {"DataProcessing__JoinSource": "Input", "Rayxform__Partition": partition} | changes
    return run_plan(workspace.plan(range_bytes=range_bytes, **changes), workers=workers, restart=True)


def write_inputs(workspace, count=300, objects=("a.jsonl", "x/b.jsonl")):
    """Records of seven dates in a few objects; gives the rows that are expected of them."""
    rows = []
    for key in objects:
        records = [{"id": number, "date": f"2022/01/{number % 7}", "x": number / 4} for number in range(count)]
        workspace.write(key, b"".join(json.dumps(record).encode() + b"\n" for record in records))
        lengths = [len(json.dumps(record)) for record in records]
        rows += [record | {"SageMakerOutput": {"length": n}} for record, n in zip(records, lengths)]
    return rows


def files_of(workspace):
    """Every file of the data set, and whatever else lies in the output beside the state folder."""
    root = workspace.folder / "output"
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths if ".rayxform" not in path.parts}


def errors_of(workspace):
    lines = (workspace.folder / "output/.rayxform/job/errors.jsonl").read_text().splitlines()
    return [(entry["Object"], entry["Record"], entry["Message"]) for entry in map(json.loads, lines)]


def with_pyarrow(root):
    return pyarrow.dataset.dataset(root, partitioning="hive").to_table().to_pylist()


def with_polars(root):
    return pl.scan_parquet(f"{root}/date=*/*.parquet", hive_partitioning=True).collect().to_dicts()


def with_duckdb(root):
    table = duckdb.sql(f"FROM read_parquet('{root}/**/*.parquet', hive_partitioning=true)")
    return [dict(zip(table.columns, row)) for row in table.fetchall()]


READERS = (with_pyarrow, with_polars, with_duckdb)


def ordered(rows):
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


def test_every_reader_gets_every_record_once(workspace):
    rows = write_inputs(workspace)
    result = run(workspace)
    assert (result.status, result.files, result.failed_files, result.done_files) == ("Completed", 2, 0, 2)
    assert (result.records, result.to_members()["Records"]) == (600, 600)
    for reader in READERS:
        assert ordered(reader(str(workspace.folder / "output"))) == ordered(rows)


def test_the_files_are_the_same_for_any_number_of_workers_and_named_by_their_input(workspace):
    write_inputs(workspace)
    seen = []
    for workers, range_bytes in ((1, None), (3, 777)):
        run(workspace, workers=workers, range_bytes=range_bytes, Rayxform__MaxRecordsPerBatch=40)
        seen.append(files_of(workspace))
    assert seen[0] == seen[1]
    names = ("a.jsonl.parquet", "x%2Fb.jsonl.parquet")
    assert list(seen[0]) == [f"date=2022%2F01%2F{day}/{name}" for day in range(7) for name in names]
    assert not (workspace.folder / "output/.rayxform/job/parts").exists()


def test_json_lines_keep_their_own_bytes(workspace):
    values = [b"1.0", b"1e5", b"18446744073709551616", b"0.1234567890123456789", '"é"'.encode(), b'"\\u00e9"', b"{ }"]
    records = [b'{"date": "d/%d", "v": %b, "label": "l"}' % (number % 2, value) for number, value in enumerate(values)]
    workspace.write("a.jsonl", b"\n".join(records))
    by = ["$.date", "$.SageMakerOutput.length"]
    result = run(workspace, partition={"By": by, "Format": "jsonlines"}, DataProcessing__OutputFilter="$['v','label']")
    assert result.status == "Completed", result.failure_reason
    expected: dict[str, bytes] = {}
    for number, (record, value) in enumerate(zip(records, values)):
        name = f"date=d%2F{number % 2}/length={len(record)}/a.jsonl.jsonl"
        expected[name] = expected.get(name, b"") + b'{"v":%b,"label":"l"}\n' % value
    assert files_of(workspace) == expected
    pattern = f"{workspace.folder}/output/date=*/*/*.jsonl"
    found = duckdb.sql(f"SELECT date, label FROM read_json('{pattern}', hive_partitioning=true)").fetchall()
    assert sorted(found) == [("d/0", "l")] * 4 + [("d/1", "l")] * 3


def test_plan_shows_where_an_input_goes(workspace):
    write_inputs(workspace, objects=("x/b.jsonl",))
    members = workspace.members(DataProcessing__JoinSource="Input", Rayxform__Partition=PARQUET)
    assert rayxform.plan(members).files[0].output == "date=*/x%2Fb.jsonl.parquet"


def count_or_none(reader, root):
    """How many records a reader sees; none if it says that there is no data set."""
    try:
        return len(reader(root))
    except (FileNotFoundError, pl.exceptions.ComputeError, duckdb.IOException):
        return 0


def test_readers_see_nothing_of_what_is_staged_and_all_of_what_is_committed(workspace):
    write_inputs(workspace)
    plan = workspace.plan(Rayxform__Partition=PARQUET)
    root, records = str(workspace.folder / "output"), [b'date=%d\t{"id":%d}\n' % (n % 7, n) for n in range(100)]
    StateFolder(plan.output).begin(b"{}", [])
    with DatasetPublisher(plan, workers=1) as publisher:
        for file in (1, 0):
            plan.output.write_parts([(f"{file}/0", records)])
            publisher.take(file, [(f"{file}/0", 0)])
        assert [published.file for published in publisher.collect(done_only=False)] == [0, 1]  # the first one has the columns
        assert len([*(workspace.folder / "output/.rayxform/job/parts/dataset").glob("*/*")]) == 14
        assert {count_or_none(reader, root) for reader in READERS} == {0}
        publisher.commit()
        assert {len(reader(root)) for reader in READERS} == {200}


def test_a_reader_during_a_run_sees_nothing_before_its_end(workspace):
    write_inputs(workspace)
    root, record = str(workspace.folder / "output"), workspace.folder / "output/.rayxform/job/dataset.json"
    ended, seen = threading.Event(), []

    def look():
        while not ended.is_set():
            counts = {count_or_none(reader, root) for reader in READERS}
            if not record.exists():  # it is written before the first file appears
                seen.append(counts)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        assert run(workspace).status == "Completed"
    finally:
        ended.set()
        thread.join()
    assert seen
    assert all(counts == {0} for counts in seen)
    assert {len(reader(root)) for reader in READERS} == {600}


def test_the_next_run_replaces_the_data_set_and_leaves_foreign_files(workspace):
    write_inputs(workspace)
    run(workspace)
    before = files_of(workspace)
    source = workspace.folder / "broken"
    source.mkdir()
    (source / "inference.py").write_text("1 / 0\n")
    failed = run(workspace, Model={"SourceDir": str(source)})
    assert (failed.status, failed.failed_files, failed.done_files) == ("Failed", 2, 0)
    assert files_of(workspace) == before  # a job that did not come to its end replaces nothing
    foreign = workspace.folder / "output/date=2022%2F01%2F0/theirs.parquet"
    foreign.write_bytes(b"theirs")
    (workspace.folder / "input/x/b.jsonl").unlink()
    workspace.write("a.jsonl", b'{"date":"2022/01/1","id":1}\n{"date":"new","id":2}\n')
    workspace.write("bad.jsonl", b'{"date":"new","id":1}\n{"date":')
    result = run(workspace, partition=LINES)
    assert (result.status, result.files, result.failed_files, result.done_files) == ("Failed", 2, 1, 1)
    names = ["date=2022%2F01%2F0/theirs.parquet", "date=2022%2F01%2F1/a.jsonl.jsonl", "date=new/a.jsonl.jsonl"]
    assert list(files_of(workspace)) == names
    assert sorted(path.name for path in (workspace.folder / "output").iterdir() if path.name[0] != ".") == [
        name.partition("/")[0] for name in names
    ]


BAD = {
    3: (b'{"date":"d","id":"text"}', "column 'id' is \"text\", but by the data set's first records it must be a whole number"),
    10: (b'{"date":', "not valid JSON"),
    11: (b'{"date":"d","id":9223372036854775808}', "column 'id' is 9223372036854775808"),
    12: (b'{"date":{"y":1},"id":1}', "the partition key 'date' is an object"),
    49: (b'{"date":"d","id":1,"new":2}', "column 'new', here 2, is none that the data set's first records have"),
}


def write_bad(workspace):
    records = [b'{"date":"d","id":%d}' % number for number in range(50)]
    workspace.write("a.jsonl", b"\n".join(records))
    for number, (record, _) in BAD.items():
        records[number] = record
    workspace.write("b.jsonl", b"\n".join(records))


def test_records_that_do_not_fit_are_skipped_and_listed(workspace):
    write_bad(workspace)
    result = run(workspace, Rayxform__OnRecordError="skip", Rayxform__MaxRecordsPerBatch=7)
    assert (result.status, result.bad_records, result.failed_files) == ("Completed", len(BAD), 0)
    (found,) = [path for path in files_of(workspace) if "b.jsonl" in path]
    ids = pyarrow.parquet.read_table(workspace.folder / "output" / found, partitioning=None)["id"].to_pylist()
    assert ids == [number for number in range(50) if number not in BAD]
    errors = {number - 1: (key, message) for key, number, message in errors_of(workspace)}
    assert sorted(errors) == sorted(BAD)
    assert all(errors[number][0] == "b.jsonl" and words in errors[number][1] for number, (_, words) in BAD.items())


def test_a_record_that_does_not_fit_fails_its_file_alone(workspace):
    workspace.write("a.jsonl", b'{"date":"d","id":1}\n')
    workspace.write("b.jsonl", b'{"date":"d","id":2}\n{"date":"e","id":2.5}\n')
    result = run(workspace)
    assert (result.status, result.failed_files, result.done_files) == ("Failed", 1, 1)
    assert "b.jsonl: record 2: column 'id' is 2.5" in result.failure_reason
    assert list(files_of(workspace)) == ["date=d/a.jsonl.parquet"]
    # The first input that is complete and holds a record settles the columns.
    workspace.write("Bad.jsonl", b'{"date":"d","id":[1]}\n{')
    workspace.write("Empty.jsonl", b"\n")
    again = run(workspace)
    assert (again.failed_files, list(files_of(workspace))) == (2, ["date=d/a.jsonl.parquet"])


def test_no_records_no_files(workspace):
    workspace.write("empty.jsonl", b"")
    workspace.write("skipped.jsonl", b'{"date":[]}\n[')
    result = run(workspace, Rayxform__OnRecordError="skip")
    assert (result.status, result.done_files, result.bad_records) == ("Completed", 2, 2)
    assert files_of(workspace) == {}


def test_what_does_not_fit_into_memory_gives_the_same_records_in_several_row_groups(workspace):
    dataset = DatasetFolder(OutputFolder(str(workspace.folder / "output"), "job"))
    StateFolder(dataset.output).begin(b"{}", [])
    lines = [b'd=%d\t{"id":%d,"x":"%b"}\n' % (number % 400, number, b"x" * 20) for number in range(20_000)]
    dataset.output.write_parts([("0/0", lines[:7000])])
    dataset.output.write_parts([("0/1", lines[7000:])])
    found = {}
    for held_bytes, row_group_bytes in ((10**9, 10**9), (50_000, 500)):
        setup = PartitionSetup(dataset, "parquet", True, held_bytes, row_group_bytes)
        done = partition_input(setup, "a.jsonl", ["0/0", "0/1"], None)
        assert list(done.files) == [f"d={number}/a.jsonl.parquet" for number in range(400)]
        staging = workspace.folder / "output/.rayxform/job/parts/dataset"
        tables = [pyarrow.parquet.ParquetFile(staging / staged) for staged in done.files.values()]
        assert all((table.num_row_groups > 1) == (row_group_bytes == 500) for table in tables)
        found[held_bytes] = [table.read()["id"].to_pylist() for table in tables]
        assert found[held_bytes] == [list(range(number, 20_000, 400)) for number in range(400)]
