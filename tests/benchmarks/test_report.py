"""What the benchmarks make of what they measured: a report's tables and plots, and what is worked out from a few runs."""

import re

from benchmarks import scale
from benchmarks.__main__ import Question, draw, tables

PRINTED = """load: 0.1

| Peer | MB/s | in order |
|---|--:|--:|
| rayxform | 1,234.5 (1,200 to 1,300) | yes |
| plain | 99 | no |

Two lines of text.

| a |
|---|
| 1 |
"""


def test_tables_are_found_in_what_a_benchmark_prints():
    first, second = tables(PRINTED)
    assert [row["Peer"] for row in first] == ["rayxform", "plain"]
    assert first[0]["MB/s"] == "1,234.5 (1,200 to 1,300)"
    assert second == [{"a": "1"}]


def test_a_plot_is_drawn_of_a_column(tmp_path):
    question = Question("How fast?", "throughput", "MB/s", ("Peer",))
    assert draw(question, next(tables(PRINTED)), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_what_one_more_mini_batch_costs_the_driver_is_told_from_start_up():
    """10 s of start-up and 2 ms a mini-batch, measured on two sizes."""
    runs = [
        (scale.Case(workers, 1.0, 1, 1, 40 * workers), scale.Run(0.99, 40.0, 40 * workers, 10 + 0.08 * workers, 300.0))
        for workers in (1, 32)
    ]
    text = "\n".join(scale.estimate(runs))
    assert "The driver takes 2.00 ms of a core for one more mini-batch that is a block of its own" in text
    assert re.search(r"saturates at 500 mini-batches/s, which are 3\.1 GB/s", text)
    assert "Too few runs" in "\n".join(scale.estimate(runs[:1]))


def test_efficiency_is_the_share_of_the_ideal():
    """Four workers of 0.5 s a mini-batch of ten records: 80 records a second are all there can be."""
    case = scale.Case(4, 0.5, 1, 1, 40, records_per_batch=10)
    timings = {"SteadySeconds": 10.0, "SteadyRecords": 760}
    run = scale._run_of(case, timings, 4.0, 200.0)
    assert (run.efficiency, run.driver_cpu_s, run.driver_mib) == (0.95, 4.0, 200.0)
