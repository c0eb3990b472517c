"""GenerateInferenceId: where id and time stand in a result, and that ids are a run's own."""

import uuid

import pytest

from rayxform.core.csv_joining import csv_processing
from rayxform.core.inference_ids import InferenceIds, Stamp
from rayxform.core.joining import json_processing
from rayxform.core.splitting import Records
from tests.support import cases

STAMP = Stamp("1f1d57b1-2e6f-488c-8c30-db4e6d757861", "2022-08-30T00:49:15Z")


@pytest.mark.parametrize("case", cases("inference_ids"), ids=lambda case: case["source"])
def test_case(case):
    options = {"join": case.get("join", False), "stamps": True}
    if case["format"] == "json":
        options |= {"envelope": case.get("envelope", False), "sorts_keys": case.get("sorts_keys", False)}
    make = csv_processing if case["format"] == "csv" else json_processing
    processing = make("$", case.get("output_filter", "$"), **options)
    prepared = processing.prepare(Records([case["record"].encode()], [0]))
    source = prepared.sources[0] if prepared.sources is not None else None
    assert processing.cuts_responses
    assert processing.finish(case["prediction"].encode(), source, STAMP) == case["output"].encode()


def test_ids_of_a_run_are_all_different_and_the_same_when_a_record_is_sent_again():
    run = InferenceIds(str(uuid.uuid4()), 1661820555.9)
    stamps = {(key, record): run.stamp(key, record) for key in ("a", "b", "1/a") for record in (0, 1, 11)}
    assert len({stamp.inference_id for stamp in stamps.values()}) == 9
    assert {stamp.inference_time for stamp in stamps.values()} == {"2022-08-30T00:49:15Z"}
    assert all(run.stamp(*place) == stamp for place, stamp in stamps.items())
    other = InferenceIds(str(uuid.uuid4()), 1661820555.9)
    assert not {other.stamp(*place).inference_id for place in stamps} & {stamp.inference_id for stamp in stamps.values()}
