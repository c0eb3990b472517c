"""Lines by group, whether they fit into memory or not."""

import os
import random
import tempfile
from contextlib import closing

import pytest

from rayxform.storage.grouping import GroupedLines


@pytest.mark.parametrize("max_bytes", [1, 500, 10**9])
def test_groups_and_lines_keep_their_order(max_bytes):
    rng = random.Random(1)
    expected: dict[bytes, list[bytes]] = {}
    before = os.listdir(tempfile.gettempdir())
    with closing(GroupedLines(max_bytes)) as grouped:
        for number in range(2000):
            group, line = b"%d" % rng.randrange(50), b"%d" % number * rng.randrange(5)
            grouped.add(group, line)
            expected.setdefault(group, []).append(line)
        assert {group: list(grouped.lines(group)) for group in grouped.groups()} == expected
        assert grouped.groups() == list(expected)
        assert {
            name for name in os.listdir(tempfile.gettempdir()) if name.startswith("rayxform-") and name not in before
        } == set()
