"""The benchmark of the data plane runs, and each peer's result is right; how fast they are is not for a test to say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import dataplane
from benchmarks.data_sets import DataSet
from benchmarks.measure import PeerError

ROOT = Path(__file__).parents[2]


OTHERS = ["splitter", "rayxform", "plain", "polars", "duckdb", "pyarrow"]


@pytest.mark.parametrize(
    ("questions", "peers"),
    [(["lines", "tfrecord", "recordio"], OTHERS), (["join"], [*OTHERS, "ray-data"])],  # starting Ray takes ten seconds
)
@pytest.mark.long
def test_the_quick_benchmark_checks_every_peer_and_has_a_line_for_each(tmp_path, questions, peers):
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.dataplane", "--quick", "--json", str(figures)]
    command += ["--questions", *questions, "--peers", *peers]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in ended.stdout.splitlines() if line.startswith("| ")
    ]
    expected = {
        (name, peer): shown
        for name in questions
        for peer, (shown, _) in dataplane.QUESTIONS[name].peers.items()
        if peer in peers
    }
    assert [row[0] for row in rows if row[0] != "Peer"] == [*expected.values()]
    runs = json.loads(figures.read_text())
    assert [(run["question"], run["peer"]) for run in runs] == [*expected]
    assert all(run["mb_s"] > 0 for run in runs)
    assert [row[-2:] for row in rows if row[0] == "rayxform"] == [["yes", "yes"]] * ("join" in questions)


@pytest.fixture
def joined(tmp_path):
    """Two records with their predictions."""
    (tmp_path / "records.jsonl").write_text('{"id": 1, "inputs": "", "date": "a"}\n{"id": 2, "inputs": "", "date": "b"}\n')
    (tmp_path / "predictions.jsonl").write_text('{"score": 0.50}\n{"score": 0.10}\n')
    return DataSet(tmp_path, 2)


@pytest.mark.parametrize(
    ("lines", "in_order", "values_kept"),
    [
        (
            ['{"SageMakerOutput":{"score":0.50},"id":1,"date":"a"}', '{"SageMakerOutput":{"score":0.10},"id":2,"date":"b"}'],
            True,
            True,
        ),
        (
            ['{"SageMakerOutput":{"score":0.5},"id":1,"date":"a"}', '{"SageMakerOutput":{"score":0.1},"id":2,"date":"b"}'],
            True,
            False,
        ),
        (
            ['{"id":2,"SageMakerOutput":{"score":0.10},"date":"b"}', '{"SageMakerOutput":{"score":0.50},"id":1,"date":"a"}'],
            False,
            True,
        ),
        (
            ['{"SageMakerOutput":{"score":0.50},"id":1,"date":0}', '{"SageMakerOutput":{"score":0.10},"id":2,"date":"b"}'],
            True,
            False,
        ),
    ],
)
def test_what_a_peer_changes_in_its_output_is_noticed(joined, tmp_path, lines, in_order, values_kept):
    (tmp_path / "output").write_text("\n".join(lines) + "\n")
    outcome = dataplane.joined_outcome("peer", joined, [tmp_path / "output"], [1.0])
    assert (outcome.in_order, outcome.values_kept) == (in_order, values_kept)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (['{"SageMakerOutput":{"score":0.10},"id":1,"date":"a"}'], "record 1 has the prediction"),
        (['{"SageMakerOutput":{"score":0.50},"id":1,"date":"a"}'], "wrote 1 records where 2 are"),
    ],
)
def test_a_peer_that_is_wrong_gets_no_line(joined, tmp_path, lines, words):
    (tmp_path / "output").write_text("\n".join(lines) + "\n")
    with pytest.raises(PeerError, match=words):
        dataplane.joined_outcome("peer", joined, [tmp_path / "output"], [1.0])
