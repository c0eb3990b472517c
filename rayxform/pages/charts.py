"""Charts as numbers for SVG: a step line in a box of 1000 by 100, with the labels of its axes beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, log10

WIDTH, HEIGHT = 1000, 100
MOST_STEPS = 120
_TABLE_ROWS = 12


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        name: what it shows, a word for ids.
        title: what it shows, with its unit.
        summary: the same in words, for who does not see it.
        line: the SVG path of the line.
        area: the SVG path of the area below it.
        marks: where on the x axis later runs began.
        y_labels: the labels of the y axis, from the top.
        x_labels: the labels of the x axis, from the left.
        rows: some of its values, as texts: time and value.
        values: all of them, for the reading under the pointer: from 0 to 1 on the x axis, time and value.
    """

    name: str
    title: str
    summary: str
    line: str
    area: str
    marks: Sequence[float]
    y_labels: Sequence[str]
    x_labels: Sequence[str]
    rows: Sequence[tuple[str, str]]
    values: Sequence[tuple[float, str, str]]


def make_chart(
    name: str,
    title: str,
    steps: Sequence[tuple[float, float, float]],
    end_s: float,
    *,
    marks: Sequence[float] = (),
    show: Callable[[float], str],
) -> Chart | None:
    """Draw what has one value for each span of time.

    Args:
        name: a word for ids.
        title: what it shows, with its unit.
        steps: where each span begins and ends, in seconds, and its value.
        end_s: where the x axis ends, in seconds.
        marks: times at which later runs began, in seconds.
        show: a value as a text.

    Returns:
        The chart; None where there is nothing to draw.
    """
    if not steps or end_s <= 0 or not any(value for _, _, value in steps):
        return None
    top = nice_top(max(value for _, _, value in steps))
    points = []
    for begin, end, value in steps:
        y = round(HEIGHT * (1 - value / top), 2)
        points += [(round(WIDTH * begin / end_s, 2), y), (round(WIDTH * min(end, end_s) / end_s, 2), y)]
    line = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
    values = [(round((begin + end) / 2 / end_s, 4), duration((begin + end) / 2), show(value)) for begin, end, value in steps]
    every = max(len(values) // _TABLE_ROWS, 1)
    most = max(steps, key=lambda step: step[2])
    return Chart(
        name=name,
        title=title,
        summary=f"{title}, over {duration(end_s)}: at most {show(most[2])}, after {duration(most[0])}; "
        f"at the end {show(steps[-1][2])}",
        line=line,
        area=f"{line}L{points[-1][0]:g} {HEIGHT}L{points[0][0]:g} {HEIGHT}Z",
        marks=[round(WIDTH * at / end_s, 2) for at in marks],
        y_labels=[show(top), show(top / 2), "0"],
        x_labels=["0 s", duration(end_s / 2), duration(end_s)],
        rows=[(at, value) for _, at, value in values[::every]],
        values=values,
    )


def merged(
    spans: Sequence[tuple[float, float, float]], merge: Callable[[Sequence[tuple[float, float, float]]], float]
) -> list[tuple[float, float, float]]:
    """At most MOST_STEPS spans, of which each takes the place of as many as needed; ``merge`` gives its value."""
    size = -(-len(spans) // MOST_STEPS) or 1
    groups = [spans[at : at + size] for at in range(0, len(spans), size)]
    return [(group[0][0], group[-1][1], merge(group)) for group in groups]


def nice_top(value: float) -> float:
    """The least of 1, 2, 4, 6, 8 and 10 times a power of ten that is not below a value."""
    power = 10.0 ** floor(log10(value))
    return next(step * power for step in (1, 2, 4, 6, 8, 10, 20) if step * power >= value * 0.999999)


def duration(seconds: float) -> str:
    """``75`` → ``1 min 15 s``."""
    if 0 < seconds < 1:
        return f"{seconds:.2f} s" if seconds >= 0.005 else "under 0.01 s"
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def count(value: float) -> str:
    """``12345.6`` → ``12,346``; small numbers keep a digit, large ones are short."""
    if value >= 1e6:
        return f"{value / 1e6:,.3g} M" if value < 1e9 else f"{value / 1e9:,.4g} G"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def n_bytes(value: float) -> str:
    """Bytes in powers of ten: ``3540573`` → ``3.54 MB``."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 1000 * size else f"{value / size:,.0f} {unit}"
    return f"{value:.0f} B"
