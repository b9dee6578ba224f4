"""Charts as inline SVG: crisp at any size, in the colours of the page, readable without a script.

Colours and strokes are classes of report.css, so that charts follow light, dark and print. Every
mark says its numbers when it is pointed at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup

Point = tuple[float, float]

_WIDTH = 380.0  # of the drawing; the page scales it to its column
_LETTER = 6.6  # mean width of a letter of the labels, in the same unit


@dataclass(frozen=True)
class Row:
    """A row of `intervals`: a mean with its interval, and the patients it is the mean of.

    Attributes:
        label: Stands above the row.
        mean: Middle mark; None where nothing was scored.
        low: Lower end of the interval; None where there is none.
        high: Upper end.
        points: Name and value of each patient; may be empty.
        colour: Number of a colour of the page, from 1.
        note: Stands beside the label, such as "n = 6".
    """

    label: str
    mean: float | None
    low: float | None
    high: float | None
    points: Sequence[tuple[str, float]] = ()
    colour: int = 1
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A line of `lines`.

    Attributes:
        name: For the legend.
        points: (x, y) in ascending x.
        colour: Number of a colour of the page, from 1; 0 is grey.
        dashed: Whether it is dashed.
        dots: Area of a mark at each point as a share of the largest, 0 to 1; empty for no marks.
    """

    name: str
    points: Sequence[Point]
    colour: int = 1
    dashed: bool = False
    dots: Sequence[float] = ()


def ticks(low: float, high: float, number: int = 5) -> list[float]:
    """Round values that cover low to high, about `number` steps of 1, 2 or 5 times a power of 10.

    The first is at or below `low`, the last at or above `high`; one step where both are equal but
    for rounding.
    """
    if not high - low > 1e-9 * abs(low):
        high = low + (abs(low) or 1.0)
    raw = (high - low) / number
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * base for base in (1, 2, 5, 10) if power * base >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def intervals(
    rows: Sequence[Row], *, label: str, unit: str, zero: bool = False, most: float | None = None
) -> Markup:
    """Means with their intervals, one below the other, over the patients they come from.

    Args:
        rows: At least one.
        label: What the chart shows, for people who hear the page.
        unit: Stands below the axis.
        zero: Whether a line marks zero, as in a chart of differences.
        most: The axis does not go beyond; 1.0 for a share.

    Returns:
        An SVG element.
    """
    values = [value for row in rows for _, value in row.points]
    values += [v for row in rows for v in (row.mean, row.low, row.high) if v is not None]
    if zero:
        values.append(0.0)
    marks = ticks(min(values, default=0.0), max(values, default=1.0))
    if most is not None:
        marks = [mark for mark in marks if mark <= most + 1e-9]
    scale = _Scale(marks[0], max(marks[-1], max(values, default=1.0)), 16, _WIDTH - 16)
    bottom = 6 + 46.0 * len(rows)
    canvas = _Canvas(bottom + 38, label)
    canvas.x_axis(scale, marks, 2, bottom, unit)
    if zero:
        canvas.line((scale(0), 2), (scale(0), bottom), "zero")
    for index, row in enumerate(rows):
        _interval_row(canvas, scale, row, 6 + 46.0 * index)
    return canvas.markup()


def _interval_row(canvas: _Canvas, scale: _Scale, row: Row, top: float) -> None:
    canvas.heading(top + 13, row.label, row.note)
    middle = top + 30
    for rank, (name, value) in enumerate(row.points):
        # Patients of equal value side by side, the same way in every report.
        place = middle + (-5, 0, 5)[rank % 3]
        canvas.dot((scale(value), place), 3, f"point c{row.colour}", f"{name}: {_plain(value)}")
    if row.mean is None:
        canvas.text((16, middle + 4), "not scored", "note")
        return
    told = f"{row.label}: {_plain(row.mean)}"
    if row.low is not None and row.high is not None:
        told += f", 95 % interval {_plain(row.low)} to {_plain(row.high)}"
        canvas.line(
            (scale(row.low), middle), (scale(row.high), middle), f"whisker c{row.colour}", told
        )
        for end in (row.low, row.high):
            canvas.line(
                (scale(end), middle - 5), (scale(end), middle + 5), f"whisker c{row.colour}"
            )
    canvas.diamond((scale(row.mean), middle), 6, f"mean c{row.colour}", told)


def lines(
    series: Sequence[Line],
    *,
    label: str,
    axes: tuple[str, str],
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
) -> Markup:
    """Lines over a common axis, with a legend above.

    Args:
        series: Lines; those without a point stand in the legend alone.
        label: What the chart shows, for people who hear the page.
        axes: What x and y are.
        x_range: Ends of the x axis; None takes them from the points.
        y_range: Ends of the y axis, likewise.
        diagonal: Whether a line marks y = x.

    Returns:
        An SVG element.
    """
    points = [point for line in series for point in line.points]
    x_marks = ticks(*(x_range or _ends([x for x, _ in points])))
    y_marks = ticks(*(y_range or _ends([y for _, y in points])))
    places = _legend_places([line.name for line in series])
    top = 22.0 + (places[-1][1] if places else 0.0)
    bottom = top + 200
    left = 22 + _LETTER * max(len(_plain(mark)) for mark in y_marks)
    across = _Scale(x_marks[0], x_marks[-1], left, _WIDTH - 14)
    up = _Scale(y_marks[0], y_marks[-1], bottom, top)
    canvas = _Canvas(bottom + 38, label)
    canvas.x_axis(across, x_marks, top, bottom, axes[0])
    for mark in y_marks:
        canvas.line((left, up(mark)), (_WIDTH - 14, up(mark)), "grid")
        canvas.text((left - 5, up(mark) + 4), _plain(mark), "tick", anchor="end")
    canvas.text((12, (top + bottom) / 2), axes[1], "axis", anchor="middle", turned=True)
    if diagonal:
        ends = (max(x_marks[0], y_marks[0]), min(x_marks[-1], y_marks[-1]))
        canvas.line((across(ends[0]), up(ends[0])), (across(ends[1]), up(ends[1])), "ideal")
    for line, (x, y) in zip(series, places, strict=True):
        style = f"line c{line.colour}{' dashed' if line.dashed else ''}"
        canvas.line((x, y + 8), (x + 18, y + 8), style)
        canvas.text((x + 23, y + 12), line.name, "legend")
        canvas.path([(across(a), up(b)) for a, b in line.points], style, line.name)
        for (a, b), share in zip(line.points, line.dots, strict=False):
            told = f"{line.name}: {_plain(a)}, {_plain(b)}"
            radius = 2.5 + 4.5 * math.sqrt(max(share, 0.0))
            canvas.dot((across(a), up(b)), radius, f"point c{line.colour}", told)
    return canvas.markup()


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return (min(values), max(values)) if values else (0.0, 1.0)


def _legend_places(names: Sequence[str]) -> list[Point]:
    """Upper left corners of the entries, as many in a line as fit."""
    places: list[Point] = []
    x, y = 16.0, 0.0
    for name in names:
        width = 40 + _LETTER * len(name)
        if places and x + width > _WIDTH:
            x, y = 16.0, y + 18
        places.append((x, y))
        x += width
    return places


def _plain(value: float) -> str:
    """A number for people: at most four digits after the point, none that say nothing."""
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    text = f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "−") if text not in ("-0", "") else "0"


@dataclass(frozen=True)
class _Scale:
    """From values to the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + share * (self.end - self.start)


class _Canvas:
    """An SVG element that is being drawn; text in it is escaped."""

    def __init__(self, height: float, label: str) -> None:
        size = f"0 0 {_WIDTH:g} {height:g}"
        attributes = {"viewBox": size, "class": "chart", "role": "img", "aria-label": label}
        self._root = ElementTree.Element("svg", attributes)

    def markup(self) -> Markup:
        return Markup(ElementTree.tostring(self._root, encoding="unicode"))

    def _add(self, tag: str, style: str, told: str = "", **values: str | float) -> None:
        attributes = {
            name.replace("_", "-"): value if isinstance(value, str) else f"{value:.1f}"
            for name, value in values.items()
        }
        element = ElementTree.SubElement(self._root, tag, {"class": style, **attributes})
        if told:
            ElementTree.SubElement(element, "title").text = told

    def text(
        self, at: Point, words: str, style: str, *, anchor: str = "start", turned: bool = False
    ) -> None:
        if not words:
            return
        extra = {"transform": f"rotate(-90 {at[0]:.1f} {at[1]:.1f})"} if turned else {}
        self._add("text", style, x=at[0], y=at[1], text_anchor=anchor, **extra)
        self._root[-1].text = words

    def heading(self, y: float, label: str, note: str) -> None:
        """A label on the left, cut where it would run into the note on the right."""
        room = int((_WIDTH - 40 - _LETTER * len(note)) / (_LETTER * 1.1))
        shown = label if len(label) <= room else f"{label[: room - 1]}…"
        self.text((16, y), shown, "label")
        if shown != label:
            ElementTree.SubElement(self._root[-1], "title").text = label
        self.text((_WIDTH - 16, y), note, "note", anchor="end")

    def line(self, start: Point, end: Point, style: str, told: str = "") -> None:
        self._add("line", style, told, x1=start[0], y1=start[1], x2=end[0], y2=end[1])

    def dot(self, at: Point, radius: float, style: str, told: str = "") -> None:
        self._add("circle", style, told, cx=at[0], cy=at[1], r=radius)

    def diamond(self, at: Point, radius: float, style: str, told: str = "") -> None:
        x, y = at
        corners = [(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y)]
        self._add("path", style, told, d=f"M{_joined(corners)}Z")

    def path(self, points: Sequence[Point], style: str, told: str = "") -> None:
        if points:
            self._add("path", style, told, d=f"M{_joined(points)}", fill="none")

    def x_axis(
        self, scale: _Scale, marks: Sequence[float], top: float, bottom: float, unit: str
    ) -> None:
        for mark in marks:
            self.line((scale(mark), top), (scale(mark), bottom), "grid")
            self.text((scale(mark), bottom + 15), _plain(mark), "tick", anchor="middle")
        self.line((scale.start, bottom), (scale.end, bottom), "base")
        middle = (scale.start + scale.end) / 2
        self.text((middle, bottom + 32), unit, "axis", anchor="middle")


def _joined(points: Sequence[Point]) -> str:
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
