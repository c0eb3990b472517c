"""README: every row of its tables is planned, and runs; so do its model server and its partitioned data set."""

import gzip
import json
import re
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.dataset
import pytest
import yaml

import rayxform
from rayxform.core.examples import write_example
from rayxform.core.framing import recordio_frame, tfrecord_frame
from rayxform.pipeline.inspecting import plan_requests
from rayxform.pipeline.run import run_plan

README = (Path(__file__).parents[1] / "README.md").read_text()
ROW = re.compile(r"^\| ([^|]+) \| `(\{.*?\})` \|", re.MULTILINE)
ROWS = dict(ROW.findall(README[README.index("## What it reads") :]))
PLACES = re.findall(r"^\| ([^|]+) \| `([^|]+)` \| `([^|]+)` \|", README[README.index("## Where it reads") :], re.MULTILINE)[1:]

LINES = b"".join(b'{"id":%d}\n' % number for number in range(10))
PNG = b"\x89PNG\r\n\x1a\n, and so on"
SAMPLES = {
    "JSON Lines": LINES,
    "CSV": b"1,2\n" * 10,
    "TFRecord of `tf.train.Example`": b"".join(tfrecord_frame(write_example({"id": [number]})) for number in range(10)),
    "TFRecord of anything else": tfrecord_frame(b"anything") * 10,
    "RecordIO": recordio_frame(b"anything") * 10,
    "a folder of images": PNG,
    "a JSON document a file": b'{"instances": [1, 2]}',
    "gzip, with any of these": gzip.compress(LINES),
    "what a manifest names": LINES,
}


HTTP = README[README.index("## Models behind HTTP") :]


def test_every_row_of_the_table_has_a_sample():
    assert ROWS.keys() == SAMPLES.keys()


@pytest.mark.parametrize("row", SAMPLES)
def test_the_row_runs(workspace, ray_address, row):
    changes = {f"TransformInput__{name}": value for name, value in json.loads(ROWS[row]).items()}
    is_one_record = changes["TransformInput__SplitType"] == "None"
    uri = str(workspace.folder / "input")
    workspace.write("records", SAMPLES[row])
    if "TransformInput__DataSource" in changes:
        uri = str(workspace.write("../manifest", json.dumps([{"prefix": f"{uri}/"}, "records"]).encode()))
    changes.setdefault("TransformInput__DataSource", {}).setdefault("S3DataSource", {})["S3Uri"] = uri
    changes |= {"BatchStrategy": "SingleRecord" if is_one_record else "MultiRecord", "Model__Environment__ECHO": "1"}
    plan = workspace.plan(**changes, TransformOutput__Accept="application/octet-stream")
    (file,) = plan_requests(plan).files
    assert (file.n_records, file.errors) == (1 if is_one_record else 10, ())
    result = run_plan(plan, workers=1)
    assert (result.status, result.records) == ("Completed", file.n_records), result.failure_reason
    sent = gzip.decompress(SAMPLES[row]) if "gzip" in row else SAMPLES[row]
    assert workspace.sent() == [sent.rstrip(b"\n")]
    assert workspace.outputs() == {"records.out": sent.rstrip(b"\n")}


def test_the_table_of_places_has_its_rows():
    assert [place.partition(",")[0] for place, _, _ in PLACES] == ["a disk", "S3", "anything else that fsspec opens"]


@pytest.mark.parametrize(("place", "uri", "output"), PLACES)
def test_the_place_works(workspace, ray_address, bucket, place, uri, output):
    workspace.write("deep/a", LINES)
    bucket.put("input/deep/a", LINES)
    uri, output = (url.replace("FOLDER", str(workspace.folder)).replace("BUCKET", bucket.name) for url in (uri, output))
    changes = {"TransformInput__DataSource__S3DataSource__S3Uri": uri, "TransformOutput__S3OutputPath": output}
    result = run_plan(workspace.plan(**changes, Model__Environment__ECHO="1", Rayxform__Compatibility="aws"), workers=1)
    assert (result.status, result.records, result.warnings) == ("Completed", 10, ()), result.failure_reason
    written = {"output/deep/a.out": bucket.get("output/deep/a.out")} if output.startswith("s3:") else workspace.outputs()
    assert [*written.values()] == [LINES.rstrip(b"\n")]


def test_the_model_server_runs(workspace, monkeypatch):
    blocks = {kind: re.search(rf"```{kind}\n(.*?)```", HTTP, re.DOTALL).group(1) for kind in ("yaml", "python")}
    monkeypatch.chdir(workspace.folder)
    (workspace.folder / "serve.py").write_text(blocks["python"])
    workspace.write("a.jsonl", LINES)
    report = rayxform.check(yaml.safe_load(blocks["yaml"]))
    assert report.output == b"".join(b'{"SageMakerOutput":{"length": 8}}\n' for _ in range(10))


def test_the_partitioned_data_set_is_written_and_read_as_the_section_says(workspace, ray_address, monkeypatch):
    section = README[README.index("## A partitioned data set") : README.index("## For SageMaker's own clients")]
    job, code = re.findall(r"```(?:yaml|python)\n(.*?)```", section, re.DOTALL)
    workspace.write("digits-100.jsonl", b'{"id":1,"date":"2022/01/01"}\n{"id":2,"date":"2022/01/01"}\n{"id":3,"date":null}\n')
    result = run_plan(workspace.plan(**yaml.safe_load(job)), workers=1)
    assert result.status == "Completed", result.failure_reason
    named = re.findall(r"`output/(.*?)`", section)[0]
    assert (workspace.folder / "output" / named).is_file()
    monkeypatch.chdir(workspace.folder)
    readers = [line for line in code.splitlines() if line and not line.startswith("import")]
    names = {"duckdb": duckdb, "polars": pl, "pyarrow": pyarrow}
    tables = [eval(line, names) for line in readers]
    assert [table.to_arrow_table().num_rows if hasattr(table, "to_arrow_table") else len(table) for table in tables] == [
        3,
        3,
        3,
    ]
