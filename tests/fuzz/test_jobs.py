"""A job file from anybody: it is a job, or a list of what is wrong with it; nothing in it runs or fills the memory."""

import json
import tracemalloc

import pytest
import yaml
from hypothesis import event, given
from hypothesis import strategies as st

from rayxform.errors import JobFileError
from rayxform.spec import job_schema, load_job
from tests.fuzz.examples import examples
from tests.fuzz.targets import read_job

VALID = {
    "TransformJobName": "job",
    "Model": {"SourceDir": "model", "Environment": {"A": "b"}},
    "MaxPayloadInMB": 6,
    "BatchStrategy": "MultiRecord",
    "TransformInput": {
        "DataSource": {"S3DataSource": {"S3Uri": "s3://bucket/in/", "S3DataType": "S3Prefix"}},
        "ContentType": "application/jsonlines",
        "SplitType": "Line",
    },
    "TransformOutput": {"S3OutputPath": "s3://bucket/out/", "Accept": "application/jsonlines", "AssembleWith": "Line"},
    "DataProcessing": {"InputFilter": "$[:-1]", "JoinSource": "Input", "OutputFilter": "$['SageMakerOutput','id']"},
    "Rayxform": {"OnRecordError": "skip", "Partition": {"By": ["$.date"], "Format": "parquet"}},
}


def names_in(node):
    """Every member's name in a schema."""
    for name, inner in node.get("properties", {}).items():
        yield name
        yield from names_in(inner)


SCHEMA = job_schema()
NAMES = sorted({*names_in(SCHEMA), *(name for inner in SCHEMA.get("$defs", {}).values() for name in names_in(inner))})
WORDS = [
    "Line",
    "None",
    "MultiRecord",
    "$",
    "$.a",
    "$[0]",
    "s3://b/k",
    "file:///x",
    "http://[::1",
    "text/csv",
    "",
    " ",
    "\ud800",
]
WORDS += [
    "application/json",
    "A" * 3000,
    "\0",
    "é",
    "1",
    "true",
    "0x10",
    "../..",
    "https://user:pw@host:99999/",
    "python 'x",
    "-",
]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, 100, 101, 2**31, 2**63, 2**64, -1, 10**400, 1e308, 0.5]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(WORDS),
    st.text(max_size=10),
)
names = st.sampled_from([*NAMES, "[key]", "[", "0"]) | st.text(max_size=5)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5), max_leaves=20
)


def places_in(node, path=()):
    yield path
    if isinstance(node, dict):
        for name, inner in node.items():
            yield from places_in(inner, (*path, name))


PLACES = [path for path in places_in(VALID) if path]


def changed(node, path, value):
    name, *rest = path
    inner = node.get(name) if isinstance(node, dict) else None
    both = {**(node if isinstance(node, dict) else {}), name: changed(inner, rest, value) if rest else value}
    return both


@st.composite
def members(draw):
    """A valid job with some of its members replaced, or any value at all."""
    if not draw(st.integers(0, 5)):
        return draw(trees)
    job = VALID
    for path in draw(st.lists(st.sampled_from(PLACES), max_size=3)):
        more = [draw(names)] if not draw(st.integers(0, 4)) else []
        job = changed(job, [*path, *more], draw(trees))
    return job


YAML = ["&a ", "*a", "<<: *a\n", "<<: [*a, *a]\n", "!!python/object/apply:os.system [touch x]", "!!binary aGk=", "!!set {a}"]
YAML += [
    "? [a]\n: b\n",
    "? {a: b}\n: c\n",
    "? *a\n: b\n",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "%TAG ! x:\n",
    "\t",
    "|\n",
    ">-\n",
    "- ",
]
YAML += [
    "[",
    "]",
    "{",
    "}",
    ",",
    ": ",
    "\n",
    "  ",
    "#",
    "'",
    '"',
    "@",
    "`",
    "&",
    "*",
    "!",
    "!!float .nan",
    "!<x> ",
    "a: &a [*a]\n",
]
YAML += ["\x00", "\ufeff", "\x85", "\u2028", "1e400", "0o7", "1_000", "[" * 2000, "{a: " * 2000, "- " * 2000, "9" * 5000]
YAML += ["a: &a {b: c}\n", "MaxPayloadInMB: 1\n", '{"a": ', "\\ud800", "NaN", "null"]


@st.composite
def job_texts(draw):
    """A job file: JSON or YAML of nearly valid members, and often with pieces of YAML in it."""
    tree = draw(members())
    if draw(st.booleans()):
        text = json.dumps(tree, indent=draw(st.sampled_from([None, 2])), ensure_ascii=draw(st.booleans()))
    else:
        try:
            text = yaml.safe_dump(tree, allow_unicode=True, default_flow_style=draw(st.sampled_from([None, False, True])))
        except (yaml.YAMLError, UnicodeError):
            text = json.dumps(tree)
    for piece in draw(st.lists(st.sampled_from(YAML), max_size=3 if draw(st.booleans()) else 0)):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + piece + text[at + draw(st.integers(0, 3)) :]
    return text


taken = []


@given(job_texts())
@examples(250)
def test_a_text_is_a_job_or_a_list_of_problems(text):
    taken.append(read_job(text))
    event(f"a job: {taken[-1]}")


@given(st.lists(st.sampled_from(YAML) | st.text(max_size=3), max_size=12).map("".join))
@examples(200)
def test_pieces_of_yaml_are_a_list_of_problems(text):
    taken.append(read_job(text))


def test_texts_of_both_kinds_were_seen():
    assert {True, False} == set(taken)


LEVELS = range(1, 10)
BOMBS = {
    "lists in lists": "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in LEVELS),
    "mappings merged": "a0: &a0 {k: x}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in LEVELS),
    "a name for many": "a: &a " + "x" * 100_000 + "\nb: [" + "*a, " * 3000 + "]\n",
    "itself": "a: &a [*a]\n",
    "itself, merged": "a: &a {<<: *a}\n",
    "itself, as a name": "? &a [*a]\n: b\n",
}


@pytest.mark.parametrize("below", ["", "Model:\n  Environment:\n    "])
@pytest.mark.parametrize("what", BOMBS)
def test_an_alias_does_not_multiply_what_it_stands_for(what, below):
    text = below + BOMBS[what].replace("\n", "\n    ") if below else BOMBS[what]
    tracemalloc.start()
    with pytest.raises(JobFileError) as caught:
        load_job(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(str(caught.value)) < 100_000
    assert peak < 64 * 2**20


def test_no_tag_of_yaml_makes_an_object_of_python(tmp_path):
    with pytest.raises(JobFileError):
        load_job(
            f"TransformJobName: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{tmp_path}/x']]"
        )
    assert list(tmp_path.iterdir()) == []
