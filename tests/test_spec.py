"""The job: every rule of contract §1 and §9 as data, and what holds for any job at all."""

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayxform.errors import JobFileError
from rayxform.spec import TransformJob, job_schema, load_job, parse_job, to_members
from tests.support import cases

BASE_JOB = {
    "TransformInput": {"DataSource": {"S3DataSource": {"S3Uri": "in/"}}},
    "TransformOutput": {"S3OutputPath": "out"},
    "Model": {"ModelDataUrl": "model.tar.gz"},
}
CASES = cases("spec")
REFUSED = [case for case in CASES if "errors" in case]
SCHEMA = job_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def members_of(case):
    return case["job"] if "job" in case else {**BASE_JOB, **case.get("job_member", {})}


def load_case(case):
    return load_job(json.dumps(members_of(case)), base="/jobs", overrides=case.get("set", []))


def problems_of(load, *arguments, **options):
    with pytest.raises(JobFileError) as caught:
        load(*arguments, **options)
    return caught.value.problems


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["source"])
def test_case(case):
    if "errors" in case:
        problems = {problem.path: str(problem) for problem in problems_of(load_case, case)}
        assert problems.keys() == case["errors"].keys()
        for path, words in case["errors"].items():
            assert words in problems[path]
    else:
        job = load_case(case)
        assert {name: getattr(job, name) for name in case["ok"]} == case["ok"]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["source"])
def test_a_refusal_tells_place_limit_and_remedy_on_a_line_of_its_own(case):
    with pytest.raises(JobFileError) as caught:
        load_case(case)
    for problem in caught.value.problems:
        assert problem.path
        assert problem.limit
        assert problem.remedy
        assert str(problem) in str(caught.value)
        assert "\n" not in str(problem).split("\n    ")[0]


@pytest.mark.parametrize("case", [case for case in CASES if "ok" in case], ids=lambda case: case["source"])
def test_members_go_back_and_forth(case):
    job = load_case(case)
    members = to_members(job)
    assert parse_job(members, base="/elsewhere") == job
    VALIDATOR.validate(members)


def test_members_that_were_left_out_stay_out():
    assert to_members(parse_job(BASE_JOB, base="/jobs")) == {
        "TransformInput": {"DataSource": {"S3DataSource": {"S3Uri": "/jobs/in/"}}},
        "TransformOutput": {"S3OutputPath": "/jobs/out"},
        "Model": {"ModelDataUrl": "/jobs/model.tar.gz"},
    }


def test_a_job_cannot_be_changed():
    job = parse_job(BASE_JOB)
    with pytest.raises(AttributeError):
        job.members = None
    job.environment["A"] = "b"
    assert job.environment == {}


@pytest.mark.parametrize(
    "member",
    [
        {"MaxPayloadInMb": 1},
        {"MaxPayloadInMB": 101},
        {"MaxPayloadInMB": "6"},
        {"Environment": {"1A": ""}},
        {"Model": {"ModelDataURL": "m"}},
        {"Rayxform": {"Precision": "fp16"}},
        {"Rayxform": {"Partition": {"By": [], "Format": "parquet"}}},
        {"TransformInput": {"DataSource": {"S3DataSource": {}}}},
    ],
    ids=json.dumps,
)
def test_the_schema_refuses_what_the_loader_refuses(member):
    job = {**BASE_JOB, **member}
    assert not VALIDATOR.is_valid(job)
    assert problems_of(parse_job, job)


def test_the_schema_is_valid_closed_and_described_throughout():
    VALIDATOR.check_schema(SCHEMA)
    objects = [SCHEMA, *SCHEMA["$defs"].values()]
    assert all(node["additionalProperties"] is False for node in objects)
    members = [(name, node) for shape in objects for name, node in shape["properties"].items()]
    assert all(shape["description"] for shape in objects)
    assert [name for name, node in members if not {"description", "$ref"} & node.keys()] == []
    assert {"TransformInput", "TransformOutput", "Model"} == set(SCHEMA["required"])
    required = [shape["properties"][name] for shape in objects for name in shape.get("required", [])]
    assert all(node["examples"] for node in required)


def test_the_schema_is_the_callers_to_change():
    job_schema()["properties"].clear()
    assert job_schema() == SCHEMA


def test_every_example_of_the_schema_is_taken_by_it():
    for shape in [SCHEMA, *SCHEMA["$defs"].values()]:
        for node in shape["properties"].values():
            closed = {**node, "$defs": SCHEMA["$defs"]}
            for example in node.get("examples", []):
                jsonschema.Draft202012Validator(closed).validate(example)


YAML = """
TransformInput:
  DataSource: {S3DataSource: {S3Uri: in}}
  SplitType: None  # a string, as AWS has it
TransformOutput: {S3OutputPath: ~/out/}
Model:
  ModelDataUrl: ../model.tar.gz
Rayxform:  # an empty block
MaxPayloadInMB: 1
Environment: {DATE: 2022-01-01, ON: yes, TIME: 12:30, ACCOUNT: 012345678901, HEX: 0x10, NIL: ""}
"""


def test_yaml_has_the_types_of_json_and_nothing_else(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    job = load_job(YAML, base="/jobs/digits")
    assert job.split_type == "None"
    assert job.max_payload_in_mb == 1
    assert (job.output_uri, job.model_data_url) == ("/home/me/out/", "/jobs/model.tar.gz")
    assert job.environment == {
        "DATE": "2022-01-01",
        "ON": "yes",
        "TIME": "12:30",
        "ACCOUNT": "012345678901",
        "HEX": "0x10",
        "NIL": "",
    }


ALIASED = """
Model: {SourceDir: src, Environment: &shared {A: a}}
Environment: *shared
TransformInput: {DataSource: {S3DataSource: {S3Uri: in}}}
TransformOutput: {S3OutputPath: out}
"""


def test_an_override_does_not_reach_through_a_yaml_alias():
    job = load_job(ALIASED, overrides=["Environment.B=b"])
    assert to_members(job)["Model"]["Environment"] == {"A": "a"}
    assert job.environment == {"A": "a", "B": "b"}


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('{"a": 1,\n "b" 2}', "job.json, line 2", "':' delimiter"),
        ('{"a": 1 "b"}', "job.json, line 1", "',' delimiter"),
        ('{"a": 1,\n "a": 2}', "job.json, line 2", "a is given twice"),
        ("a: 1\nb: [1\nc: 2", "job.json, line 3", "expected"),
        ("a: 1\na: 2", "job.json, line 2", "a is given twice"),
        ("a: !!timestamp 2022-01-01", "job.json, line 1", "could not determine a constructor"),
        ("a: !!python/object:os.system x", "job.json, line 1", "could not determine a constructor"),
        ('{"a": NaN}', "job.json", "NaN is not a JSON number"),
        ('{"a": ' + "9" * 5000 + "}", "job.json", "digits"),
        ("[" * 600, "job.json", "recursion"),
        ("a: *b", "job.json, line 1", "undefined alias"),
        ("a\x00: 1", "job.json", "special characters are not allowed"),
        ("", "job.json", "is missing"),
        ("[1]", "job.json", "an object with CreateTransformJob's members"),
        ("job", "job.json", "an object with CreateTransformJob's members"),
    ],
)
def test_what_cannot_be_parsed_names_file_and_line(text, place, words):
    (problem,) = problems_of(load_job, text, origin="job.json")
    assert problem.path == place
    assert words in str(problem)


def test_a_byte_order_mark_is_no_error():
    assert load_job("\ufeff" + json.dumps(BASE_JOB), base="/jobs") == parse_job(BASE_JOB, base="/jobs")


@pytest.mark.parametrize(
    ("location", "base", "absolute"),
    [
        ("in/", "/jobs", "/jobs/in/"),
        ("./a/../in", "/jobs/", "/jobs/in"),
        ("/data//in/", "/jobs", "/data/in/"),
        ("/", "/jobs", "/"),
        ("data/*.jsonl", "/jobs", "/jobs/data/*.jsonl"),
        ("~/in", "/jobs", "/home/me/in"),
        ("~", "/jobs", "/home/me"),
        ("~other/in", "/jobs", "/jobs/~other/in"),
        ("s3://bucket/./in/", "/jobs", "s3://bucket/./in/"),
        ("memory://in", "/jobs", "memory://in"),
        ("simplecache::s3://bucket/in", "/jobs", "simplecache::s3://bucket/in"),
        ("in/", "s3://bucket/jobs", "s3://bucket/jobs/in/"),
        ("/in", "s3://bucket/jobs", "/in"),
    ],
)
def test_plain_paths_start_from_the_job_file(monkeypatch, location, base, absolute):
    monkeypatch.setenv("HOME", "/home/me")
    source = {"TransformInput": {"DataSource": {"S3DataSource": {"S3Uri": location}}}}
    assert parse_job({**BASE_JOB, **source}, base=base).input_uri == absolute


def test_without_a_base_paths_start_from_the_current_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert parse_job(BASE_JOB).output_uri == str(Path.cwd() / "out")


def test_long_values_are_cut_in_messages():
    for value in ("x" * 10000, 10**5000, list(range(10000)), {"a": {"b": {"c": {}}}}):
        (problem,) = problems_of(parse_job, {**BASE_JOB, "MaxConcurrentTransforms": value})
        assert len(str(problem)) < 600


def test_a_fault_in_a_filter_is_told_beside_a_fault_elsewhere():
    job = {**BASE_JOB, "DataProcessing": {"InputFilter": "$..a"}, "MaxPayloadInMB": "1"}
    assert {problem.path for problem in problems_of(parse_job, job)} == {"DataProcessing.InputFilter", "MaxPayloadInMB"}


def test_importing_the_job_loads_nothing_heavy():
    heavy = "ray", "torch"
    code = f"import sys, rayxform.spec; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def all_places(node, path=()):
    yield path
    if isinstance(node, dict):
        for name, value in node.items():
            yield from all_places(value, (*path, name))


FULL_JOB = next(case["job"] for case in CASES if "every AWS member" in case["source"])
PLACES = [path for path in all_places(FULL_JOB) if path]
NAMES = st.sampled_from(sorted({path[-1] for path in PLACES})) | st.text(max_size=8)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def is_job_or_refused(load, *arguments, **options):
    try:
        job = load(*arguments, **options)
    except JobFileError as error:
        return bool(error.problems) and all(problem.path and problem.limit and problem.remedy for problem in error.problems)
    return isinstance(job, TransformJob)


@given(JSON_VALUES)
def test_any_json_is_a_job_or_refused(value):
    assert is_job_or_refused(load_job, json.dumps(value))
    assert is_job_or_refused(parse_job, value)


@given(st.lists(st.tuples(st.sampled_from(PLACES), JSON_VALUES), min_size=1, max_size=4), NAMES)
def test_a_job_with_members_replaced_and_one_added_is_a_job_or_refused(changes, name):
    job = deepcopy(FULL_JOB)
    for path, value in changes:
        place = job
        for step in path[:-1]:
            place = place.get(step) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[path[-1]] = value
    assert is_job_or_refused(parse_job, job)
    assert is_job_or_refused(parse_job, {**job, name: changes[0][1]})


@given(st.text(alphabet="abT:{}[]\"'&*!|>-#%@,0123456789.~ \n\t\\\x00é\ud800", max_size=30))
def test_any_text_is_a_job_or_refused(text):
    assert is_job_or_refused(load_job, text)


@given(
    st.lists(st.builds("{}={}".format, st.sampled_from([".".join(path) for path in PLACES]), st.text(max_size=8)), max_size=4)
)
def test_any_override_gives_a_job_or_is_refused(overrides):
    assert is_job_or_refused(load_job, json.dumps(FULL_JOB), overrides=overrides)
