"""A short campaign of random faults; ``python -m benchmarks.faults`` is the long one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_random_faults_change_no_byte():
    command = [sys.executable, "-m", "benchmarks.faults", "--faults", "2", "--seed", "11"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert re.search(r"^\| all \| [2-9] \|$", shown.stdout, re.MULTILINE)
    assert re.search(r"records, 0 differences\.", shown.stdout, re.MULTILINE)
