"""What the benchmarks make of what they measured: a report's tables and plots, and what is worked out from a few runs."""

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


def test_what_one_more_block_costs_the_driver_is_told_from_start_up():
    """10 s of start-up and 10 ms a block, measured on two sizes."""
    cases = [scale.Case(workers, 1.0, 1, 1, 40 * workers) for workers in (1, 32)]
    runs = [(case, scale.Run(0.99, 40.0, case.batches, 10 + 0.01 * case.blocks, 300.0)) for case in cases]
    text = "\n".join(scale.estimate(runs))
    assert "500 workers get blocks of 128 MiB: 34 a second" in text
    assert "The driver takes 10.0 ms of a core for one more block. So it needs 34 % of a core there" in text
    assert "saturates at 100 blocks a second, which are 13.4 GB/s, or 1,491 such GPUs" in text
    assert "Too few runs" in "\n".join(scale.estimate(runs[:1]))


def test_blocks_are_counted_as_a_reader_cuts_them():
    """1,280 mini-batches for 32 workers: five in a block in the beginning, one in the end."""
    assert scale.Case(32, 0.3, 1, 1, 1280).blocks == 584
    assert scale.Case(1, 0.3, 1, 1, 3).blocks == 3


def test_efficiency_is_the_share_of_the_ideal():
    """Four workers of 0.5 s a mini-batch of ten records: 80 records a second are all there can be."""
    case = scale.Case(4, 0.5, 1, 1, 40, records_per_batch=10)
    timings = {"SteadySeconds": 10.0, "SteadyRecords": 760}
    run = scale._run_of(case, timings, 4.0, 200.0)
    assert (run.efficiency, run.driver_cpu_s, run.driver_mib) == (0.95, 4.0, 200.0)
