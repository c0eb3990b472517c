"""Records that end the model's process, hang it, or need more memory than there is: through a real Ray."""

import gzip
import json

import pytest

from rayxform.core.framing import tfrecord_frame
from rayxform.pipeline.run import run_plan
from tests.conftest import MODELS

pytestmark = pytest.mark.usefixtures("ray_address")

RECORDS = [b'{"id":%d,"x":"%s"}' % (number, b"y" * (number % 50)) for number in range(10_000)]
AT = 6_789


def poisoned(word, *places, records=RECORDS):
    records = [*records]
    for place in places:
        records[place] = b'{"id":%d,"x":"%s"}' % (place, word)
    return records


def run(workspace, *, workers=1, **changes):
    return run_plan(workspace.plan(**{"Model__SourceDir": str(MODELS / "deadly")} | changes), workers=workers)


def output_of(records):
    return [b'{"SageMakerOutput":%d}\n' % len(record) for record in records]


def requests_of(workspace):
    """What reached the model since the last look: object, first record, number of records, attempt."""
    log = workspace.requests / "log"
    lines = log.read_text().splitlines()
    log.unlink()
    return [json.loads(line) for line in lines]


def errors_of(workspace):
    lines = (workspace.folder / "output/.rayxform/job/errors.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("on_error", "word"), [("fail", b"segfault"), ("skip", b"exit"), ("placeholder", b"segfault"), ("skip", b"raise")]
)
def test_one_record_among_ten_thousand_costs_few_requests_and_is_named(workspace, on_error, word):
    records = poisoned(word, AT)
    workspace.write("a.jsonl", b"\n".join(records))
    workspace.write("b.jsonl", b"\n".join(RECORDS[:10]))
    changes = {} if on_error == "fail" else {"Rayxform__OnRecordError": on_error}
    result = run(workspace, **changes)
    requests = requests_of(workspace)
    assert result.requests == len(requests) == len({tuple(one) for one in requests})
    if word != b"raise":
        assert len(requests) - 2 <= 20
    outputs = workspace.outputs()
    assert outputs.pop("b.jsonl.out") == b"".join(output_of(RECORDS[:10]))
    (entry,) = errors_of(workspace)
    assert (entry["Object"], entry["Record"], entry.get("NRecords", 1)) == ("a.jsonl", AT + 1, 1)
    assert entry["Offset"] == len(b"\n".join(records[:AT])) + 1
    expected = output_of(records)
    if on_error == "fail":
        assert (result.status, result.failed_files, outputs) == ("Failed", 1, {})
        assert f"a.jsonl: record {AT + 1} (byte {entry['Offset']}): the model's process ended: it was killed by SIGSEGV" in (
            result.failure_reason
        )
        assert "in transform_fn" in entry["Traceback"]
        assert "worker" in entry["Message"].partition("see ")[2]  # Ray's log of the worker
        return
    assert (result.status, result.records, result.bad_records) == ("Completed", 10_010, 1)
    lines = outputs["a.jsonl.out"].splitlines(keepends=True)
    if on_error == "placeholder":
        assert json.loads(lines.pop(AT))["error"] == entry["Message"]
    del expected[AT]
    assert lines == expected


def test_several_of_them_are_found_in_frames_of_a_compressed_object_next_to_each_other_and_at_its_ends(workspace):
    places = (0, 1, 1234, 2999)
    records = poisoned(b"exit", *places, records=RECORDS[:3000])
    frames = [tfrecord_frame(record) for record in records]
    workspace.write("a.tfrecord", gzip.compress(b"".join(frames)))
    changes = {
        "TransformInput__SplitType": "TFRecord",
        "TransformInput__ContentType": "application/octet-stream",
        "TransformInput__CompressionType": "Gzip",
        "Rayxform__OnRecordError": "skip",
        "Rayxform__MaxRecordsPerBatch": 1500,
        "ModelClientConfig__InvocationsMaxRetries": 0,
    }
    model = workspace.folder / "model"
    model.mkdir()
    (model / "inference.py").write_text(
        "import os, struct\n"
        "def model_fn(d): pass\n"
        "def transform_fn(m, body, t, a):\n"
        "    lengths = []\n"
        "    while body:\n"
        "        (n,) = struct.unpack_from('<Q', body)\n"
        "        if b'\"exit\"' in body[12 : 12 + n]: os._exit(7)\n"
        "        lengths.append(str(n))\n"
        "        body = body[n + 16 :]\n"
        "    return '\\n'.join(lengths)\n"
    )
    result = run(workspace, Model={"SourceDir": str(model)}, TransformOutput__Accept="application/jsonlines", **changes)
    assert (result.status, result.records, result.bad_records) == ("Completed", 3000, 4), result.failure_reason
    assert workspace.outputs()["a.tfrecord.out"] == b"".join(
        line for number, line in enumerate(output_of(records)) if number not in places
    )
    found = {entry["Record"] - 1: entry["Offset"] for entry in errors_of(workspace)}
    assert found == {place: sum(map(len, frames[:place])) for place in places}


def test_a_record_that_hangs_native_code_is_named_and_the_others_are_answered(workspace):
    records = poisoned(b"hang", 5, records=RECORDS[:8])
    workspace.write("a.jsonl", b"\n".join(records))
    changes = {"InvocationsTimeoutInSeconds": 1, "InvocationsMaxRetries": 0}
    result = run(workspace, Rayxform__OnRecordError="skip", ModelClientConfig=changes)
    assert (result.status, result.records, result.bad_records) == ("Completed", 8, 1)
    expected = output_of(records)
    del expected[5]
    assert workspace.outputs() == {"a.jsonl.out": b"".join(expected)}
    (entry,) = errors_of(workspace)
    assert (entry["Record"], entry["Offset"]) == (6, len(b"\n".join(records[:5])) + 1)
    assert "no answer within InvocationsTimeoutInSeconds = 1" in entry["Message"]
    assert "in transform_fn" in entry["Traceback"]


def test_a_process_that_is_killed_from_outside_costs_no_record(workspace):
    records = poisoned(b"victim", 77, records=RECORDS[:300])
    workspace.write("a.jsonl", b"\n".join(records))
    (workspace.requests / "kill once").touch()
    result = run(workspace, ModelClientConfig__InvocationsMaxRetries=1, Rayxform__MaxRecordsPerBatch=100)
    assert (result.status, result.records) == ("Completed", 300), result.failure_reason
    assert not (workspace.requests / "kill once").exists()
    assert workspace.outputs() == {"a.jsonl.out": b"".join(output_of(records))}
    assert not list((workspace.folder / "output").rglob("errors.jsonl"))
    assert result.requests == len(requests_of(workspace)) == 4


HUNGRY = """
import os, resource
import torch

LIMIT_BYTES = int(os.environ.get("LIMIT_BYTES", 0))

def model_fn(model_dir):
    torch.zeros(8) @ torch.zeros(8)
    if LIMIT_BYTES:
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_BYTES, used + LIMIT_BYTES))

def transform_fn(model, body, content_type, accept, context):
    lines = body.split(b"\\n")
    with open(os.environ["REQUESTS"] + "/log", "a") as file:
        try:
            activations = torch.ones(len(lines), 2**20)  # 4 MiB a record
        except Exception as error:
            file.write(f"{len(lines)} {type(error).__name__}\\n")
            raise
        file.write(f"{len(lines)} fits\\n")
    ones = activations[:, 0].tolist()
    return "\\n".join(str(int(one) * len(line)) for one, line in zip(ones, lines))
"""


def test_a_mini_batch_that_torch_has_no_memory_for_is_halved_and_the_size_that_fits_is_remembered(workspace):
    """256 records need 1 GiB, of which there are 0.3."""
    model = workspace.folder / "model"
    model.mkdir()
    (model / "inference.py").write_text(HUNGRY)
    records = RECORDS[:1500]
    workspace.write("a.jsonl", b"\n".join(records))
    environment = {"REQUESTS": str(workspace.requests), "LIMIT_BYTES": str(300 * 2**20)}
    result = run(
        workspace,
        Model={"SourceDir": str(model), "Environment": environment},
        Rayxform__MaxRecordsPerBatch=256,
        DataProcessing__JoinSource="Input",
    )
    assert (result.status, result.records) == ("Completed", 1500), result.failure_reason
    expected = [b'{"SageMakerOutput":%d,%s\n' % (len(record), record[1:]) for record in records]
    assert workspace.outputs() == {"a.jsonl.out": b"".join(expected)}
    log = [line.split() for line in (workspace.requests / "log").read_text().splitlines()]
    failures = [(int(n), kind) for n, kind in log if kind != "fits"]
    assert [n for n, _ in failures] == [256, 128]
    assert {kind for _, kind in failures} == {"RuntimeError"}
    assert sum(int(n) for n, kind in log if kind == "fits") == 1500
    assert result.requests == len(log)


def test_one_record_that_memory_does_not_hold_is_an_error_with_a_remedy(workspace):
    model = workspace.folder / "model"
    model.mkdir()
    (model / "inference.py").write_text(
        "def model_fn(d): pass\n"
        "def transform_fn(m, b, t, a):\n"
        "    lines = b.split(b'\\n')\n"
        "    if b'huge' in b: bytearray(2**60)\n"
        "    return '\\n'.join(str(len(line)) for line in lines)\n"
    )
    records = poisoned(b"huge", 3, records=RECORDS[:9])
    workspace.write("a.jsonl", b"\n".join(records))
    result = run(workspace, Model={"SourceDir": str(model)})
    assert result.status == "Failed"
    assert (
        f"a.jsonl: record 4 (byte {len(b'.'.join(records[:3])) + 1}): transform_fn raised MemoryError" in result.failure_reason
    )
    assert "one record alone is too much for the memory there is; run fewer workers" in result.failure_reason
