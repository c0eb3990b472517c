"""How a mini-batch is cut where the model cannot take it whole: pure decisions, told apart from who is asked.

A record that ends the model's process is looked for by bisection; what memory does not hold is cut to sizes that fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Answer = TypeVar("Answer")


def isolate(
    n_records: int, crash: Answer, ask: Callable[[int, int], Answer], is_crash: Callable[[Answer], bool]
) -> Iterator[tuple[int, int, Answer]]:
    """Answers to all records of a request that ended the model's process, with each record to blame alone.

    Answers of halves are kept, so no record is asked again that was answered. Each record to blame costs one request for
    every halving (14 for 10,000 records), one that asks it alone, and one for all that come after it.

    Args:
        n_records: how many records the request held.
        crash: what became of it.
        ask: asks for the records from one index to another, once.
        is_crash: whether that ended the process too.

    Yields:
        Spans of records with their answers, in order, each record once. A crash has a span of one record.
    """
    at, asked = 0, (0, n_records)
    while True:
        end = n_records
        while end - at > 1:
            middle = (at + end) // 2
            answer = ask(at, middle)
            if is_crash(answer):
                end, asked, crash = middle, (at, middle), answer
            else:
                yield at, middle, answer
                at = middle
        # Where all else of its span was answered, nobody saw it crash: the process may have been killed from outside.
        yield at, end, crash if asked == (at, end) else ask(at, end)
        at = end
        if at == n_records:
            return
        crash, asked = ask(at, n_records), (at, n_records)
        if not is_crash(crash):
            yield at, n_records, crash
            return


class FittingSize:
    """How large a request may be for the memory there is, learnt from those that were too large.

    Memory follows the number of records (images of one size), or their bytes (text), and nobody says which. A request is taken
    to be too large if it is over *both* limits, so that a few huge records do not make requests of a few tiny ones, nor
    the other way round. Each failure halves at least one limit, so there are few of them, and a job whose records are
    alike sees one for each halving and no more.
    """

    def __init__(self) -> None:
        self._max_records: int | None = None
        self._max_bytes = 0

    def note_failure(self, n_records: int, n_bytes: int) -> None:
        """A request of two records or more was too large; its halves come next."""
        records, size = n_records - n_records // 2, n_bytes - n_bytes // 2
        known = self._max_records is not None
        self._max_bytes = min(self._max_bytes, size) if known else size
        self._max_records = min(self._max_records or records, records)

    def is_over(self, n_records: int, n_bytes: int) -> bool:
        """Whether a request of this size is too large, as far as is known."""
        return self._max_records is not None and n_records > self._max_records and n_bytes > self._max_bytes

    def spans(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """Cut records of these sizes in bytes into the fewest requests of which none is over both limits."""
        n_records = len(sizes)
        if not self.is_over(n_records, sum(sizes)):
            return [(0, n_records)]
        by_records = -(-n_records // (self._max_records or n_records))
        equal = [(n_records * i // by_records, n_records * (i + 1) // by_records) for i in range(by_records)]
        return min(equal, self._by_bytes(sizes), key=len)

    def _by_bytes(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        spans, begin, n_bytes = [], 0, 0
        for index, size in enumerate(sizes):
            if index > begin and n_bytes + size > self._max_bytes:
                spans.append((begin, index))
                begin, n_bytes = index, 0
            n_bytes += size
        return [*spans, (begin, len(sizes))]
