"""Where lines begin, however long they are."""

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayxform.core import lines
from rayxform.core.lines import Lines, find_lines

SIZES = st.lists(st.sampled_from([0, 1, 7, 798, 799, 800, 801, 3000]) | st.integers(0, 2000), max_size=60)


def found(text, begin, at_once):
    """Where each line begins, and behind them where the rest does, as all portions say together."""
    portions = [list(starts) for starts in find_lines(text, begin, at_once)]
    assert all(0 < len(portion) - 1 <= at_once for portion in portions)
    assert all(before[-1] == after[0] for before, after in pairwise(portions)), "one goes on where the other ends"
    return [start for portion in portions for start in portion[:-1]] + [portion[-1] for portion in portions[-1:]]


@pytest.mark.parametrize("at_once", [1, 3, 16_384])
@given(SIZES, SIZES, st.integers(0, 2000))
def test_lines_are_found_whatever_their_length(at_once, before, sizes, rest):
    begin = sum(size + 1 for size in before)
    text = b"".join(b"x" * size + b"\n" for size in [*before, *sizes]) + b"y" * rest
    ends = [begin, *accumulate((size + 1 for size in sizes), initial=begin)][1:]
    assert found(text, begin, at_once) == (ends if sizes else [])


@pytest.mark.parametrize("size", [3, 900])
def test_so_many_lines_that_it_is_looked_again(size):
    """More than are looked for at once of either kind, and then some of the other."""
    other = 3 if size == 900 else 900
    sizes = [size] * 1500 + [other] * 1500 + [size] * 10
    text = b"".join(b"x" * one + b"\n" for one in sizes)
    assert len(text) > 4 * lines._PIECE_BYTES
    starts = found(text, 0, 16_384)
    assert starts == [0, *accumulate(one + 1 for one in sizes)]
    assert [
        len(line) for line in Lines(text, memoryview(b"".join(at.to_bytes(8, "little") for at in starts)).cast("q"))
    ] == sizes
