"""A model server that answers anything at all: each request ends with an answer or an error of ours."""

import gzip

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from tests.fuzz.examples import examples
from tests.fuzz.targets import ask, raw_server

STATUS = [
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 200",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 404 Not Found",
    b"HTTP/1.1 500 x",
    b"HTTP/1.1 429 x",
]
STATUS += [
    b"HTTP/1.1 301 Moved",
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 999 x",
    b"HTTP/1.1 0 x",
    b"HTTP",
]
STATUS += [
    b"HTTP/2 200",
    b"HTTP/9.9 200 OK",
    b"HTTP/1.1 -1 x",
    b"HTTP/1.1 2\xb2 x",
    b"HTTP/1.1 200 \xff\xfe",
    b"",
    b"ICY 200 OK",
]
STATUS += [
    b"HTTP/1.1 101 Switching Protocols",
    b"HTTP/1.1 413 x",
    b"HTTP/1.1 99999999999999999999 x",
    b"\x16\x03\x01",
    b"HTTP/1.1",
]
HEADERS = [b"Content-Type: application/json", b"Content-Type: \xff", b"Content-Type: a/b; charset=nope", b"Connection: close"]
HEADERS += [b"Location: http://127.0.0.1:1/", b"Location: file:///etc/passwd", b"Location: \xff", b"Transfer-Encoding: chunked"]
HEADERS += [b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: \xff", b"Content-Encoding: gzip", b"Content-Encoding: br"]
HEADERS += [
    b"Content-Encoding: deflate",
    b"Content-Encoding: zstd",
    b"Content-Length: 5",
    b"Content-Length: 99999999999999999999",
]
HEADERS += [b"Content-Length: -1", b"Content-Length: 0x5", b"Content-Length: +5", b"Content-Length: 5, 6", b"Content-Length: "]
HEADERS += [b"Content-Length: 0", b"Set-Cookie: a=b; expires=\xff", b"X: " + b"y" * 9000, b"no colon", b": no name", b" folded"]
HEADERS += [b"X\x00: y", b"X: \x00", b"X: a\rb", b"Keep-Alive: timeout=-1", b"Upgrade: websocket", b"X: y\r\n" * 200 + b"X: y"]
BODIES = [
    b"",
    b"[1,2]",
    b"[1,2,3]",
    b"1\n2\n",
    b'"1\\n2"',
    b"[" * 3000,
    b"{",
    b"\xff\xfe",
    b"null",
    b"[1,",
    b'{"MaxPayloadInMB": 6}',
]
BODIES += [
    b'{"MaxPayloadInMB": 1e9}',
    b'{"MaxPayloadInMB": "x"}',
    b'{"BatchStrategy": 1}',
    b'{"MaxConcurrentTransforms": -1}',
    b'"\\ud800"',
]
BODIES += [b'{"x":' + b"[" * 3000 + b"]" * 3000 + b"}", b'{"x": "\xff"}', b"x" * 100_000, gzip.compress(b"[1,2]"), b"[[1],[2]]"]
BODIES += [gzip.compress(b"[1,2]")[:-5], gzip.compress(bytes(10**6)), b'{"MaxPayloadInMB":' + b"9" * 5000 + b"}"]
CHUNKED = [
    b"5\r\n[1,2]\r\n0\r\n\r\n",
    b"5\r\n[1,2]\r\n",
    b"ffffffffffffffff\r\nx",
    b"-5\r\nx",
    b"5;x=y\r\n[1,2]\r\n0\r\nX: y\r\n\r\n",
]
CHUNKED += [
    b"zz\r\n",
    b"5\n[1,2]\n0\n\n",
    b"5\r\n[1,2]0\r\n\r\n",
    b"0\r\n" + b"X: y\r\n" * 500,
    b"1" * 20_000,
    b"0x5\r\n[1,2]\r\n0\r\n\r\n",
]


@st.composite
def responses(draw) -> bytes:
    """A response that is nearly one, of a status line, headers and a body that may all lie."""
    body = draw(st.sampled_from(BODIES) | st.sampled_from(CHUNKED) | st.binary(max_size=20))
    headers = draw(st.lists(st.sampled_from(HEADERS), max_size=4))
    if draw(st.booleans()):
        headers.append(b"Content-Length: %d" % (len(body) + draw(st.sampled_from([0, 0, 0, 1, -1, 100]))))
    status = draw(st.sampled_from([b"HTTP/1.1 200 OK"] * 12 + STATUS) | st.binary(max_size=10))
    end = draw(st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r", b"\r\n\r\n"]))
    whole = end.join([status, *headers, b"", body]) * draw(st.sampled_from([1, 1, 1, 2]))
    return whole[: draw(st.integers(0, len(whole)))] if not draw(st.integers(0, 6)) else whole


@pytest.fixture(scope="module")
def pair():
    with raw_server() as pair:
        yield pair


answered = []


@example(b'HTTP/1.1 200 OK\r\n\r\n{"x":' + b"[" * 3000 + b"]" * 3000 + b"}", 1)
@given(responses() | st.binary(max_size=60), st.integers(1, 3))
@examples(200)
def test_a_server_answers_or_there_is_an_error_of_ours(pair, response, n_records):
    answered.append(ask(*pair, response, n_records))
    event(f"answered: {answered[-1]}")


def test_answers_of_both_kinds_were_seen():
    assert {True, False} == set(answered)
