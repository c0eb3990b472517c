"""Whatever is sent, the endpoint answers as AWS does: no 500, no hang."""

import http.client
import json
import subprocess

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

OPERATIONS = [
    "AddTags", "CreateModel", "CreateTransformJob", "DeleteModel", "DeleteTags", "DescribeModel", "DescribeTransformJob",
    "ListModels", "ListTags", "ListTransformJobs", "StopTransformJob",
]  # fmt: skip
SHAPES = ServiceModel(Loader().load_service_model("sagemaker", "service-2"))
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
TEXTS = st.sampled_from(
    ["", "a", "-", "..", "../../etc/passwd", "s3://b/k", "s3://b/x::file:///etc", "$(id)", "a\0b", "ä" * 70, "x" * 2000]
)


def member(shape, depth=0):
    """Mostly what the shape asks for, and sometimes anything."""
    if depth > 5:
        return ANYTHING
    match shape.type_name:
        case "structure":
            parts = {name: member(inner, depth + 1) for name, inner in shape.members.items()}
            required = {name: parts[name] for name in shape.required_members}
            optional = {name: part for name, part in parts.items() if name not in required}
            wanted = st.fixed_dictionaries(required, optional=optional)
        case "list":
            wanted = st.lists(member(shape.member, depth + 1), max_size=3)
        case "map":
            wanted = st.dictionaries(st.text(max_size=20), member(shape.value, depth + 1), max_size=3)
        case "string":
            wanted = st.sampled_from(shape.enum) if shape.enum else TEXTS | st.text(max_size=20)
        case "integer" | "long":
            wanted = st.integers(-5, 200)
        case "timestamp":
            wanted = st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 2**33)
        case _:
            wanted = st.booleans()
    return st.one_of(wanted, wanted, wanted, wanted, ANYTHING)


def send(server, body, headers):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    try:
        connection.request("POST", "/", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_any_members_get_an_answer_of_aws(fuzzed, operation):
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
    @given(member(SHAPES.operation_model(operation).input_shape))
    def run(members):
        status, body = send(
            fuzzed, json.dumps(members).encode("utf-8", "surrogatepass"), {"X-Amz-Target": f"SageMaker.{operation}"}
        )
        assert status in (200, 400), (status, body)
        if status == 400:
            answer = json.loads(body)
            assert answer.keys() == {"__type", "message"}
            assert answer["__type"] in (
                "ValidationException", "SerializationException", "ResourceInUse", "AccessDeniedException"
            )  # fmt: skip

    run()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60), st.booleans())
def test_any_bytes_and_headers_get_an_answer_of_aws(fuzzed, body, text, is_target):
    headers = {"X-Amz-Target": text if is_target else "SageMaker.ListModels", "Authorization": text, "Content-Type": text}
    status, answer = send(fuzzed, body, headers)
    assert status in (200, 400)
    if status == 400:
        assert json.loads(answer)["__type"] in ("SerializationException", "UnknownOperationException", "ValidationException")


def test_nothing_was_started_and_nothing_is_left_but_what_was_asked_for(fuzzed):
    """Jobs that the fuzzer managed to create have failed with a reason, and the server still answers."""
    client = fuzzed.client()
    for summary in client.list_transform_jobs(MaxResults=100)["TransformJobSummaries"]:
        assert summary["TransformJobName"].replace("-", "").isalnum()
    folders = subprocess.run(
        ["find", str(fuzzed.state.parent), "-maxdepth", "1"], capture_output=True, text=True
    ).stdout.split()
    assert {path.rpartition("/")[2] for path in folders[1:]} == {"state", "settings.json", "log"}
    assert "Traceback" not in fuzzed.log()


@pytest.fixture(scope="module")
def fuzzed(start_server):
    return start_server()
