"""AWS's answers become job files; see cases/convert.json."""

import json
import subprocess
import sys

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rayxform.errors import JobFileError
from rayxform.spec import container_of, job_members, load_job, model_members, to_yaml
from rayxform.spec.reading import read_members
from tests.support import cases

CASES = cases("convert")
JOB = CASES[1]
MODEL = next(case for case in CASES if case["kind"] == "model")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["source"])
def test_an_answer_becomes_members(case):
    def convert():
        described = case["described"]
        return job_members(described) if case["kind"] == "job" else model_members(container_of(described))

    if "error" in case:
        with pytest.raises(JobFileError, match=case["error"]):
            convert()
        return
    members = convert()
    assert members == case["members"]
    assert list(members) == list(case["members"])


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(), st.recursive(st.text() | st.booleans() | st.integers(), st.lists)))
def test_what_is_written_reads_as_it_was(members):
    assert read_members(to_yaml(members), "job") == members


@pytest.mark.parametrize("text", ["1e5", "~", "null", "true", "NO", "2022-01-01", "012", "12:30", "<<", "", " a ", "#", "a: b"])
def test_a_string_that_looks_like_something_else_stays_a_string(text):
    assert read_members(to_yaml({"Environment": {"A": text}}), "job") == {"Environment": {"A": text}}


def convert(*arguments, stdin=None):
    command = [sys.executable, "-m", "rayxform", "convert", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)


def test_the_command_takes_a_job_on_stdin_and_a_model_from_a_file(tmp_path):
    model = tmp_path / "model.json"
    model.write_text(json.dumps(MODEL["described"]))
    done = convert("--model", model, stdin=json.dumps(JOB["described"]))
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load(done.stdout) == JOB["members"] | {"Model": MODEL["members"]}
    job = load_job(done.stdout)
    assert (job.compatibility, job.name, job.model_data_url) == ("aws", "digits", MODEL["members"]["ModelDataUrl"])


def test_the_command_takes_a_job_from_a_file_and_the_model_from_options(tmp_path):
    described = tmp_path / "described.json"
    described.write_text(json.dumps(JOB["described"]))
    options = ("--model-data-url", "s3://b/model.tar.gz", "--entry-point", "serve.py", "--source-dir", "src")
    done = convert(described, *options, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    expected = {"ModelDataUrl": "s3://b/model.tar.gz", "EntryPoint": "serve.py", "SourceDir": "src"}
    assert json.loads(done.stdout) == JOB["members"] | {"Model": expected}


def test_without_a_model_a_comment_says_what_to_fill_in():
    done = convert(stdin=json.dumps(JOB["described"]))
    assert done.returncode == 0
    assert "# Model: {ModelDataUrl: model.tar.gz}  # fill in" in done.stdout
    assert yaml.safe_load(done.stdout) == JOB["members"]
    assert "--model-data-url" in done.stderr


def test_what_run_will_refuse_is_said():
    described = json.loads(json.dumps(JOB["described"]))
    described["TransformInput"]["DataSource"]["S3DataSource"]["S3DataType"] = "AugmentedManifestFile"
    done = convert("--model-data-url", "s3://b/model.tar.gz", stdin=json.dumps(described))
    assert done.returncode == 0
    assert "S3DataType is 'AugmentedManifestFile'" in done.stderr


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        ("", "stdin"),
        ("{", "line 1"),
        ("[1]", "an object"),
        ('{"ModelName": "m"}', "describe-transform-job"),
    ],
)
def test_bad_input_exits_2_and_says_why(stdin, message):
    done = convert(stdin=stdin)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_not_there_exits_2(tmp_path):
    done = convert(tmp_path / "none.json")
    assert done.returncode == 2
    assert "none.json" in done.stderr
    assert "Traceback" not in done.stderr
