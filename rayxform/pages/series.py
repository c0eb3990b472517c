"""What a job did over time, as a bounded number of points, however long it runs."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from rayxform.storage.event_log import Event

MOST_POINTS = 300


@dataclass(frozen=True)
class Point:
    """A span of time.

    Attributes:
        at_s: when it began, in seconds of running time.
        records_per_s: records written a second in it.
        waiting: what was still waiting at its end.
    """

    at_s: float
    records_per_s: float
    waiting: float


class Series:
    """Takes a job's events one by one; the spans grow with the job, so that there are never more than MOST_POINTS.

    Time is running time: pauses between a job's runs are left out.

    Attributes:
        width_s: how long a span is, in seconds.
        end_s: the running time so far.
        run_begins_s: when later runs began.
    """

    def __init__(self) -> None:
        self.width_s = 1.0
        self.end_s = 0.0
        self.run_begins_s: list[float] = []
        self._shift: float | None = None
        self._records = array("d")
        self._waiting = array("d")

    def take(self, event: Event, waiting: float) -> None:
        """Note what happened.

        Args:
            event: the event.
            waiting: what is left to do after it.
        """
        if self._shift is None:
            self._shift = event.time
        elif event.event == "Plan":
            self._shift = event.time - self.end_s
            if len(self.run_begins_s) < MOST_POINTS:
                self.run_begins_s.append(self.end_s)
        # Workers on other machines have clocks of their own.
        self.end_s = max(self.end_s, event.time - self._shift)
        self._reach(self.end_s)
        if event.event == "Part":
            self._records[-1] += event.records
        self._waiting[-1] = waiting

    def running_time(self, now: float) -> float:
        """The running time at a Unix time, for a job that goes on."""
        return max(self.end_s, now - self._shift) if self._shift is not None else 0.0

    def points(self, now_s: float | None = None) -> Sequence[Point]:
        """The spans in order, up to a running time, in which nothing may have happened lately."""
        end_s = max(now_s or 0.0, self.end_s)
        found = []
        for index, (records, waiting) in enumerate(zip(self._records, self._waiting, strict=True)):
            begin = index * self.width_s
            # The last span is not over yet.
            span_s = max(min(self.width_s, end_s - begin), self.width_s / 4)
            found.append(Point(begin, records / span_s, waiting))
        if found and end_s > (last := len(found) * self.width_s):
            found.append(Point(last, 0.0, found[-1].waiting))
        return found

    def _reach(self, at_s: float) -> None:
        """Make spans up to a time; twice as long ones when there would be too many."""
        while at_s >= MOST_POINTS * self.width_s:
            self._records = array("d", (sum(self._records[at : at + 2]) for at in range(0, len(self._records), 2)))
            self._waiting = array("d", (self._waiting[at : at + 2][-1] for at in range(0, len(self._waiting), 2)))
            self.width_s *= 2
        while len(self._records) <= at_s / self.width_s:
            self._records.append(0.0)
            self._waiting.append(self._waiting[-1] if self._waiting else 0.0)
