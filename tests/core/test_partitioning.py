"""Which partition a joined record belongs to, and what of it is left for the partition's file."""

import pytest

from rayxform.core.joining import JsonProcessing, json_processing
from rayxform.core.jsonpath import compile_path
from rayxform.core.naming import data_file_name
from rayxform.core.partitioning import PartitionedProcessing, make_partitioning
from rayxform.core.splitting import Records
from rayxform.errors import RecordError
from tests.support import cases


def processing_of(case):
    partitioning, output_filter = make_partitioning(case["by"]), case.get("output_filter", "$")
    before = json_processing("$", output_filter, join=True, envelope=False, also_needed=partitioning.first_names)
    options = {"join": True, "stamps": False, "envelope": True, "sorts_keys": case.get("sorts_keys", False)}
    results = JsonProcessing(compile_path("$"), compile_path(output_filter), **options)
    return PartitionedProcessing(before, results, partitioning)


@pytest.mark.parametrize("case", cases("partitions"), ids=lambda case: case["source"])
def test_case(case):
    processing = processing_of(case)
    prepared = processing.prepare(Records([case["record"].encode()], [0]))
    assert not prepared.errors
    (source,) = prepared.sources
    assert source.decode() == case.get("source_sent", source.decode())
    prediction = case.get("prediction", "7").encode()
    if "error" in case:
        with pytest.raises(RecordError) as caught:
            processing.finish(prediction, source)
        assert case["error"] in caught.value.reason
    else:
        assert processing.finish(prediction, source).decode() == f"{case['folder']}\t{case['rest']}"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("a.jsonl", "a.jsonl.parquet"),
        ("a/b.jsonl", "a%2Fb.jsonl.parquet"),
        ("a%2Fb.jsonl", "a%252Fb.jsonl.parquet"),
        ("_a", "%5Fa.parquet"),  # readers of data sets pass over names that begin so
        (".a", "%2Ea.parquet"),
        ("é *", "%C3%A9%20%2A.parquet"),
    ],
)
def test_the_files_of_different_inputs_have_different_names_that_readers_take(key, name):
    assert data_file_name(key, "parquet") == name


def test_a_long_key_gives_a_name_that_a_disk_takes_and_no_other_key_has():
    names = {data_file_name(f"{'é' * 300}/{number}", "parquet") for number in range(100)}
    assert len(names) == 100
    assert max(map(len, names)) <= 255
