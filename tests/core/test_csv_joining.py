"""CSV rows: which fields are sent, what a join gives, byte for byte."""

import csv
import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayxform.core.csv_joining import csv_processing, split_row
from rayxform.core.splitting import Records
from rayxform.errors import JsonPathError, RecordError
from tests.support import cases


def bytes_of(case, name, default=None):
    return bytes.fromhex(case[f"{name}_hex"]) if f"{name}_hex" in case else case.get(name, default).encode()


@pytest.mark.parametrize("case", cases("csv"), ids=lambda case: case["source"])
def test_case(case):
    processing = csv_processing(case.get("input_filter", "$"), case.get("output_filter", "$"), join=case.get("join", False))
    row = bytes_of(case, "row")
    prepared = processing.prepare(Records([row], [0]))
    if "record_error" in case:
        assert case["record_error"] in prepared.errors[0].reason
        return
    assert not prepared.errors
    assert prepared.sent == [row if "sent" not in case and "sent_hex" not in case else bytes_of(case, "sent")]
    source = prepared.sources[0] if prepared.sources is not None else None
    if "prediction_error" in case:
        with pytest.raises(RecordError, match=case["prediction_error"]):
            processing.finish(case["prediction"].encode(), source)
    else:
        assert processing.finish(case["prediction"].encode(), source) == case["output"].encode()


@pytest.mark.parametrize("expression", ["$.a", "$['a','b']", "$[0].a", "$[0:2][1]"])
def test_filters_that_a_row_has_nothing_for_are_refused(expression):
    with pytest.raises(JsonPathError, match="fields by position only"):
        csv_processing("$", expression, join=False)


texts = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=8)


@given(st.lists(texts, min_size=1, max_size=6), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_rows_of_pythons_csv_are_cut_into_its_fields(fields, quoting):
    text = io.StringIO()
    csv.writer(text, quoting=quoting, lineterminator="").writerow(fields)
    row = text.getvalue().encode()
    found = split_row(row)
    assert b",".join(found) == row
    # A row of one empty field is written as "".
    assert [next(csv.reader([field.decode()]), [""])[0] if field else "" for field in found] == fields


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_a_record_error(row):
    try:
        assert b",".join(split_row(row)) == row
    except RecordError as error:
        assert "RFC 4180" in error.reason


def test_a_long_quoted_field_takes_no_more_memory_than_itself():
    row = b'"' + b"x" * 2_000_000 + b'",2'
    tracemalloc.start()
    assert [len(field) for field in split_row(row)] == [2_000_002, 1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * len(row)
