"""JSON objects as Arrow columns: what fits comes out as it was, what does not is named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayxform.core.columns import fitting, infer_schema, to_batch
from rayxform.errors import RecordError
from tests.support import cases


@pytest.mark.parametrize("case", cases("columns"), ids=lambda case: case["source"])
def test_case(case):
    schema = infer_schema([record.encode() for record in case["first"]])
    if "error" in case:
        with pytest.raises(RecordError) as caught:
            to_batch([case["record"].encode()], schema)
        assert case["error"] in caught.value.reason
    else:
        assert to_batch([case["record"].encode()], schema).to_pylist() == [case["row"]]


def test_bad_records_are_found_among_good_ones():
    records = [b'{"a":%d}' % number for number in range(1000)]
    schema = infer_schema(records)
    for number in (0, 17, 18, 999):
        records[number] = b'{"a":"%d"}' % number
    bad = {}
    tables = fitting(records, schema, lambda index, error: bad.update({index: error.reason}))
    assert [row["a"] for table in tables for row in table.to_pylist()] == [n for n in range(1000) if n not in bad]
    assert sorted(bad) == [0, 17, 18, 999]
    assert all(f"column 'a' is \"{number}\"" in reason for number, reason in bad.items())


names = st.text(min_size=1, max_size=3)
leaves = (
    st.none()
    | st.text(max_size=5)
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.dictionaries(names, inner, min_size=1, max_size=3) | st.lists(inner, max_size=0) | inner.map(lambda one: [one, one])
    ),
)


@given(st.dictionaries(names, values, min_size=1, max_size=4))
def test_a_record_fits_the_columns_that_it_gives_itself(record):
    encoded = json.dumps(record, ensure_ascii=False).encode(errors="surrogatepass")
    try:
        encoded.decode()
    except UnicodeDecodeError:  # a lone surrogate, which no JSON text in UTF-8 has
        return
    (row,) = to_batch([encoded], infer_schema([encoded])).to_pylist()
    assert row == record
