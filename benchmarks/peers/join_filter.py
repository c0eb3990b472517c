"""3 KB records joined with a prediction each, and all but the prediction, the id and the date left out; file to file.

The model's answers lie in memory or in a file, so that what is timed is what stands around a model.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.peers.one_core import Timed, main

RECORDS, PREDICTIONS = "records.jsonl", "predictions.jsonl"
OUTPUT_FILTER = "$['SageMakerOutput','id','date']"


def rayxform(data: Path, output: Path) -> Timed:
    """The path of a job without Ray: a reader's mini-batches, then what a worker does with the model's response to each."""
    from rayxform.core.batching import MiniBatch
    from rayxform.pipeline.planning import ByteRange, make_plan
    from rayxform.pipeline.reading import NoSeams, read_range
    from rayxform.pipeline.writing import finish_response
    from rayxform.spec import parse_job

    job = {
        "Model": {"SourceDir": str(data)},
        "MaxPayloadInMB": 1,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3Uri": str(data / RECORDS)}},
            "ContentType": "application/jsonlines",
            "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": str(output.parent / "unused"), "Accept": "application/jsonlines"},
        "DataProcessing": {"JoinSource": "Input", "OutputFilter": OUTPUT_FILTER},
    }
    plan = make_plan(parse_job(job))
    whole = ByteRange(0, plan.inputs[0], 0, 0, None)
    predictions = (data / PREDICTIONS).read_bytes().splitlines()

    def run() -> dict[str, Any]:
        n_records = 0
        with output.open("wb") as file:
            for packed in read_range(whole, plan.recipe, NoSeams()):
                if isinstance(packed, MiniBatch):
                    response = b"\n".join(predictions[packed.seam.record : packed.seam.record + packed.n_records])
                    file.writelines(finish_response(plan.recipe, plan.job, response, packed.n_records, packed.source))
                    n_records += packed.n_records
        return {"records": n_records}

    return run


def plain(data: Path, output: Path) -> Timed:
    """A plain script: ``json.loads`` and ``json.dumps``, line by line."""

    def run() -> dict[str, Any]:
        n_records = 0
        with (data / RECORDS).open() as records, (data / PREDICTIONS).open() as predictions, output.open("w") as file:
            for line, prediction in zip(records, predictions, strict=True):
                record = json.loads(line)
                joined = {"SageMakerOutput": json.loads(prediction), "id": record["id"], "date": record["date"]}
                file.write(json.dumps(joined) + "\n")
                n_records += 1
        return {"records": n_records}

    return run


def polars(data: Path, output: Path) -> Timed:
    """Polars: two ``scan_ndjson`` side by side, to ``sink_ndjson``."""
    import polars as pl

    records = pl.scan_ndjson(data / RECORDS, schema={"id": pl.Int64, "date": pl.String})
    predictions = pl.scan_ndjson(data / PREDICTIONS, schema={"predictions": pl.Int64, "score": pl.Float64})
    joined = pl.concat([records, predictions], how="horizontal").select(
        pl.struct("predictions", "score").alias("SageMakerOutput"), "id", "date"
    )

    def run() -> dict[str, Any]:
        joined.sink_ndjson(output)
        return {}

    return run


def duckdb(data: Path, output: Path) -> Timed:
    """DuckDB: ``read_ndjson``, a positional join, and ``COPY`` to JSON."""
    import duckdb as db

    connection = db.connect(config={"threads": 1})
    query = f"""
        COPY (
            SELECT struct_pack(predictions := p.predictions, score := p.score) AS SageMakerOutput, r.id, r.date
            FROM read_ndjson('{data / RECORDS}', columns={{id: 'BIGINT', date: 'VARCHAR'}}) r
            POSITIONAL JOIN read_ndjson('{data / PREDICTIONS}', columns={{predictions: 'BIGINT', score: 'DOUBLE'}}) p
        ) TO '{output}' (FORMAT json)
    """

    def run() -> dict[str, Any]:
        connection.execute(query)
        return {}

    return run


def ray_data(data: Path, output: Path) -> Timed:
    """Ray Data: ``read_json``, ``map_batches``, ``write_json``; Ray is started before the clock is.

    Rows come in no order, so that the prediction is looked up by the record's id.
    """
    import pyarrow as pa
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    predictions = ray.put(pa.array([json.loads(line) for line in (data / PREDICTIONS).read_bytes().splitlines()]))

    def join(records: pa.Table, predictions: Any) -> pa.Table:
        answers = ray.get(predictions).take(pa.array(records["id"].to_numpy() - 1))
        return pa.table({"SageMakerOutput": answers, "id": records["id"], "date": records["date"]})

    def run() -> dict[str, Any]:
        parts = output.with_suffix(".parts")
        shutil.rmtree(parts, ignore_errors=True)
        ray.data.read_json(str(data / RECORDS)).map_batches(
            join, fn_kwargs={"predictions": predictions}, batch_format="pyarrow", batch_size=None
        ).write_json(str(parts))
        return {"parts": str(parts)}

    return run


PEERS = {"rayxform": rayxform, "plain": plain, "polars": polars, "duckdb": duckdb, "ray-data": ray_data}

if __name__ == "__main__":
    main(__doc__, PEERS)
