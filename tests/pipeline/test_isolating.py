"""Looking for the records that end the model's process, and learning what memory holds."""

from math import ceil, log2

from hypothesis import given
from hypothesis import strategies as st

from rayxform.pipeline.isolating import FittingSize, isolate


def isolated(n_records, poison, killed_at=()):
    """What isolate gives for some bad records, and how many requests it took; some requests are killed from outside."""
    asked = []

    def ask(begin, end):
        asked.append((begin, end))
        return "crash" if len(asked) in killed_at or any(begin <= bad < end for bad in poison) else "answer"

    spans = list(isolate(n_records, "crash", ask, lambda answer: answer == "crash"))
    return spans, len(asked)


sizes_and_poison = st.integers(1, 3000).flatmap(
    lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1, max_size=min(n, 8)))
)


@given(sizes_and_poison)
def test_every_record_is_answered_once_in_order_and_the_bad_ones_are_found_in_few_requests(case):
    n_records, poison = case
    spans, n_requests = isolated(n_records, poison)
    assert [begin for begin, _, _ in spans] == [0, *(end for _, end, _ in spans)][:-1]
    assert spans[-1][1] == n_records
    assert {begin for begin, end, answer in spans if answer == "crash"} == poison
    assert all(end - begin == 1 for begin, end, answer in spans if answer == "crash")
    assert n_requests <= len(poison) * (ceil(log2(n_records)) + 2)


@given(st.integers(2, 3000), st.integers(0, 5))
def test_no_record_is_blamed_for_one_kill_from_outside(n_records, at):
    """The whole request crashed for no record's fault; nor does a second kill name a record, unless it is the record alone."""
    spans, _ = isolated(n_records, set())
    assert all(answer == "answer" for _, _, answer in spans)
    spans, _ = isolated(n_records, set(), killed_at={at})
    blamed = [(begin, end) for begin, end, answer in spans if answer == "crash"]
    assert all(end - begin == 1 for begin, end in blamed)
    assert sum(end - begin for begin, end, _ in spans) == n_records
    assert not blamed or ceil(log2(n_records)) <= at + 1


def test_one_in_ten_thousand_costs_at_most_sixteen_requests_beside_the_first():
    assert max(isolated(10_000, {bad})[1] for bad in range(0, 10_000, 37)) <= 16


class Memory:
    """A model that fails on more records, or on more bytes, than memory holds, without saying which of the two it was."""

    def __init__(self, fits_records, fits_bytes):
        self.fits_records, self.fits_bytes = fits_records, fits_bytes
        self.fitting = FittingSize()
        self.failures = 0

    def send(self, sizes):
        """The records that were answered, in order."""
        spans = self.fitting.spans(sizes)
        assert not any(self.fitting.is_over(end - begin, sum(sizes[begin:end])) for begin, end in spans)
        return [size for begin, end in spans for size in self.ask(sizes[begin:end])]

    def ask(self, sizes):
        if len(sizes) == 1 or (len(sizes) <= self.fits_records and sum(sizes) <= self.fits_bytes):
            return sizes
        self.failures += 1
        self.fitting.note_failure(len(sizes), sum(sizes))
        middle = len(sizes) // 2
        return self.send(sizes[:middle]) + self.send(sizes[middle:])


@given(
    st.lists(st.lists(st.integers(1, 5000), min_size=1, max_size=200), min_size=1, max_size=20),
    st.integers(1, 100),
    st.integers(5000, 100_000),
)
def test_what_memory_holds_is_learnt_in_few_failures_and_every_record_is_sent(batches, fits_records, fits_bytes):
    memory = Memory(fits_records, fits_bytes)
    for sizes in batches:
        assert memory.send(sizes) == sizes
    # Each failure halves one limit at the least, of 200 records or a million bytes at first.
    assert memory.failures <= 1 + ceil(log2(200)) + ceil(log2(1_000_000))


def test_records_that_are_alike_fail_once_for_each_halving_and_never_again():
    memory = Memory(fits_records=150, fits_bytes=10**9)
    for n_records in (1000, 998, 1000, 1003, 500, 1000):
        memory.send([100] * n_records)
    assert memory.failures == 3


def test_a_few_huge_records_do_not_make_requests_of_a_few_tiny_ones():
    fitting = FittingSize()
    fitting.note_failure(4, 4_000_000)
    assert fitting.spans([1000] * 1000) == [(0, 1000)]
    assert fitting.spans([1_000_000] * 4) == [(0, 2), (2, 4)]
    fitting.note_failure(1000, 1_000_000)
    assert fitting.spans([1000] * 1000) == [(0, 500), (500, 1000)]
    assert fitting.spans([1_000_000] * 4) == [(0, 2), (2, 4)]
