"""Any bytes at all: what a splitter, a reader or a plan makes of them is a result or an error of ours.

RAYXFORM_FUZZ is how many strings each SplitType gets in a plan; 100,000 of them take minutes. Splitters always get that many.
"""

import os
import random
from itertools import product

import pytest

from rayxform.core.batching import MiniBatch, Seam
from rayxform.core.csv_joining import csv_processing
from rayxform.core.example_joining import example_processing
from rayxform.core.joining import PassThrough, json_processing
from rayxform.core.ranges import Recipe, pack_range, prepare_chunks
from rayxform.errors import RayxformError, RecordError
from rayxform.pipeline.inspecting import plan_requests
from rayxform.pipeline.planning import make_recipe
from rayxform.pipeline.writing import finish_response
from tests.random_strings import compressed, random_strings

SPLIT_TYPES = ["None", "Line", "RecordIO", "TFRecord"]
STRATEGIES = {kind: ["SingleRecord"] if kind == "None" else ["MultiRecord", "SingleRecord"] for kind in SPLIT_TYPES}
CHUNKS = [1, 7, 64, *[10_000] * 17]
STRINGS_IN_SPLITTERS = 100_000
STRINGS_IN_PLANS = int(os.environ.get("RAYXFORM_FUZZ", "5000"))


def processings():
    yield PassThrough()
    for before, after, join in (("$", "$", True), ("$.id", "$['SageMakerOutput','id']", True), ("$[:-1]", "$", False)):
        yield json_processing(before, after, join=join, envelope=True)
        yield example_processing(before, after, join=join, envelope=True)
    yield csv_processing("$[1]", "$[0,-1]", join=True)


def recipes(split_type):
    strategies = [strategy == "MultiRecord" for strategy in STRATEGIES[split_type]]
    for multi_record, processing, limit, most in product(strategies, processings(), [None, 40], [None, 3]):
        yield Recipe(split_type, multi_record, limit, most, processing, "MaxPayloadInMB")


@pytest.mark.parametrize("split_type", SPLIT_TYPES)
def test_any_string_is_records_or_an_error_of_ours_for_every_splitter(split_type):
    rng = random.Random(split_type)
    ways = list(recipes(split_type))
    kinds = set()
    for number, text in enumerate(random_strings(STRINGS_IN_SPLITTERS, seed=1)):
        recipe = ways[number % len(ways)]
        begin = 0 if number % 6 or split_type == "None" else rng.randrange(len(text) + 2)
        end = None if number % 2 or split_type == "None" else begin + rng.randrange(60)
        chunk, at = rng.choice(CHUNKS) if len(text) < 1000 else 5000, max(begin - 1, 0)
        chunks = [text[place : place + chunk] for place in range(at, len(text), chunk)]
        prepared = prepare_chunks(recipe, chunks, begin, aligned=begin > 0 and number % 5 == 0)
        told, next_record = [], 0
        for packed in pack_range(recipe, prepared, Seam(begin, 0), end, tell=told.append, stop_at_error=number % 7 == 0):
            kinds.add(type(packed))
            if isinstance(packed, MiniBatch):
                assert packed.seam.record == next_record
                assert recipe.max_payload_bytes is None or len(packed.payload) <= recipe.max_payload_bytes
                next_record += packed.n_records
            else:
                assert isinstance(packed, RecordError)
                assert packed.record == next_record
                next_record += 1
        (seam,) = told
        assert seam.failed or seam.record == next_record
    assert MiniBatch in kinds
    assert len(kinds) >= 2


@pytest.mark.parametrize(
    "members",
    [
        {"TransformInput__ContentType": "application/jsonlines", "DataProcessing__JoinSource": "Input"},
        {"TransformInput__ContentType": "application/jsonlines", "DataProcessing__OutputFilter": "$.SageMakerOutput[:-1]"},
        {"TransformInput__ContentType": "text/csv", "DataProcessing": {"JoinSource": "Input", "OutputFilter": "$[0,-1]"}},
        {"TransformInput__ContentType": "image/png", "TransformOutput__Accept": "application/json"},
        {
            "TransformInput__ContentType": "image/png",
            "TransformOutput__Accept": "application/json",
            "DataProcessing__OutputFilter": "$.id",
            "Rayxform__Compatibility": "aws",
        },
    ],
    ids=str,
)
def test_any_response_is_output_or_an_error_of_ours(workspace, members):
    workspace.write("a", b"1")
    job = workspace.plan(**members).job
    recipe = make_recipe(job)
    written = 0
    for number, response in enumerate(random_strings(STRINGS_IN_PLANS, seed=2)):
        n_records = number % 3 + 1
        source = None if not job.join_input else b"\n".join([b"17"] * n_records)
        try:
            written += len(finish_response(recipe, job, response, n_records, source)) > 0
        except RayxformError:
            continue
    assert 0 < written


def contents(split_type):
    """The members of jobs that look into what they read, or not."""
    if split_type != "RecordIO":
        yield {"TransformInput__ContentType": "application/octet-stream"}
    if split_type in ("None", "Line"):
        lines = "application/json" if split_type == "None" else "application/jsonlines"
        yield {
            "TransformInput__ContentType": lines,
            "DataProcessing__JoinSource": "Input",
            "DataProcessing__InputFilter": "$.id",
        }
        yield {"TransformInput__ContentType": "text/csv", "DataProcessing__InputFilter": "$[1:]"}
    else:
        lines = "application/jsonlines"
        yield {"TransformInput__ContentType": lines, "DataProcessing__InputFilter": "$['id','x']"}
    if split_type == "TFRecord":
        yield {"DataProcessing__JoinSource": "Input", "TransformInput__ContentType": None, "TransformOutput__Accept": lines}


@pytest.mark.parametrize("split_type", SPLIT_TYPES)
def test_any_object_is_planned_or_its_error_is_told(workspace, split_type):
    ways = list(product(STRATEGIES[split_type], contents(split_type), ["None", "Gzip"]))
    each = STRINGS_IN_PLANS // len(ways)
    rng = random.Random(split_type)
    n_records = n_errors = 0
    for number, (strategy, members, compression) in enumerate(ways):
        for name, text in enumerate(random_strings(each, seed=10 + number)):
            workspace.write(f"{name:06d}", compressed(rng, text) if compression == "Gzip" else text)
        changes = {
            "TransformInput__SplitType": split_type,
            "TransformInput__CompressionType": compression,
            "BatchStrategy": strategy,
            "Rayxform__MaxRecordsPerBatch": 3,
        }
        planned = plan_requests(workspace.plan(**changes, **members))
        assert len(planned.files) == each
        for file in planned.files:
            assert sum(file.records_per_request) <= file.n_records
            assert bool(file.errors) == (file.to_members()["Error"] is not None)
            n_errors += bool(file.errors)
        n_records += planned.n_records
    assert n_records > 0
    assert 0 < n_errors < STRINGS_IN_PLANS
