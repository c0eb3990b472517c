"""Who may call: Signature Version 4, verified as AWS does, and nothing started by whoever is refused."""

import hashlib
import json
import time
from datetime import datetime, timezone
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from rayxform.errors import RequestRefusedError
from rayxform.server.signatures import SignedRequest, verify

KEYS = {"AKIDEXAMPLE": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}


def signed(body=b"{}", *, key="AKIDEXAMPLE", secret=KEYS["AKIDEXAMPLE"], service="sagemaker", more=None, at=None):
    """The headers of a request that botocore signs, by their names in lower case."""
    request = AWSRequest(
        "POST", "http://127.0.0.1:8750/", data=body, headers={"X-Amz-Target": "SageMaker.ListModels", **(more or {})}
    )
    auth = SigV4Auth(Credentials(key, secret), service, "eu-west-1")
    if at is None:
        auth.add_auth(request)
    else:
        stamp = datetime.fromtimestamp(at, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        request.context["timestamp"] = stamp
        request.headers["X-Amz-Date"] = stamp
        text = auth.string_to_sign(request, auth.canonical_request(request))
        auth._inject_signature_to_request(request, auth.signature(text, request))
    return {"host": "127.0.0.1:8750", **{name.lower(): value for name, value in request.headers.items()}}


def refusal(headers, body=b"{}", path="/", query="", now=None):
    """The code that a request is refused with, or None."""
    try:
        verify(SignedRequest(path, query, headers, body), KEYS, time.time() if now is None else now)
    except RequestRefusedError as error:
        return error.code
    return None


def test_what_botocore_signs_is_taken():
    assert refusal(signed()) is None
    assert refusal(signed(b""), b"") is None
    assert refusal(signed(more={"X-Amz-Content-SHA256": hashlib.sha256(b"{}").hexdigest()})) is None


def test_the_published_example_is_taken():
    """AWS, "Signature Version 4 test suite", post-vanilla, with sagemaker's service in place of "service"."""
    at = datetime(2015, 8, 30, 12, 36, tzinfo=timezone.utc).timestamp()
    assert refusal(signed(at=at), now=at + 299) is None


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("MissingAuthenticationTokenException", lambda: {k: v for k, v in signed().items() if k != "authorization"}),
        ("IncompleteSignatureException", lambda: signed() | {"authorization": "Bearer abc"}),
        ("IncompleteSignatureException", lambda: signed() | {"authorization": "AWS4-HMAC-SHA256 Credential=a"}),
        ("IncompleteSignatureException", lambda: signed() | {"x-amz-date": "now"}),
        ("UnrecognizedClientException", lambda: signed(key="AKIDOTHER")),
        ("InvalidSignatureException", lambda: signed(secret="wrong")),
        ("InvalidSignatureException", lambda: signed(service="s3")),
        ("InvalidSignatureException", lambda: signed(at=time.time() - 301)),
        ("InvalidSignatureException", lambda: signed(at=time.time() + 310)),
        ("InvalidSignatureException", lambda: signed() | {"x-amz-target": "SageMaker.DeleteModel"}),
        ("InvalidSignatureException", lambda: signed() | {"host": "elsewhere"}),
        ("InvalidSignatureException", lambda: signed() | {"x-amz-security-token": "unsigned"}),
        ("InvalidSignatureException", lambda: signed(more={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})),
    ],
    ids=range(13),
)
def test_what_is_not_signed_rightly_is_refused(code, make):
    assert refusal(make()) == code


def test_what_was_altered_is_refused():
    headers = signed()
    assert refusal(headers, b'{"NextToken": "x"}') == "InvalidSignatureException"
    assert refusal(headers, query="a=b") == "InvalidSignatureException"
    assert refusal(headers, path="/other") == "InvalidSignatureException"
    for at in range(len(headers["authorization"]) - 64, len(headers["authorization"])):
        text = headers["authorization"]
        flipped = text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :]
        assert refusal(headers | {"authorization": flipped}) == "InvalidSignatureException"


@pytest.fixture(scope="module")
def guarded(start_server):
    """A server with keys, which may listen beyond this machine, and jobs below one bucket."""
    return start_server({"Keys": KEYS, "AllowedPrefixes": ["s3://allowed/in", "s3://allowed/out/"]}, "--host", "0.0.0.0")


def post(server, headers, body):
    url = server.url.replace("0.0.0.0", "127.0.0.1")
    try:
        with urlopen(Request(url, body, headers), timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_stock_client_with_the_key_may_call_and_with_another_not(guarded):
    guarded.url = guarded.url.replace("0.0.0.0", "127.0.0.1")
    assert guarded.client().list_models()["Models"] == []
    for changes, code in (
        ({"aws_secret_access_key": "wrong"}, "InvalidSignatureException"),
        ({"aws_access_key_id": "AKIDOTHER"}, "UnrecognizedClientException"),
    ):
        with pytest.raises(ClientError) as refused:
            guarded.client(**changes).create_model(ModelName="m", PrimaryContainer={"ModelDataUrl": "s3://allowed/in/m.tar.gz"})
        assert refused.value.response["Error"]["Code"] == code
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert guarded.client().list_models()["Models"] == []


def test_an_altered_body_and_no_signature_start_nothing(guarded):
    body = b'{"ModelName": "m", "PrimaryContainer": {"ModelDataUrl": "s3://allowed/in/m.tar.gz"}}'
    headers = {"X-Amz-Target": "SageMaker.CreateModel", "Content-Type": "application/x-amz-json-1.1"}
    status, answer = post(guarded, headers, body)
    assert (status, answer["__type"]) == (403, "MissingAuthenticationTokenException")
    request = AWSRequest("POST", guarded.url.replace("0.0.0.0", "127.0.0.1") + "/", data=body, headers=headers)
    SigV4Auth(Credentials(*next(iter(KEYS.items()))), "sagemaker", "us-east-1").add_auth(request)
    status, answer = post(guarded, dict(request.headers), body.replace(b'"m"', b'"n"'))
    assert (status, answer["__type"]) == (403, "InvalidSignatureException")
    assert guarded.client().list_models()["Models"] == []


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("input", "s3://elsewhere/in"),
        ("input", "s3://allowed/inside"),
        ("output", "s3://allowed/other"),
        ("output", "s3://allowed/outer/"),
        ("capture", "s3://elsewhere/"),
        ("model", "s3://elsewhere/m.tar.gz"),
    ],
)
def test_a_job_outside_of_the_prefixes_is_refused_and_not_started(guarded, place, url):
    client = guarded.client()
    places = {
        "input": "s3://allowed/in/a",
        "output": "s3://allowed/out",
        "capture": "s3://allowed/out/c",
        "model": "s3://allowed/in/m",
    }
    places[place] = url
    name = hashlib.sha256(url.encode()).hexdigest()[:10]
    client.create_model(ModelName=name, PrimaryContainer={"ModelDataUrl": places["model"]})
    with pytest.raises(ClientError, match="may be read or written") as refused:
        client.create_transform_job(
            TransformJobName=name,
            ModelName=name,
            TransformInput={"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": places["input"]}}},
            TransformOutput={"S3OutputPath": places["output"]},
            DataCaptureConfig={"DestinationS3Uri": places["capture"]},
            TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        )
    assert refused.value.response["Error"]["Code"] == "AccessDeniedException"
    assert client.list_transform_jobs()["TransformJobSummaries"] == []


def test_a_server_without_keys_does_not_listen_beyond_this_machine(tmp_path):
    import subprocess
    import sys

    command = [
        sys.executable,
        "-m",
        "rayxform",
        "serve",
        "--host",
        "0.0.0.0",
        "--port",
        "0",
        "--state",
        str(tmp_path / "state"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "--host 0.0.0.0 can be reached from other machines" in ended.stderr
    assert not (tmp_path / "state").exists()
