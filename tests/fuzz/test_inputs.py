"""Manifests, filters and request bodies from anybody: a result or an error of ours, and nothing in them runs."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from rayxform.errors import InvocationError, ModelLoadError
from rayxform.model.codecs import default_input_fn, default_model_fn
from tests.fuzz.examples import examples
from tests.fuzz.targets import read_body, read_manifest, select

NAMES = [
    "there",
    "there.gz",
    "folder/there",
    "missing",
    "../secret",
    "folder/../there",
    "/there",
    "",
    "a\0b",
    "\ud800",
    "x" * 5000,
]
NAMES += ["folder", "folder/", "*", "there?", "[t]here", ".", "..", "//there", "é", "\n", "%2e%2e/secret", "#", "there/x"]
ODD = [None, 1, 1e308, True, [], {}, {"prefix": 1}, {"prefix": ""}, {"x": []}, "s3://", "http://[", "nosuch://x/", "zip://x::"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with objects in it, and a file that no manifest may name."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "data" / "folder").mkdir(parents=True)
    for name in ("data/there", "data/there.gz", "data/folder/there", "secret"):
        (folder / name).write_text("1")
    return folder


@st.composite
def manifests(draw, folder):
    """A manifest of a prefix and names that are nearly right, as JSON that is nearly right."""
    prefix = draw(st.sampled_from([f"{folder}/data/", f"file://{folder}/data/", f"{folder}/data", "memory://x/", f"{folder}/"]))
    first = draw(st.just({"prefix": prefix}) | st.sampled_from(ODD))
    text = json.dumps([first, *draw(st.lists(st.sampled_from(NAMES * 2 + ODD), max_size=4))])
    piece = draw(st.sampled_from(["", "", "", "[" * 3000, "]", '"', "\\ud800", "\x00", "1e999", "{", ","]))
    at = draw(st.integers(0, len(text)))
    return (text[:at] + piece + text[at:]).encode() + draw(st.sampled_from([b"", b"", b"", b"\xff", b"\xef\xbb\xbf"]))


listed = []


@given(st.data())
@examples(200)
def test_a_manifest_names_objects_or_is_refused(inputs, data):
    listed.append(read_manifest(data.draw(manifests(inputs)), inputs))
    event(f"named objects: {listed[-1]}")


STEPS = [
    ".a",
    ".b",
    "['a']",
    "['a','b']",
    '["a"]',
    "[0]",
    "[-1]",
    "[0,1]",
    "[1:]",
    "[:-1]",
    "[:]",
    "[*]",
    ".*",
    "*",
    "[::2]",
    "..",
]
STEPS += [
    "[99999999999999999999]",
    "[-99999999999999999999:]",
    "[" + "9" * 5000 + "]",
    ".`this`",
    "[?(@.a)]",
    "|",
    "&",
    "(",
    ")",
    "\0",
]
STEPS += [
    "['",
    "']",
    "\\",
    "'",
    '"',
    "[",
    "]",
    ",",
    ":",
    " ",
    "\n",
    "é",
    "['é\\'']",
    "['\\u00e9']",
    "$",
    "@",
    "-",
    "1",
    ".1",
    "\ud800",
]
STEPS += [".a" * 400, "[0]" * 400, "[" * 400]
expressions = st.tuples(st.sampled_from(["$", "$", "$", "$", ""]), st.lists(st.sampled_from(STEPS), max_size=5)).map(
    lambda parts: parts[0] + "".join(parts[1])
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "é", "\ud800", "x" * 100]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "é", ""]), inner, max_size=3),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())
DEEP = [b"[" * 900 + b"]" * 900, b'{"a":' * 900 + b"1" + b"}" * 900, b"[" * 3000 + b"]" * 3000]
selected = []


@given(expressions | st.text(max_size=20), values | st.sampled_from(DEEP) | st.binary(max_size=20))
@examples(200)
def test_a_filter_selects_something_or_says_why_not(expression, value):
    selected.append(select(expression, value))
    event(f"selected something: {selected[-1]}")


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


class Creates:
    """What a pickle of it does when it is loaded: it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


BODIES = [
    npy(np.zeros(3)),
    npy(np.zeros((2, 3), np.int8)),
    npy(np.array(["a", "b"])),
    npy(np.zeros(2, ">f4")),
    npy(np.float32(1)),
]
BODIES += [npy(np.zeros(2, [("a", "i4"), ("b", "f8")])), npy(np.array([None])), npy(np.array(["2020-01-01"], "M8[D]")), b""]
BODIES += [
    b"[1, 2]",
    b"1,2\n3,4",
    b'{"a": 1}',
    b"[[1], [2, 3]]",
    b"1e999",
    b"[" * 3000,
    b"PK\x03\x04",
    b"\x93NUMPY",
    b"1,x",
    b"NaN",
]
BODIES += [npy(np.zeros(3)).replace(b"(3,), ", b"(%d,), " % (10**n)) for n in (1, 6, 12, 18, 30)]
BODIES += [
    npy(np.zeros(3)).replace(b"'<f8'", spec)
    for spec in (b"'|O'", b"'<f9'", b"__import__('os')", b"[('a','O')]", b"'|V9'", b"3")
]
TYPES = ["application/x-npy", "application/json", "text/csv", "application/jsonlines", "application/x-tfexample", "text/plain"]
pieces = st.sampled_from(
    [b"", b"9", b"-", b"(", b"'", b"\xff", b"O", b"\n", b",", b"[", b"1e400", b"0x", b"_", b"\x00", b"," * 99]
)
decoded = []


@given(st.sampled_from(BODIES), pieces, st.integers(0, 200), st.integers(0, 3), st.sampled_from(TYPES + TYPES[:1] * 5))
@examples(200)
def test_a_body_is_decoded_or_refused(body, piece, at, removed, content_type):
    decoded.append(read_body(body[:at] + piece + body[at + removed :] if piece else body, content_type))
    event(f"decoded: {decoded[-1]}")


def test_data_of_both_kinds_were_seen():
    assert all({True, False} == set(seen) for seen in (listed, selected, decoded))


def test_no_pickle_in_a_body_is_loaded(tmp_path):
    bodies = [npy(np.array([Creates(tmp_path / "created")], dtype=object)), pickle.dumps(Creates(tmp_path / "created"))]
    for body in bodies:
        for content_type in TYPES[:-1]:
            with pytest.raises(InvocationError):
                default_input_fn(body if content_type not in TYPES[1:3] else body.decode("latin-1"), content_type)
    assert list(tmp_path.iterdir()) == []
    pickle.loads(bodies[1])
    assert [path.name for path in tmp_path.iterdir()] == ["created"]  # it would have done so


def test_no_pickle_in_a_model_is_loaded_by_the_default_model_fn(tmp_path):
    import torch

    model = tmp_path / "model"
    model.mkdir()
    for save in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))):
        save(Creates(tmp_path / "created"), model / "model.pt")
        with pytest.raises(ModelLoadError):
            default_model_fn(str(model))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
