"""How fast is what stands around the model: records split, packed, joined and filtered, on one core.

::

    python -m benchmarks.dataplane                              200 MB of records of 3 KB, under two minutes
    python -m benchmarks.dataplane --record-bytes 100           short records, where what counts is the cost of each one
    python -m benchmarks.dataplane --questions join --repeat 9  one table, more runs
    python -m benchmarks.dataplane --quick                      all of it on very little: does it work

Every peer is a process of its own, kept on one core (so is all that it starts), with one thread for each library. It goes
through the file once, which warms it and the page cache, and then ``--repeat`` times against the clock; the table has medians.
Imports and the start of Ray are not counted. rayxform runs here without Ray, through the functions that its readers and
workers call; ``benchmarks.throughput --images echo`` is the same through a whole job.

Each peer's result is checked before it gets a line. The ratios are to the plain Python loop, and to the target.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import data_sets
from benchmarks.data_sets import DataSet
from benchmarks.measure import PeerError, run
from benchmarks.peers import join_filter, split_records
from benchmarks.report import machine_facts

PACKAGES = ("ray", "polars", "duckdb", "pyarrow", "msgspec", "google-crc32c")


@dataclass(frozen=True)
class Question:
    """One table.

    Attributes:
        title: what is asked.
        command: the module that runs a peer, and what comes before its options.
        file: the data set's file that is read.
        target_mb_s: what rayxform should manage on a core, in 10^6 bytes of input a second.
        peers: a peer's name → what the table calls it, and what it does not do.
        joins: whether peers write joined records, which are then checked; else they count what they find.
    """

    title: str
    command: tuple[str, ...]
    file: str
    target_mb_s: float | None
    peers: dict[str, tuple[str, str]]
    joins: bool = False


def _splitting(split_type: str, target_mb_s: float | None, others: dict[str, tuple[str, str]]) -> Question:
    peers = {
        "splitter": ("rayxform, the splitter alone", "Chunks lie in memory; no packing."),
        "rayxform": ("rayxform, file to mini-batches", "As a reader of a job: read, split, packed under MaxPayloadInMB 6."),
    }
    title = f"{split_type}: records found"
    command = ("-m", "benchmarks.peers.split_records", split_type)
    return Question(title, command, split_records.FILES[split_type], target_mb_s, peers | others)


QUESTIONS = {
    "lines": _splitting(
        "Line",
        1000,
        {
            "plain": ("plain Python loop", "No byte ranges, no limit of a line's length, no packing."),
            "polars": ("Polars scan_lines", "No packing; a line that is not UTF-8 ends the query."),
            "duckdb": (
                "DuckDB read_csv, one column",
                "No packing; a line that is not UTF-8, or longer than 2 MB, ends the query.",
            ),
            "pyarrow": ("PyArrow open_csv, one column", "No packing; a line that is longer than a block ends the reading."),
            "ray-data": ("Ray Data read_text", "No packing; a file is read by one task."),
        },
    ),
    "tfrecord": _splitting(
        "TFRecord",
        500,
        {"plain": ("plain loop with google-crc32c", "No byte ranges, no packing; a damaged record ends it.")},
    ),
    "recordio": _splitting(
        "RecordIO",
        None,
        {"plain": ("plain loop", "No byte ranges, no packing, no records of several frames.")},
    ),
    "join": Question(
        "JoinSource Input, OutputFilter " + join_filter.OUTPUT_FILTER,
        ("-m", "benchmarks.peers.join_filter"),
        join_filter.RECORDS,
        150,
        {
            "rayxform": ("rayxform", "File to file through requests of at most 1 MiB; a bad record is named, or passed over."),
            "plain": ("plain script, json", "A bad record ends it; numbers are written anew."),
            "polars": (
                "Polars scan_ndjson, sink_ndjson",
                "No requests; a bad record ends the query; numbers are written anew.",
            ),
            "duckdb": ("DuckDB read_ndjson, COPY", "As Polars, but that it names the line."),
            "ray-data": (
                "Ray Data read_json, write_json",
                "As Polars; an output of many files; joined by id, as rows may move.",
            ),
        },
        joins=True,
    ),
}


@dataclass(frozen=True)
class Options:
    """What was asked for; see ``parse``."""

    questions: list[str]
    peers: list[str]
    megabytes: int
    record_bytes: int
    repeat: int
    timeout_s: float
    json: Path | None


@dataclass(frozen=True)
class Outcome:
    """A peer's timed runs.

    Attributes:
        seconds: of each run.
        in_order: whether records came out in the order of the input; None where nothing is written.
        values_kept: whether every value was written as it stood in the input, digit for digit; None as above.
    """

    seconds: list[float]
    in_order: bool | None = None
    values_kept: bool | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))  # peers are ended, folders removed
    print("\n".join(machine_facts(PACKAGES)), flush=True)
    raw: list[dict[str, Any]] = []
    try:
        for name in options.questions:
            raw += answer(name, QUESTIONS[name], options)
    except PeerError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if options.json:
            options.json.write_text(json.dumps(raw, indent=1))
    return 0


def parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", nargs="+", choices=QUESTIONS, default=list(QUESTIONS))
    names = list(dict.fromkeys(peer for question in QUESTIONS.values() for peer in question.peers))
    parser.add_argument("--peers", nargs="+", choices=names, default=names)
    parser.add_argument("--megabytes", type=int, default=200, help="10^6 bytes of each input (%(default)s)")
    parser.add_argument("--record-bytes", type=int, default=3000, help="of a record, on average (%(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="timed runs of each peer (%(default)s)")
    parser.add_argument("--timeout", type=float, default=600, metavar="S", help="for one peer (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="2 MB, one run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single run there")
    given = parser.parse_args(arguments)
    return Options(
        questions=given.questions,
        peers=given.peers,
        megabytes=2 if given.quick else given.megabytes,
        record_bytes=given.record_bytes,
        repeat=1 if given.quick else given.repeat,
        timeout_s=given.timeout,
        json=given.json,
    )


def answer(name: str, question: Question, options: Options) -> list[dict[str, Any]]:
    """Run a question's peers one after another, print the table, and give every run's figures."""
    data = data_sets.records(options.megabytes, options.record_bytes)
    input_bytes = (data.folder / question.file).stat().st_size
    size = f"{data.records:,} records, {input_bytes / 1e6:,.1f} MB, {input_bytes / data.records:,.0f} bytes a record"
    print(f"\n## {question.title}\n\n{size}; one core a peer\n", flush=True)
    outcomes = {peer: run_peer(peer, question, data, options) for peer in question.peers if peer in options.peers}
    print("\n".join(table(question, outcomes, input_bytes, data.records)), flush=True)
    return [
        {"question": name, "peer": peer, "mb_s": input_bytes / 1e6 / seconds, "records_s": data.records / seconds}
        for peer, outcome in outcomes.items()
        for seconds in outcome.seconds
    ]


def run_peer(peer: str, question: Question, data: DataSet, options: Options) -> Outcome:
    """Run one peer in a process of its own, and check what came of it.

    Raises:
        PeerError: it failed, or its result is not what it should be.
    """
    with tempfile.TemporaryDirectory(prefix="dataplane-", dir=data_sets.DATA) as temporary:
        output = Path(temporary) / "output.jsonl"
        command = [*question.command, "--peer", peer, "--data", str(data.folder), "--output", str(output)]
        command += ["--repeat", str(options.repeat)]
        told = run(command, Path(temporary) / "log.out", options.timeout_s).last_object
        if "seconds" not in told:
            raise PeerError(f"{peer} did not print its figures")
        if question.joins:
            parts = sorted(Path(told["parts"]).iterdir()) if "parts" in told else [output]
            return joined_outcome(peer, data, parts, told["seconds"])
    check_count(peer, question, data, told)
    return Outcome(told["seconds"])


def check_count(peer: str, question: Question, data: DataSet, told: dict[str, Any]) -> None:
    """See that a peer that only counts found every record and every byte of them.

    Raises:
        PeerError: it did not.
    """
    with (data.folder / split_records.FILES["Line"]).open("rb") as lines:
        content_bytes = sum(len(line) - 1 for line in lines)
    expected: dict[str, int] = {"records": data.records, "bytes": content_bytes}
    # A request holds frames, or lines with a newline between them.
    payload_bytes = (data.folder / question.file).stat().st_size
    found = {name: told[name] for name in ("records", "bytes") if name in told}
    if found != {name: expected[name] for name in found} or told.get("payload_bytes", payload_bytes) != payload_bytes:
        raise PeerError(f"{peer} found {told} where {expected} and {payload_bytes} payload bytes are")


def joined_outcome(peer: str, data: DataSet, parts: Iterable[Path], seconds: list[float]) -> Outcome:
    """See that a join gave each record its prediction, and whether it kept their order and how values were written.

    Raises:
        PeerError: a record is missing, or has another prediction.
    """
    ids: list[int] = []
    values_kept = True
    pairs = zip(_lines(data.folder / join_filter.RECORDS), _lines(data.folder / join_filter.PREDICTIONS), strict=True)
    wanted = {int(one["id"]): one for one in (_expected(*pair) for pair in pairs)}
    for found in (_parse(line) for part in parts for line in _lines(part)):
        number = int(found["id"])
        ids.append(number)
        right = wanted[number]
        if _figures(found) != _figures(right):
            raise PeerError(f"{peer}: record {number} has the prediction {found['SageMakerOutput']}")
        values_kept = values_kept and found == right
    if sorted(ids) != sorted(wanted):
        raise PeerError(f"{peer} wrote {len(ids)} records where {len(wanted)} are")
    return Outcome(seconds, ids == sorted(ids), values_kept)


def _expected(record: bytes, prediction: bytes) -> dict[str, Any]:
    whole = _parse(record)
    return {"SageMakerOutput": _parse(prediction), "id": whole["id"], "date": whole["date"]}


def _figures(joined: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in joined["SageMakerOutput"].items()}


def _parse(line: bytes) -> dict[str, Any]:
    """A line with its numbers as they are written."""
    value: dict[str, Any] = json.loads(line, parse_float=str, parse_int=str)
    return value


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def table(question: Question, outcomes: dict[str, Outcome], input_bytes: int, n_records: int) -> Iterator[str]:
    """Give the lines of a Markdown table, and below it what each peer does not do."""
    heads = ["Peer", "MB/s", "least to most", "x plain", "of target", "records/s"] + [
        "in order",
        "values kept",
    ] * question.joins
    yield "| " + " | ".join(heads) + " |"
    yield "|---|" + "--:|" * (len(heads) - 1)
    rates = {peer: [input_bytes / 1e6 / seconds for seconds in outcome.seconds] for peer, outcome in outcomes.items()}
    plain = statistics.median(rates["plain"]) if "plain" in rates else None
    for peer, outcome in outcomes.items():
        rate = statistics.median(rates[peer])
        cells = [
            question.peers[peer][0],
            f"{rate:,.0f}",
            f"{min(rates[peer]):,.0f} to {max(rates[peer]):,.0f}",
            f"{rate / plain:.2f}" if plain else "",
            f"{rate / question.target_mb_s:.2f}" if question.target_mb_s and peer in {"splitter", "rayxform"} else "",
            f"{rate * 1e6 / input_bytes * n_records:,.0f}",
        ]
        if question.joins:
            cells += ["yes" if kept else "no" for kept in (outcome.in_order, outcome.values_kept)]
        yield "| " + " | ".join(cells) + " |"
    yield ""
    for peer in outcomes:
        name, note = question.peers[peer]
        yield f"- {name}: {note}"


if __name__ == "__main__":
    sys.exit(main())
