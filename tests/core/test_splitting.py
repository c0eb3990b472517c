"""Which records an object holds, whatever the chunks are that it comes in."""

import pytest

from rayxform.core.joining import PassThrough
from rayxform.core.ranges import Recipe
from tests.support import cases


def bytes_of(case):
    return bytes.fromhex(case["object_hex"]) if "object_hex" in case else case["object"].encode()


@pytest.mark.parametrize("chunk", [1, 2, 5, 1000])
@pytest.mark.parametrize("case", cases("splitting"), ids=lambda case: case["source"])
def test_case(case, chunk):
    text = bytes_of(case)
    splitter = Recipe(case["SplitType"], False, None, None, PassThrough()).splitter(0, aligned=True)
    chunks = [text[at : at + chunk] for at in range(0, len(text), chunk)]
    parts = [part for piece in chunks for part in splitter.feed(piece)] + [splitter.flush()]
    found = [None if part.is_lost(index) else data for part in parts for index, data in enumerate(part.data)]
    hexadecimal = [bytes.fromhex(record) for record in case.get("records_hex", [])]
    assert found == (hexadecimal or [None if record is None else record.encode() for record in case["records"]])
    assert [offset for part in parts for offset in part.offsets] == case["offsets"]
    errors = [error.reason for part in parts for error in part.errors.values()]
    assert len(errors) == ("error" in case)
    assert all(case["error"] in reason for reason in errors)
