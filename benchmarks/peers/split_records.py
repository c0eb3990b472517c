"""Records of one file found and counted, with the bytes in them: rayxform's core, and what else finds records.

Each peer has all bytes of each record in its hands as a value of its own, as whoever sends or filters them needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from struct import Struct
from typing import Any

from benchmarks.peers.one_core import Timed, main

FILES = {"Line": "records.jsonl", "TFRecord": "records.tfrecord", "RecordIO": "records.recordio"}
"""SplitType → the data set's file."""

CHUNK_BYTES = 4 * 2**20
_MAGIC = 0xCED7230A


def splitter(split_type: str, data: Path, output: Path) -> Timed:
    """Rayxform's splitter alone, on chunks that lie in memory."""
    from rayxform.core.framing import RecordIOSplitter, TFRecordSplitter
    from rayxform.core.splitting import LineSplitter

    del output
    kinds: dict[str, Callable[[], Any]] = {"Line": LineSplitter, "TFRecord": TFRecordSplitter, "RecordIO": RecordIOSplitter}
    chunks = list(_chunks(data / FILES[split_type]))

    def portions() -> Iterator[Any]:
        cut = kinds[split_type]()
        for chunk in chunks:
            yield from cut.feed(chunk)
        yield cut.flush()

    def run() -> dict[str, Any]:
        n_records = n_bytes = 0
        for records in portions():
            n_records += len(records.data)
            n_bytes += sum(map(len, records.data))
        return {"records": n_records, "bytes": n_bytes}

    return run


def mini_batches(split_type: str, data: Path, output: Path) -> Timed:
    """The file to rayxform's mini-batches, as a reader of a job makes them."""
    from rayxform.core.batching import MiniBatch
    from rayxform.pipeline.planning import ByteRange, make_plan
    from rayxform.pipeline.reading import NoSeams, read_range
    from rayxform.spec import parse_job

    job = {
        "Model": {"SourceDir": str(data)},
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3Uri": str(data / FILES[split_type])}},
            "ContentType": "application/octet-stream",
            "SplitType": split_type,
        },
        "TransformOutput": {"S3OutputPath": str(output)},
    }
    plan = make_plan(parse_job(job))
    whole = ByteRange(0, plan.inputs[0], 0, 0, None)

    def run() -> dict[str, Any]:
        n_records = n_bytes = 0
        for packed in read_range(whole, plan.recipe, NoSeams()):
            if isinstance(packed, MiniBatch):
                n_records += packed.n_records
                n_bytes += len(packed.payload) + (1 if split_type == "Line" else 0)
        return {"records": n_records, "payload_bytes": n_bytes}

    return run


def plain_lines(data: Path, output: Path) -> Timed:
    """Python's own loop over the lines of a file."""
    del output

    def run() -> dict[str, Any]:
        n_records = n_bytes = 0
        with (data / FILES["Line"]).open("rb") as file:
            for line in file:
                n_records += 1
                n_bytes += len(line.rstrip(b"\r\n"))
        return {"records": n_records, "bytes": n_bytes}

    return run


def plain_tfrecords(data: Path, output: Path) -> Timed:
    """A loop over TFRecord frames with both CRCs checked, as one writes it from TensorFlow's description of the format."""
    import google_crc32c

    del output
    header, word = Struct("<QI"), Struct("<I")

    def masked(content: bytes) -> int:
        crc = google_crc32c.value(content)
        return int(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    def run() -> dict[str, Any]:
        n_records = n_bytes = 0
        with (data / FILES["TFRecord"]).open("rb") as file:
            while head := file.read(12):
                length, length_crc = header.unpack(head)
                if masked(head[:8]) != length_crc:
                    raise ValueError(f"the CRC of the length of record {n_records + 1} is wrong")
                content = file.read(length)
                if masked(content) != word.unpack(file.read(4))[0]:
                    raise ValueError(f"the CRC of record {n_records + 1} is wrong")
                n_records += 1
                n_bytes += length
        return {"records": n_records, "bytes": n_bytes}

    return run


def plain_recordio(data: Path, output: Path) -> Timed:
    """A loop over RecordIO frames, for records that were not cut at a magic number."""
    del output
    header = Struct("<II")

    def run() -> dict[str, Any]:
        n_records = n_bytes = 0
        with (data / FILES["RecordIO"]).open("rb") as file:
            while head := file.read(8):
                magic, word = header.unpack(head)
                if magic != _MAGIC or word >> 29:
                    raise ValueError(f"record {n_records + 1} begins with no whole frame")
                content = file.read(word + -word % 4)[:word]
                n_records += 1
                n_bytes += len(content)
        return {"records": n_records, "bytes": n_bytes}

    return run


def polars_lines(data: Path, output: Path) -> Timed:
    """Polars: ``scan_lines``."""
    import polars as pl

    del output
    query = pl.scan_lines(data / FILES["Line"], name="line").select(
        pl.len().alias("records"), pl.col("line").str.len_bytes().sum().alias("bytes")
    )
    return lambda: query.collect().row(0, named=True)


def duckdb_lines(data: Path, output: Path) -> Timed:
    """DuckDB: ``read_csv`` with one column and a delimiter that no line holds; DuckDB has no reader of lines."""
    import duckdb

    del output
    connection = duckdb.connect(config={"threads": 1})
    query = (
        f"SELECT count(*), sum(strlen(line)) FROM read_csv('{data / FILES['Line']}', columns={{'line': 'VARCHAR'}}, "
        "auto_detect=false, header=false, delim='\x01', quote='', escape='')"
    )

    def run() -> dict[str, Any]:
        n_records, n_bytes = connection.sql(query).fetchall()[0]
        return {"records": n_records, "bytes": int(n_bytes)}

    return run


def pyarrow_lines(data: Path, output: Path) -> Timed:
    """PyArrow: ``csv.open_csv`` with one column and a delimiter that no line holds; PyArrow has no reader of lines."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    del output
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    options = {
        "read_options": csv.ReadOptions(column_names=["line"], use_threads=False, block_size=CHUNK_BYTES),
        "parse_options": csv.ParseOptions(delimiter="\x01", quote_char=False),
        "convert_options": csv.ConvertOptions(column_types={"line": pa.binary()}),
    }

    def run() -> dict[str, Any]:
        n_records = n_bytes = 0
        for batch in csv.open_csv(data / FILES["Line"], **options):
            n_records += batch.num_rows
            n_bytes += pc.sum(pc.binary_length(batch["line"])).as_py()
        return {"records": n_records, "bytes": n_bytes}

    return run


def ray_data_lines(data: Path, output: Path) -> Timed:
    """Ray Data: ``read_text``; Ray is started before the clock is."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import ray

    del output
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)

    def lengths(table: pa.Table) -> pa.Table:
        return pa.table({"records": [table.num_rows], "bytes": [pc.sum(pc.binary_length(table["text"])).as_py()]})

    def run() -> dict[str, Any]:
        counted = ray.data.read_text(str(data / FILES["Line"])).map_batches(lengths, batch_format="pyarrow").take_all()
        return {name: sum(row[name] for row in counted) for name in ("records", "bytes")}

    return run


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


PEERS = {
    "Line": {
        "splitter": partial(splitter, "Line"),
        "rayxform": partial(mini_batches, "Line"),
        "plain": plain_lines,
        "polars": polars_lines,
        "duckdb": duckdb_lines,
        "pyarrow": pyarrow_lines,
        "ray-data": ray_data_lines,
    },
    "TFRecord": {
        "splitter": partial(splitter, "TFRecord"),
        "rayxform": partial(mini_batches, "TFRecord"),
        "plain": plain_tfrecords,
    },
    "RecordIO": {
        "splitter": partial(splitter, "RecordIO"),
        "rayxform": partial(mini_batches, "RecordIO"),
        "plain": plain_recordio,
    },
}
"""SplitType → its peers."""

if __name__ == "__main__":
    main(__doc__, PEERS[sys.argv.pop(1)])
