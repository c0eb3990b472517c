"""The main job as README runs it: real images, a real ResNet18, predictions checked against labels; and its file by itself."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
import yaml

import rayxform
from tests.support import run_main_job

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("ray_address")


def test_the_script_makes_trains_runs_and_checks(main_job):
    data, ended = main_job
    assert ended.returncode == 0, ended.stderr
    assert "of 1,100 digits named rightly" in ended.stdout
    first = json.loads(ended.stdout.splitlines()[2])
    assert [*first] == ["SageMakerOutput", "id", "date", "label"]
    assert sorted(path.name for path in (data / "output").glob("*.out")) == ["digits-100.jsonl.out", "digits-1000.jsonl.out"]
    with tarfile.open(data / "model.tar.gz") as archive:
        assert archive.getnames() == ["code/inference.py", "code/requirements.txt", "config.json", "model.pth"]


def with_wrong_label(line):
    record = json.loads(line)
    return json.dumps(record | {"label": (record["label"] + 1) % 10}) + "\n"


def test_the_script_fails_when_predictions_do_not_match_the_labels(main_job, tmp_path):
    data, _ = main_job
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    for file in (tmp_path / "input").iterdir():
        file.write_text("".join(map(with_wrong_label, file.read_text().splitlines())))
    ended = run_main_job(tmp_path, "jobs/resnet18.py", "--workers", "1")
    assert ended.returncode == 1
    assert "less than the 93%" in ended.stderr


def test_the_job_file_beside_it_names_data_that_the_script_makes(main_job, tmp_path):
    """``rayxform run jobs/resnet18/job.yaml`` works, too: its paths are relative to the file."""
    data, _ = main_job
    job_file = tmp_path / "job.yaml"
    shutil.copy(ROOT / "jobs" / "resnet18" / "job.yaml", job_file)
    (tmp_path / "data").mkdir()
    for name in ("input", "model.tar.gz"):
        os.symlink(data / name, tmp_path / "data" / name)
    result = rayxform.run(job_file, workers=1)
    assert (result.status, result.records, result.warnings) == ("Completed", 1100, ())
    for name in ("digits-100.jsonl.out", "digits-1000.jsonl.out"):
        mine = [json.loads(line) for line in (tmp_path / "data" / "output" / name).read_text().splitlines()]
        assert mine == [json.loads(line) for line in (data / "output" / name).read_text().splitlines()]
    assert yaml.safe_load(job_file.read_text())["MaxPayloadInMB"] == 1


def test_the_tfrecord_job_names_the_same_digits(main_job):
    data, _ = main_job
    ended = run_main_job(data, "jobs/resnet18_tfrecord.py", "--workers", "1")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[1]).keys() == {"SageMakerOutput", "id", "label"}
    for name in ("digits-100", "digits-1000"):
        lines = [json.loads(line) for line in (data / "output" / f"{name}.jsonl.out").read_text().splitlines()]
        expected = [{key: line[key] for key in ("SageMakerOutput", "id", "label")} for line in lines]
        found = (data / "output-tfrecord" / f"{name}.tfrecord.out").read_text().splitlines()
        assert [json.loads(line) for line in found] == expected
