"""Jobs through a real Ray: what reaches the model, what is written, and what is said when something is wrong."""

import base64
import gzip
import json
import os
import random
import shutil
import subprocess
import tarfile
import time

import pytest

import rayxform
from rayxform.core.examples import write_example
from rayxform.core.framing import recordio_frame, tfrecord_frame
from rayxform.pipeline.run import run_plan
from tests.conftest import MODELS
from tests.support import cases, make_seed_model, seed_line

pytestmark = pytest.mark.usefixtures("ray_address")

LINE = 1024 * 1024 // 300


def seed_lines(count):
    """The seed's lines: 300 of them are 1 MB."""
    for number in range(count):
        head = b'{"id": %d, "inputs": "' % number
        yield head + b"A" * (LINE - len(head) - 3) + b'"}'


def run(workspace, *, workers=1, range_bytes=None, **changes):
    return run_plan(workspace.plan(range_bytes=range_bytes, **changes), workers=workers, restart=True)


@pytest.mark.parametrize("row", cases("figure"), ids=lambda row: row["source"])
def test_the_seeds_figure(workspace, row):
    for name, count in (("a.jsonl", 100), ("b.jsonl", 1000)):
        workspace.write(name, b"\n".join(seed_lines(count)) + b"\n")
    changes = {"TransformInput__SplitType": row["SplitType"], "BatchStrategy": row["BatchStrategy"]}
    expected = row.get("records_per_request") or [[1] * count for count in row["requests_of_one_record"]]
    planned = rayxform.plan(workspace.members(**changes))
    assert [list(file.records_per_request) for file in planned.files] == expected
    assert [bool(file.errors) for file in planned.files] == row["fails"]
    result = run(workspace, **changes)
    sent = workspace.sent()
    assert len(sent) == result.requests == sum(map(len, expected))
    assert max(map(len, sent)) <= 1024 * 1024
    assert result.status == ("Failed" if any(row["fails"]) else "Completed")
    assert list(workspace.outputs()) == [f"{name}.jsonl.out" for name, fails in zip("ab", row["fails"]) if not fails]


def test_one_file_feeds_all_workers_and_the_bytes_are_the_same_for_any_number_of_them(workspace):
    rng = random.Random(1)
    records = [b'{"id":%d,"x":"%s"}' % (i, b"y" * rng.randrange(3000)) for i in range(8000)]
    workspace.write("one.jsonl", b"\n".join(records))
    changes = {"DataProcessing__JoinSource": "Input", "DataProcessing__OutputFilter": "$['SageMakerOutput','id']"}
    expected = b"".join(
        b'{"SageMakerOutput":{"length": %d},"id":%d}\n' % (len(record), number) for number, record in enumerate(records)
    )
    requests = None
    for workers, range_bytes in ((1, 10**9), (2, 777_777), (5, 5_000_000)):
        result = run(workspace, workers=workers, range_bytes=range_bytes, **changes)
        assert (result.status, result.records, result.workers) == ("Completed", 8000, workers)
        assert workspace.outputs() == {"one.jsonl.out": expected}
        sent = workspace.sent()
        assert requests is None or sent == requests
        requests = sent
    left = [path.name for path in (workspace.folder / "output/.rayxform").rglob("*") if path.is_file()]
    assert left == ["events.jsonl"]


def test_every_worker_of_the_pool_gets_mini_batches_of_one_small_file(workspace):
    source = workspace.folder / "src"
    source.mkdir()
    (source / "inference.py").write_text(
        "import os, time\n"
        "def model_fn(d):\n    return os.getpid()\n"
        "def transform_fn(pid, b, t, a):\n"
        "    time.sleep(0.2)\n"
        "    return '\\n'.join([str(pid)] * len(b.splitlines()))\n"
    )
    workspace.write("one.jsonl", b'{"id":1}\n' * 60)
    changes = {"Model": {"SourceDir": str(source)}, "Rayxform__MaxRecordsPerBatch": 2}
    assert run(workspace, workers=3, **changes).status == "Completed"
    answers = workspace.outputs()["one.jsonl.out"].splitlines()
    assert len(answers) == 60
    assert len(set(answers)) == 3


@pytest.mark.parametrize("case", cases("outputs"), ids=lambda case: case["source"])
def test_what_the_seed_prints(workspace, tmp_path, case):
    model = tmp_path / "model"
    model.mkdir()
    handler = f"def transform_fn(model, body, content_type, accept):\n    return {case['response']!r}\n"
    (model / "inference.py").write_text("def model_fn(folder):\n    return None\n\n" + handler)
    workspace.write("a.jsonl", case["record"].encode() + b"\n")
    job = dict(case["job"])
    if "TransformOutput" in job:
        job["TransformOutput"] = {"S3OutputPath": str(workspace.folder / "output")} | job["TransformOutput"]
    result = run(workspace, Model={"SourceDir": str(model)}, **job)
    assert result.status == "Completed", result.failure_reason
    assert workspace.outputs()["a.jsonl.out"].decode() == case["output"]


def test_folders_are_kept_and_an_empty_file_gives_an_empty_output(workspace):
    workspace.write("x/y/a.jsonl", b'{"id":1}\n')
    workspace.write("empty.jsonl", b"")
    workspace.write("blank.jsonl", b"\n\r\n\n")
    result = run(workspace)
    assert (result.status, result.files, result.records, result.requests) == ("Completed", 3, 1, 1)
    assert workspace.outputs() == {
        "blank.jsonl.out": b"",
        "empty.jsonl.out": b"",
        "x/y/a.jsonl.out": b'{"SageMakerOutput":{"length": 8}}\n',
    }


def test_bad_files_fail_alone_and_are_named(workspace):
    good = [b'{"id":%d}' % number for number in range(1000)]
    workspace.write("good.jsonl", b"\n".join(good))
    workspace.write("json.jsonl", b"\n".join([*good[:776], b'{"id":', *good[777:]]))
    workspace.write("large.jsonl", b'{"id":1}\n{"id":"%s"}\n' % (b"x" * 1024 * 1024))
    (workspace.folder / "output").mkdir()
    (workspace.folder / "output" / "json.jsonl.out").write_bytes(b"of an earlier run")
    result = run(workspace, DataProcessing__JoinSource="Input")
    assert (result.status, result.failed_files) == ("Failed", 2)
    assert list(workspace.outputs()) == ["good.jsonl.out"]
    assert workspace.outputs()["good.jsonl.out"].count(b"\n") == 1000
    errors = {}
    for line in (workspace.folder / "output/.rayxform/job/errors.jsonl").read_text().splitlines():
        entry = json.loads(line)
        errors[entry["Object"]] = entry
    assert (errors["json.jsonl"]["Record"], errors["json.jsonl"]["Offset"]) == (777, len(b"\n".join(good[:776])) + 1)
    assert "not valid JSON" in errors["json.jsonl"]["Message"]
    assert (errors["large.jsonl"]["Record"], errors["large.jsonl"]["Offset"]) == (2, 9)
    assert "over the limit of MaxPayloadInMB 1 = 1048576 bytes" in errors["large.jsonl"]["Message"]
    assert "2 of 3 files failed" in result.failure_reason


@pytest.mark.parametrize(("kind", "frame"), [("TFRecord", tfrecord_frame), ("RecordIO", recordio_frame)])
def test_framed_records_reach_the_model_and_a_damaged_shard_is_named(workspace, kind, frame):
    records = [b"x" * number for number in range(100)]
    shard = b"".join(map(frame, records))
    workspace.write("good.bin", shard)
    damaged_at = len(b"".join(map(frame, records[:70])))
    workspace.write("bad.bin", shard[:damaged_at] + b"\xff" + shard[damaged_at + 1 :])
    result = run(workspace, range_bytes=500, TransformInput__SplitType=kind, BatchStrategy="SingleRecord")
    assert (result.status, result.failed_files) == ("Failed", 1)
    lines = workspace.outputs()["good.bin.out"].splitlines()
    assert [json.loads(line)["SageMakerOutput"]["length"] for line in lines] == [*range(100)]
    assert list(workspace.outputs()) == ["good.bin.out"]
    assert f"bad.bin: record 71 (byte {damaged_at})" in result.failure_reason
    workspace.sent()
    (workspace.folder / "input" / "bad.bin").unlink()
    run(
        workspace,
        range_bytes=500,
        TransformInput__SplitType=kind,
        Rayxform__MaxRecordsPerBatch=30,
        TransformOutput__Accept="x/y",
    )
    assert workspace.sent() == [b"".join(map(frame, records[at : at + 30])) for at in range(0, 100, 30)]


def test_a_manifest_of_compressed_objects_runs_and_a_truncated_one_fails_alone(workspace):
    lines = b"".join(b'{"id":%d}\n' % number for number in range(3000))
    workspace.write("x/good.gz", gzip.compress(lines[:10_000]) + gzip.compress(lines[10_000:]))
    workspace.write("x/cut.gz", gzip.compress(lines)[:-30])
    workspace.write("x/unnamed.gz", b"")
    names = [{"prefix": f"{workspace.folder}/input/x/"}, "good.gz", "cut.gz"]
    changes = {
        "TransformInput__DataSource__S3DataSource__S3DataType": "ManifestFile",
        "TransformInput__DataSource__S3DataSource__S3Uri": str(workspace.write("manifest.json", json.dumps(names).encode())),
        "TransformInput__CompressionType": "Gzip",
        "DataProcessing__JoinSource": "Input",
    }
    result = run(workspace, **changes)
    assert (result.status, result.files, result.failed_files) == ("Failed", 2, 1)
    expected = [b'{"SageMakerOutput":{"length": %d},%s' % (len(line), line[1:]) for line in lines.splitlines()]
    assert workspace.outputs() == {"good.gz.out": b"\n".join(expected) + b"\n"}
    assert "cut.gz: Compressed file ended before the end-of-stream marker was reached" in result.failure_reason


@pytest.mark.parametrize("on_error", ["skip", "placeholder"])
@pytest.mark.parametrize("range_bytes", [20_000, None])
def test_bad_records_pass_in_their_places_and_are_listed(workspace, on_error, range_bytes):
    records = [b'{"id":%d}' % number for number in range(1000)]
    bad = {
        17: (b'{"id":', "not valid JSON"),
        400: (b'{"id":"poison"}', "cannot digest this"),
        401: (b'{"id":"poison too"}', "cannot digest this"),
        777: (b'{"id":"odd"}', "the prediction is not valid JSON"),
        998: (b'{"x":"%s"}' % (b"x" * 2**20), "over the limit of MaxPayloadInMB 1"),
        999: (b"[", "not valid JSON"),
    }
    for number, (record, _) in bad.items():
        records[number] = record
    workspace.write("a.jsonl", b"\n".join(records))
    changes = {
        "Model__SourceDir": str(MODELS / "picky"),
        "Rayxform__OnRecordError": on_error,
        "Rayxform__MaxRecordsPerBatch": 250,
        "ModelClientConfig__InvocationsMaxRetries": 1,
        "DataProcessing__JoinSource": "Input",
    }
    planned = rayxform.plan(workspace.members(**changes)).files[0]
    assert (planned.n_records, sum(planned.records_per_request)) == (1000, 997)
    result = run(workspace, range_bytes=range_bytes, **changes)
    assert (result.status, result.records, result.bad_records) == ("Completed", 1000, 6)
    lines = workspace.outputs()["a.jsonl.out"].splitlines()
    entries = [json.loads(line) for line in (workspace.folder / "output/.rayxform/job/errors.jsonl").read_text().splitlines()]
    assert {entry["Record"] - 1: entry["Object"] for entry in entries} == dict.fromkeys(bad, "a.jsonl")
    assert len(entries) == len(bad)
    for entry in entries:
        assert bad[entry["Record"] - 1][1] in entry["Message"]
        assert entry.get("Offset") in (None, len(b"\n".join(records[: entry["Record"] - 1])) + (entry["Record"] > 1))
    expected = [b'{"SageMakerOutput":%d,%s' % (len(record), record[1:]) for record in records]
    if on_error == "placeholder":
        for number in bad:
            message = json.loads(lines[number])["error"]
            assert bad[number][1] in message
            lines[number] = expected[number] = b""
    else:
        expected = [line for number, line in enumerate(expected) if number not in bad]
    assert lines == expected
    # 250 records: twice as a whole, then halves down to the two that are bad.
    assert len(workspace.sent()) - len(planned.records_per_request) <= 20


def test_what_is_no_records_fault_fails_the_file_whatever_is_let_pass(workspace):
    frames = tfrecord_frame(b"one") + tfrecord_frame(b"two")
    workspace.write("damaged.tfrecord", frames[:21] + b"!" + frames[22:])
    result = run(
        workspace,
        TransformInput__SplitType="TFRecord",
        TransformInput__ContentType="application/octet-stream",
        Rayxform__OnRecordError="skip",
    )
    assert (result.status, result.failed_files, result.bad_records) == ("Failed", 1, 0)
    assert "the CRC-32C of the record's length is wrong" in result.failure_reason


@pytest.mark.parametrize("strategy", ["MultiRecord", "SingleRecord"])
@pytest.mark.parametrize(
    ("processing", "names", "written"),
    [
        ({"JoinSource": "Input"}, ["image", "id", "score"], b',"image":"%s","id":%d,"score":[0.1,%d.5]'),
        ({"JoinSource": "Input", "OutputFilter": "$['SageMakerOutput','id']"}, ["image", "id", "score"], b',"id":%d'),
        (
            {"JoinSource": "Input", "OutputFilter": "$['SageMakerOutput','score']", "InputFilter": "$['image','none']"},
            ["image"],
            b',"score":[0.1,%d.5]',
        ),
        ({"InputFilter": "$[1:]"}, ["id", "score"], b""),
    ],
)
def test_tfrecords_of_examples_are_filtered_and_joined(workspace, strategy, processing, names, written):
    records = [write_example({"image": [b"\x89PNG%d" % i], "id": [i], "score": [0.1, i + 0.5]}) for i in range(50)]
    workspace.write("a.tfrecord", b"".join(map(tfrecord_frame, records)))
    changes = {
        "Model__SourceDir": str(workspace.folder / "model"),
        "BatchStrategy": strategy,
        "TransformInput__SplitType": "TFRecord",
        "TransformInput__ContentType": "application/x-tfexample",
        "TransformOutput__Accept": "application/jsonlines",
        "Rayxform__MaxRecordsPerBatch": 8,
    }
    (workspace.folder / "model").mkdir()
    (workspace.folder / "model/inference.py").write_text(
        "import json\n"  # the default input_fn decodes Examples
        "def model_fn(d): pass\n"
        "def predict_fn(examples, model): return [list(one) for one in examples]\n"
        "def output_fn(names, accept): return '\\n'.join(map(json.dumps, names))\n"
    )
    result = run(workspace, range_bytes=300, DataProcessing=processing, **changes)
    assert (result.status, result.records) == ("Completed", 50), result.failure_reason
    head = b'{"SageMakerOutput":' + json.dumps(names).encode()
    values = [{b"%s": base64.b64encode(b"\x89PNG%d" % i), b"%d": b"%d" % i} for i in range(50)]
    lines = [head + written.replace(b"%s", v[b"%s"]).replace(b"%d", v[b"%d"]) + b"}\n" for v in values]
    assert workspace.outputs() == {"a.tfrecord.out": b"".join(lines)}


CSV = {"TransformInput__ContentType": "text/csv", "TransformInput__SplitType": "Line", "Rayxform__MaxRecordsPerBatch": 7}


@pytest.mark.parametrize(
    ("changes", "sent", "written"),
    [
        ({}, b'%d,"a, b",%d.0', b'%d,"a, b",%d.0'),
        ({"DataProcessing": {"InputFilter": "$[2,1]"}}, b'%.0s%d.0,"a, b"', b'%.0s%d.0,"a, b"'),
        (
            {"DataProcessing": {"InputFilter": "$[1:]", "JoinSource": "Input"}},
            b'%.0s"a, b",%d.0',
            b'%d,"a, b",%d.0,"a, b",%d.0',
        ),
        (
            {"DataProcessing": {"InputFilter": "$[2]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"}},
            b"%.0s%d.0",
            b"%d,%d.0",
        ),
    ],
)
def test_csv_is_filtered_and_joined(workspace, changes, sent, written):
    rows = [b'%d,"a, b",%d.0' % (number, number) for number in range(100)]
    workspace.write("a.csv", b"\r\n".join(rows))
    result = run(workspace, Model__Environment__ECHO="1", **CSV, **changes)
    assert (result.status, result.records) == ("Completed", 100)

    def filled(template, number):
        return template.replace(b"%.0s", b"").replace(b"%d", b"%d" % number)

    bodies = [b"\n".join(filled(sent, number) for number in range(at, min(at + 7, 100))) for at in range(0, 100, 7)]
    assert workspace.sent() == bodies
    lines = [filled(written, number) for number in range(100)]
    if "JoinSource" in changes.get("DataProcessing", {}):
        assert workspace.outputs() == {"a.csv.out": b"".join(line + b"\n" for line in lines)}
    else:  # AssembleWith None: responses as they are
        assert workspace.outputs() == {"a.csv.out": b"".join(bodies)}


def test_a_csv_row_that_is_too_short_is_named(workspace):
    workspace.write("a.csv", b"1,2,3\n1,2\n1,2,3\n")
    result = run(workspace, **CSV, DataProcessing__InputFilter="$[2]")
    assert result.status == "Failed"
    assert "a.csv: record 2 (byte 6): the filter asks for position 2, but there are 2 (0 to 1)" in result.failure_reason


HANDLERS = {
    "model_fn raises": ("def model_fn(d):\n    raise ValueError('no weights')\n", "ModelLoadError", "no weights", 2),
    "import fails": ("import nowhere_to_be_found\n", "ModelLoadError", "nowhere_to_be_found", 1),
    "no model_fn and no model.pt": ("def input_fn(body, t):\n    return body\n", "ModelLoadError", "model.pt", None),
    "input_fn raises": (
        "def model_fn(d):\n    return 1\ndef input_fn(b, t):\n    raise KeyError('pixels')\n",
        "InvocationError",
        "input_fn raised KeyError",
        4,
    ),
    "predict_fn raises": (
        "def model_fn(d):\n    return 1\ndef input_fn(b, t):\n    return b\ndef predict_fn(x, m):\n    return 1 / 0\n",
        "InvocationError",
        "predict_fn raised ZeroDivisionError",
        6,
    ),
    "output_fn raises": (
        (
            "def model_fn(d):\n    return 1\ndef input_fn(b, t):\n    return b\ndef predict_fn(x, m):\n    return x\n"
            "def output_fn(p, a):\n    raise RuntimeError('full')\n"
        ),
        "InvocationError",
        "output_fn raised RuntimeError",
        8,
    ),
    "too few lines": (
        "def model_fn(d):\n    return 1\ndef transform_fn(m, b, t, a):\n    return '1'\n",
        "ResponseError",
        "expected 3 lines, one for each record of the request, but got 1",
        None,
    ),
    "no response": (
        "def model_fn(d):\n    return 1\ndef transform_fn(m, b, t, a):\n    return {'p': 1}\n",
        "InvocationError",
        "dict",
        None,
    ),
    "a prediction that is no JSON": (
        "def model_fn(d):\n    return 1\ndef transform_fn(m, b, t, a):\n    return '1\\nNaN\\n2'\n",
        "RecordError",
        "the prediction is not valid JSON",
        None,
    ),
}


@pytest.mark.parametrize("what", HANDLERS)
def test_a_model_that_fails_is_reported_with_the_users_own_traceback(workspace, what):
    code, kind, message, line = HANDLERS[what]
    source = workspace.folder / "src"
    source.mkdir()
    (source / "inference.py").write_text(code)
    workspace.write("a.jsonl", b"1\n2\n3\n")
    result = run(workspace, Model={"SourceDir": str(source)}, ModelClientConfig={"InvocationsMaxRetries": 0})
    assert result.status == "Failed"
    assert message in result.failure_reason
    if line is not None:
        assert f'inference.py", line {line}' in result.failure_reason
    assert "rayxform/pipeline" not in result.failure_reason
    (entry,) = map(json.loads, (workspace.folder / "output/.rayxform/job/errors.jsonl").read_text().splitlines()[:1])
    assert entry["Kind"] == kind
    assert workspace.outputs() == {}


def test_a_failed_request_is_tried_again_as_often_as_the_job_says(workspace):
    source = workspace.folder / "src"
    source.mkdir()
    (source / "inference.py").write_text(
        "def model_fn(d):\n    return None\n"
        "def transform_fn(m, b, t, a, context):\n"
        "    if context.attempt < 3:\n        raise OSError('not yet')\n"
        "    return str(context.attempt)\n"
    )
    workspace.write("a.jsonl", b"1")
    assert run(workspace, Model={"SourceDir": str(source)}).status == "Completed"
    assert workspace.outputs() == {"a.jsonl.out": b'{"SageMakerOutput":3}\n'}
    few = {"ModelClientConfig": {"InvocationsMaxRetries": 1}}
    assert "not yet" in run(workspace, Model={"SourceDir": str(source)}, **few).failure_reason


def test_a_model_archive_with_its_code_and_environment_is_unpacked_and_runs(workspace):
    source = workspace.folder / "archive" / "code"
    source.mkdir(parents=True)
    (source.parent / "weights.txt").write_text("41")
    (source / "helper.py").write_text("def plus(number):\n    return number + 1\n")
    (source / "inference.py").write_text(
        "import os\nfrom helper import plus\n"
        "def model_fn(d):\n    return int(open(os.path.join(d, 'weights.txt')).read())\n"
        "def transform_fn(m, b, t, a):\n"
        "    return '\\n'.join([str(plus(m)) + '00' + os.environ['DIGIT']] * len(b.splitlines()))\n"
    )
    archive = workspace.folder / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source.parent, arcname=".")
    workspace.write("a.jsonl", b"1\n2")
    model = {"ModelDataUrl": str(archive), "Environment": {"DIGIT": "7"}}
    assert run(workspace, Model=model).status == "Completed"
    assert workspace.outputs() == {"a.jsonl.out": b'{"SageMakerOutput":42007}\n' * 2}


def test_more_workers_cpus_gpus_or_memory_than_there_are_is_refused_with_the_numbers(workspace):
    workspace.write("a.jsonl", b"1")
    import ray

    cpus = ray.cluster_resources()["CPU"]
    for workers, changes, message in (
        (1000, {}, f"1000 workers with 0.25 CPUs each need 250 CPUs, but there are {cpus:g}"),
        (2, {"Rayxform__CpusPerWorker": 64}, "2 workers with 64 CPUs each need 128 CPUs"),
        (1, {"Rayxform__GpusPerWorker": 9}, "1 workers with 9 GPUs each need 9 GPUs, but there are"),
        (1, {"Rayxform__MemoryPerWorkerInMB": 10**9}, "MiB of memory"),
    ):
        with pytest.raises(rayxform.JobError, match=message):
            run(workspace, workers=workers, **changes)
    assert workspace.sent() == []


def test_a_cluster_that_stays_too_small_is_waited_for_as_long_as_the_job_says_and_then_asked_no_more(workspace):
    """tests/cluster/test_autoscaler.py has one that grows."""
    import ray

    workspace.write("a.jsonl", b"1")
    with pytest.raises(rayxform.JobError, match=r"need 9 GPUs.*; where nodes are still to come, set Rayxform\.WaitForNodes"):
        run(workspace, Rayxform__GpusPerWorker=9)
    before = time.monotonic()
    with pytest.raises(rayxform.JobError, match=r"need 9 GPUs.*; no more came in the 2 s of Rayxform\.WaitForNodesInSeconds$"):
        run(workspace, Rayxform__GpusPerWorker=9, Rayxform__WaitForNodesInSeconds=2)
    assert time.monotonic() - before >= 2
    asked = ray.util.placement_group_table().values()
    assert [one["state"] for one in asked if one["bundles"][0].get("GPU") == 9] == ["REMOVED"]
    assert workspace.sent() == []


@pytest.fixture
def small_disk(tmp_path):
    """A device of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_output_disk_fails_the_files_that_do_not_fit_and_keeps_the_others(workspace, small_disk):
    workspace.write("large.jsonl", b"\n".join(seed_lines(600)))
    workspace.write("small.jsonl", b'{"id":1}')
    changes = {
        "TransformOutput__S3OutputPath": str(small_disk / "out"),
        "Model__Environment": {"REQUESTS": str(workspace.requests), "ECHO": "1"},
    }
    result = run(workspace, **changes)
    assert (result.status, result.failed_files) == ("Failed", 1)
    assert "No space left on device" in result.failure_reason
    assert [path.name for path in (small_disk / "out").glob("*.out")] == ["small.jsonl.out"]


def test_an_input_that_cannot_be_read_fails_alone(workspace):
    workspace.write("good.jsonl", b"1")
    plan = workspace.plan()
    lost = workspace.write("lost.jsonl", b"2")
    both = workspace.plan()
    lost.unlink()
    assert run_plan(plan).status == "Completed"
    result = run_plan(both)
    assert (result.status, result.failed_files) == ("Failed", 1)
    assert "cannot read" in result.failure_reason
    assert "lost.jsonl" in result.failure_reason
    assert list(workspace.outputs()) == ["good.jsonl.out"]


def test_an_input_that_changed_since_the_plan_fails_rather_than_mixing_two_versions(workspace):
    changed = workspace.write("a.jsonl", b"1\n2\n")
    plan = workspace.plan()
    changed.write_bytes(b"1\n2\n3\n")
    os.utime(changed, (1, 1))
    assert "changed after the job had begun" in run_plan(plan).failure_reason


def test_the_output_may_lie_below_the_input(workspace):
    workspace.write("a.jsonl", b"1")
    output = str(workspace.folder / "input" / "out")
    for _ in range(2):
        result = run(workspace, TransformOutput__S3OutputPath=output)
        assert (result.status, result.files) == ("Completed", 1)
    shutil.rmtree(output)


def test_the_seeds_own_inference_py_runs_unmodified_and_a_warning_of_the_model_is_told(workspace):
    """Its answers come doubly encoded; a model that model_fn leaves in training mode is pointed out once."""
    model = workspace.folder / "model"
    make_seed_model(model)
    records = [seed_line(number, "blue") for number in range(5)]
    workspace.write("sample_input.jsonl", "\n".join(records).encode())
    changes = {
        "Model": {"ModelDataUrl": str(model)},
        "Rayxform__MaxRecordsPerBatch": 2,
        "DataProcessing__JoinSource": "Input",
        "DataProcessing__OutputFilter": "$['SageMakerOutput','id']",
    }
    result = run(workspace, workers=1, **changes)
    expected = b"".join(b'{"SageMakerOutput":{"predictions": 2},"id":%d}\n' % number for number in range(5))
    assert (result.status, result.requests, result.warnings) == ("Completed", 3, ())
    assert workspace.outputs() == {"sample_input.jsonl.out": expected}

    entry_point = model / "code" / "inference.py"
    entry_point.write_text(entry_point.read_text().replace("Net().eval()", "Net()"))
    (warning,) = run(workspace, workers=1, **changes).warnings
    assert "model_fn returned a model in training mode" in warning
