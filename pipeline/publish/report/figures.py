"""The report's drawings as inline SVG, coloured by the page's style sheet.

Written by hand and not by matplotlib: its SVG fixes the colours, so that it cannot follow the page
into dark mode, and draws letters as paths, which no one can search or read aloud. Coordinates are
in units of the viewBox, where text is 13 high; at 360 px that is still 10 px. ElementTree escapes
every label, so that templates may take the drawings as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from matplotlib.ticker import MaxNLocator

_WIDTH, _HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 456, 34, 222  # to the right, half of a label such as 200,000
_LEGEND_ROW = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """Something that flows out of the river: a reason or a stream.

    Attributes:
        label: what it is.
        note: what stands small above the label, where it differs from the branch before.
        count: how many.
        colour: class of the style sheet, such as `lost` or `kept-1`.
    """

    label: str
    note: str
    count: int
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a chart: (x, y) points in data units, and its class in the style sheet."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A value on a chart's x axis with its interval, where it has one."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None


def river(branches: Sequence[Branch], *, given: int, unit: str, description: str) -> str:
    """A flow that comes in at the top and leaves to the right, branch by branch.

    Widths are in proportion to the counts; the thinnest branch is still visible.

    Args:
        branches: from the first to leave to the last.
        given: how many come in.
        unit: what they are, such as `records`.
        description: the flow in words, for those who cannot see it.
    """
    trunk, turn, end, gap = 170.0, 10.0, 205.0, 12.0
    shown = [branch for branch in branches if branch.count]
    widths = [max(2.0, trunk * branch.count / given) for branch in shown]
    scale = trunk / max(sum(widths), 1.0)
    top, right, note = 56.0, trunk, ""
    places = []
    for branch, width in zip(shown, widths, strict=True):
        top += 16 if branch.note != note else 0
        places.append((branch, width * scale, right, top, branch.note != note))
        right -= width * scale
        top += max(width * scale, 15) + gap
        note = branch.note
    svg = _canvas(description, _WIDTH, top)
    _text(svg, 0, 18, f"{given:,} {unit}", "strong")
    for branch, width, right, top, first in places:
        shape = (
            f"M{right - width:.1f},28 H{right:.1f} V{top - turn:.1f}"
            f" A{turn},{turn} 0 0 0 {right + turn:.1f},{top:.1f} H{end} v{width:.1f}"
            f" H{right + turn:.1f} A{turn + width:.1f},{turn + width:.1f} 0 0 1"
            f" {right - width:.1f},{top - turn:.1f} Z"
        )
        _element(svg, "path", {"d": shape, "class": f"fill ribbon {branch.colour}"})
        middle = top + max(width / 2, 4) + 4.5
        if first:
            _text(svg, end + 10, middle - 18, branch.note, "small")
        _text(svg, end + 10, middle, branch.label)
        _text(svg, _WIDTH, middle, f"{branch.count:,}", "number strong")
    return ET.tostring(svg, encoding="unicode")


def histogram(
    edges: Sequence[float],
    groups: Sequence[tuple[str, Sequence[float], str]],
    *,
    x_label: str,
    y_label: str,
    marks: Sequence[Mark],
    description: str,
) -> str:
    """Overlaid histograms with common bins.

    Args:
        edges: borders of the bins.
        groups: label, heights and class of the style sheet of each.
        x_label: what the values are, with their unit.
        y_label: what is counted.
        marks: thresholds; one outside of the edges is left out.
        description: the chart in words.
    """
    svg = _canvas(description, _WIDTH, _HEIGHT)
    highest = max((max(counts, default=0) for _, counts, _ in groups), default=0) or 1
    axes = _axes(svg, (edges[0], edges[-1]), (0, highest), x_label=x_label, y_label=y_label)
    for _, counts, colour in groups:
        x, y = axes.x(edges[0]), axes.y(0)
        shape = f"M{x:.1f},{y:.1f}"
        for upper, count in zip(edges[1:], counts, strict=True):
            shape += f" V{axes.y(count):.1f} H{axes.x(upper):.1f}"
        _element(svg, "path", {"d": f"{shape} V{y:.1f} Z", "class": f"area {colour}"})
    _legend(svg, [(label, colour) for label, _, colour in groups])
    shown = [mark for mark in marks if edges[0] <= mark.value <= edges[-1]]
    for row, mark in enumerate(shown):
        _mark(svg, axes, mark, row=row, within=(edges[0], edges[-1]))
    return ET.tostring(svg, encoding="unicode")


def line_chart(lines: Sequence[Line], *, x_label: str, y_label: str, description: str) -> str:
    """Lines over a common x axis; one with few points gets dots."""
    svg = _canvas(description, _WIDTH, _HEIGHT)
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    span = (max(ys) - min(ys)) or abs(ys[0]) or 1.0
    low = min(ys) - 0.08 * span
    axes = _axes(
        svg,
        (min(xs), max(xs)),
        # A line of zeros has an axis up to 1.
        (low if min(ys) < 0 else max(0.0, low), max(ys) + (0.04 if any(ys) else 1) * span),
        x_label=x_label,
        y_label=y_label,
    )
    for line in lines:
        places = [f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in line.points]
        _element(svg, "path", {"d": "M" + " L".join(places), "class": f"stroke {line.colour}"})
        if len(places) <= 16:
            for place in places:
                x, y = place.split(",")
                _element(
                    svg, "circle", {"cx": x, "cy": y, "r": "2.6", "class": f"fill {line.colour}"}
                )
    _legend(svg, [(line.label, line.colour) for line in lines])
    return ET.tostring(svg, encoding="unicode")


@dataclass(frozen=True, slots=True)
class _Axes:
    """Where data units lie on the canvas."""

    horizontal: tuple[float, float]
    vertical: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.horizontal
        return _LEFT + (_RIGHT - _LEFT) * (value - low) / ((high - low) or 1)

    def y(self, value: float) -> float:
        low, high = self.vertical
        return _BOTTOM - (_BOTTOM - _TOP) * (value - low) / ((high - low) or 1)


def _axes(
    svg: ET.Element,
    horizontal: tuple[float, float],
    vertical: tuple[float, float],
    *,
    x_label: str,
    y_label: str,
) -> _Axes:
    axes = _Axes(horizontal, vertical)
    for value in _ticks(*vertical):
        y = axes.y(value)
        _element(svg, "path", {"d": f"M{_LEFT},{y:.1f} H{_RIGHT}", "class": "stroke grid"})
        _text(svg, _LEFT - 7, y + 4, _tick(value), "small number")
    for value in _ticks(*horizontal):
        _text(svg, axes.x(value), _BOTTOM + 17, _tick(value), "small middle")
    _element(svg, "path", {"d": f"M{_LEFT},{_BOTTOM} H{_RIGHT}", "class": "stroke axis"})
    _text(svg, (_LEFT + _RIGHT) / 2, _BOTTOM + 40, x_label, "middle")
    label = _text(svg, 13, (_TOP + _BOTTOM) / 2, y_label, "middle")
    label.set("transform", f"rotate(-90 13 {(_TOP + _BOTTOM) / 2:.0f})")
    return axes


def _mark(
    svg: ET.Element, axes: _Axes, mark: Mark, *, row: int, within: tuple[float, float]
) -> None:
    """A dashed line with its label in a row of its own, and a band from `low` to `high`."""
    x = axes.x(mark.value)
    if mark.low is not None and mark.high is not None:
        left, right = axes.x(max(mark.low, within[0])), axes.x(min(mark.high, within[1]))
        place = {"x": f"{left:.1f}", "y": f"{_TOP - 8}", "width": f"{max(right - left, 1):.1f}"}
        height = {"height": f"{_BOTTOM - _TOP + 8}"}
        _element(svg, "rect", {**place, **height, "class": "band"})
    _element(svg, "path", {"d": f"M{x:.1f},{_TOP - 8} V{_BOTTOM}", "class": "stroke cut"})
    side = "number" if x > (_LEFT + _RIGHT) / 2 else ""
    label = f"{mark.label} {mark.value:.3g}"
    top = _TOP + 4 + _LEGEND_ROW * row
    _text(svg, x + (-6 if side else 6), top, label, f"strong halo {side}")


def _ticks(low: float, high: float) -> list[float]:
    ticks = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in ticks if low - 1e-9 <= tick <= high + 1e-9]


def _tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:.4g}"


def _legend(svg: ET.Element, entries: Sequence[tuple[str, str]]) -> None:
    """A mark and a label for each entry, in as many rows above the chart as they need."""
    rows: list[list[tuple[float, str, str]]] = [[]]
    x = float(_LEFT)
    for label, colour in entries:
        width = 34 + 6.6 * len(label)
        if rows[-1] and x + width - 16 > _WIDTH:
            rows.append([])
            x = float(_LEFT)
        rows[-1].append((x, label, colour))
        x += width
    above = _LEGEND_ROW * (len(rows) - 1)
    svg.set("viewBox", f"0 {-above} {_WIDTH} {_HEIGHT + above}")
    for number, row in enumerate(rows):
        top = 7 - above + _LEGEND_ROW * number
        for x, label, colour in row:
            place = {"x": f"{x:.0f}", "y": f"{top}", "width": "12", "height": "12", "rx": "2"}
            _element(svg, "rect", {**place, "class": f"fill {colour}"})
            _text(svg, x + 18, top + 11, label)


def _canvas(description: str, width: float, height: float) -> ET.Element:
    svg = ET.Element("svg", {"viewBox": f"0 0 {width:.0f} {height:.0f}", "role": "img"})
    svg.set("aria-label", description)
    return svg


def _element(
    parent: ET.Element, name: str, attributes: Mapping[str, str] | None = None
) -> ET.Element:
    return ET.SubElement(parent, name, dict(attributes or {}))


def _text(svg: ET.Element, x: float, y: float, text: str, classes: str = "") -> ET.Element:
    label = _element(svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}"})
    if classes.strip():
        label.set("class", classes.strip())
    label.text = text
    return label
