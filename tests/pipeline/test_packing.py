"""How records become requests, by size: planned, and for a sample sent to a model through Ray."""

import pytest

from rayxform.core.framing import recordio_frame, tfrecord_frame
from rayxform.pipeline.inspecting import plan_requests
from rayxform.pipeline.run import run_plan
from tests.support import cases

FRAMES = {"TFRecord": tfrecord_frame, "RecordIO": recordio_frame, "Line": lambda record: record + b"\n", "None": bytes}
CASES = cases("packing")


def write_objects(workspace, case):
    """The objects of a case, each a list of its records."""
    frame = FRAMES[case.get("job", {}).get("TransformInput__SplitType", "Line")]
    sizes = case["sizes"] if isinstance(case["sizes"][0], list) else [case["sizes"]]
    for number, records in enumerate(sizes):
        workspace.write(str(number), b"".join(frame(b"x" * size) for size in records))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["source"])
def test_case(workspace, case):
    write_objects(workspace, case)
    plan = workspace.plan(TransformInput__ContentType="application/octet-stream", **case.get("job", {}))
    files = plan_requests(plan).files
    assert [count for file in files for count in file.records_per_request] == case["requests"]
    errors = [error for file in files for error in file.errors]
    assert len(errors) == ("error" in case)
    assert all(case["error"] in error for error in errors)


@pytest.mark.parametrize("case", [case for case in CASES if case.get("run")], ids=lambda case: case["source"])
def test_what_is_planned_is_sent(workspace, ray_address, case):
    write_objects(workspace, case)
    members = {"TransformInput__ContentType": "application/octet-stream", "Model__Environment__ECHO": "1"}
    result = run_plan(workspace.plan(**members, TransformOutput__Accept="x/y", **case.get("job", {})), workers=1)
    assert (result.status, result.requests, result.records) == ("Completed", len(case["requests"]), sum(case["requests"]))
    sent = workspace.sent()
    assert len(sent) == len(case["requests"])
    assert b"".join(workspace.outputs().values()) == b"".join(sent)
