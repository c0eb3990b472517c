"""All benchmarks, at a size for this machine: one Markdown table and one plot for each question, in less than 20 minutes.

::

    python -m benchmarks                              all of them
    python -m benchmarks --only small large           some
    python -m benchmarks --output /tmp/results        where report.md and the plots go (default: benchmarks/data/report)

Each is a command of its own, which the report names. ``pip install 'rayxform[benchmarks]'`` brings what they need.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if __package__ in {None, ""}:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.data_sets import DATA
from benchmarks.measure import ROOT
from benchmarks.report import machine_facts

Table = list[dict[str, str]]


@dataclass(frozen=True)
class Question:
    """What one benchmark answers.

    Attributes:
        text: the question.
        command: the module below ``benchmarks`` and its arguments.
        column: the column of its first table whose figures are drawn.
        labels: the columns that name a bar.
    """

    text: str
    command: str
    column: str
    labels: tuple[str, ...]


QUESTIONS = {
    "small": Question(
        "How fast is ResNet18 on small images, beside what else one could use?",
        "throughput --images small --count-small 6000 --ceiling-seconds 3",
        "Records/s, steady",
        ("Peer",),
    ),
    "large": Question(
        "And on large ones?",
        "throughput --images large --count-large 200 --ceiling-seconds 3",
        "Records/s, steady",
        ("Peer",),
    ),
    "echo": Question(
        "What does the pipeline pass without a model?", "throughput --images echo --echo-mb 1000", "MB/s, steady", ("Job",)
    ),
    "lines": Question("What does a core cut and pack?", "dataplane --megabytes 50", "MB/s", ("Peer",)),
    "scale": Question(
        "Does it scale to many accelerators?",
        "scale --workers 1 8 --nodes 1 --batches 12 --model-s 1.0 0.3",
        "efficiency",
        ("workers", "files", "model, s"),
    ),
    "faults": Question("Does anything get lost?", "faults --faults 5", "injected", ("fault",)),
    "endpoint": Question("How many clients may watch a job?", "endpoint --repeat 1", "p99 ms", ("connections", "beside")),
    "objects": Question(
        "How does it take many small objects?", "many_objects --objects 10000 --done 0", "objects/s, steady", ("objects",)
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), metavar="NAME", help="(all)")
    parser.add_argument("--output", type=Path, default=DATA / "report", help="the folder of the report (%(default)s)")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    report = ["# Benchmarks of rayxform", "", *machine_facts()]
    code = 0
    for name in options.only:
        question = QUESTIONS[name]
        print(f"{question.text} (python -m benchmarks.{question.command})", flush=True)
        began = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-m", *f"benchmarks.{question.command}".split()],
            check=False,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        code = code or ended.returncode
        said = ended.stdout if ended.returncode == 0 else ended.stdout + ended.stderr[-2000:]
        report += ["", f"## {question.text}", "", f"`python -m benchmarks.{question.command}`", "", said.strip()]
        rows = next(tables(said), [])
        if rows and question.column and draw(question, rows, options.output / f"{name}.png"):
            report += ["", f"![{question.text}]({name}.png)"]
        (options.output / "report.md").write_text("\n".join(report) + "\n")
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
    print(f"report: {options.output / 'report.md'}")
    return code


def tables(text: str) -> Iterator[Table]:
    """The Markdown tables in a text: column → cell, a dict a row."""
    rows: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
        elif rows:
            heads, _, *cells = rows
            yield [dict(zip(heads, row, strict=False)) for row in cells]
            rows = []


def draw(question: Question, rows: Table, path: Path) -> bool:
    """Draw a column as bars; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    labels = [
        ", ".join(f"{name} {row[name]}" if len(question.labels) > 1 else row[name] for name in question.labels) for row in rows
    ]
    values = [float(re.sub(r"[^0-9.].*", "", row[question.column].replace(",", "")) or 0) for row in rows]
    figure = Figure(figsize=(9, 1 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(labels[::-1], values[::-1], color="#3b6ea5")
    axes.bar_label(bars, fmt="%g", padding=3)
    axes.set_title(question.text, loc="left")
    axes.set_xlabel(question.column)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    return True


if __name__ == "__main__":
    sys.exit(main())
