"""The benchmark runs, its peers agree, and its table has every one of them; how fast they are is not for a test to say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_the_quick_benchmark_compares_its_peers_in_one_run(tmp_path):
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.throughput", "--quick", "--images", "small", "--json", str(figures)]
    peers = ["--peers", "rayxform", "plain-same-code"]
    ended = subprocess.run([*command, *peers], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr
    rows = [line for line in ended.stdout.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [
        "Peer",
        "rayxform",
        "the same around rayxform's inference.py",
    ]
    assert "plain-same-code: 0 of 600 predictions differ from those of rayxform." in ended.stdout
    runs = json.loads(figures.read_text())
    assert [run["in_order"] for run in runs] == [True] * 2
    assert all(run["steady_per_s"] > 0 and run["peak_bytes"] > 0 for run in runs)
