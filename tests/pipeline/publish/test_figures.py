"""The drawings keep their proportions, whatever they are given."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.publish.report import figures


def _river(counts: list[int]) -> str:
    branches = [
        figures.Branch(label=f"<reason> {n}", note="left out", count=count, colour="lost")
        for n, count in enumerate(counts)
    ]
    return str(
        figures.river(branches, given=sum(counts), unit="records", description='a "flow" & more')
    )


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=12).filter(any))
def test_branches_of_a_river_fill_its_width_and_none_is_invisible(counts: list[int]) -> None:
    widths = [float(width) for width in re.findall(r" v([\d.]+) ", _river(counts))]
    assert len(widths) == sum(count > 0 for count in counts)
    assert sum(widths) == pytest.approx(170, abs=0.1 * len(widths))
    assert min(widths) > 1.5


def test_wider_branch_has_more_in_it() -> None:
    widths = [float(width) for width in re.findall(r" v([\d.]+) ", _river([10, 30, 60]))]
    assert widths == pytest.approx([17, 51, 102])


def test_labels_are_escaped() -> None:
    drawing = _river([1])
    assert "<reason>" not in drawing
    assert 'aria-label="a &quot;flow&quot; &amp; more"' in drawing


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40), st.floats(-1, 1))
def test_bars_of_a_histogram_stay_inside_the_axes(counts: list[int], low: float) -> None:
    edges = [low + 0.01 * n for n in range(len(counts) + 1)]
    drawing = figures.histogram(
        edges, [("all", counts, "kept-1")], x_label="score", y_label="texts",
        marks=[figures.Mark(label="cut", value=low)], description="scores",
    )  # fmt: skip
    (shape,) = re.findall(r'<path d="(M[^"]*Z)" class="area', str(drawing))
    heights = [float(y) for y in re.findall(r"V([\d.]+)", shape)]
    assert all(34 <= y <= 222 for y in heights)
    assert (min(heights) == pytest.approx(34)) == any(counts)


@pytest.mark.parametrize("points", [[(1, 2.0)], [(1, 2.0), (2, 2.0)], [(1, 0.0), (2, 0.0)]])
def test_line_of_one_value_is_drawn(points: list[tuple[float, float]]) -> None:
    line = figures.Line(label="loss", points=points, colour="kept-1")
    drawing = str(figures.line_chart([line], x_label="step", y_label="nats", description="loss"))
    assert "nan" not in drawing
    assert drawing.count("<circle") == len(points)


@given(st.integers(1, 999_999))
def test_numbers_below_a_chart_stay_on_the_drawing(last: int) -> None:
    line = figures.Line(label="a", points=[(0, 1.0), (last, 2.0)], colour="kept-1")
    drawing = figures.line_chart([line], x_label="step", y_label="dB", description="d")
    found = re.findall(r'<text x="([\d.]+)" y="[\d.]+" class="small middle">([^<]+)<', drawing)
    assert len(found) >= 2
    # A digit is about 6.8 units wide.
    assert all(float(x) + 3.4 * len(number) <= 480 for x, number in found)


def test_a_line_of_zeros_has_no_axis_of_tiny_fractions() -> None:
    line = figures.Line(label="dead", points=[(0, 0), (10, 0)], colour="kept-1")
    drawing = figures.line_chart([line], x_label="step", y_label="codes", description="d")
    ticks = re.findall(r'class="small number">([^<]+)<', drawing)
    assert ticks[0] == "0"
    assert ticks[-1] == "1"


@given(st.lists(st.text("ab c", min_size=1, max_size=30), min_size=1, max_size=9))
def test_legend_takes_the_rows_that_it_needs(labels: list[str]) -> None:
    lines = [figures.Line(label=label, points=[(0, 1)], colour="kept-1") for label in labels]
    drawing = str(figures.line_chart(lines, x_label="x", y_label="y", description="lines"))
    (left, top, width, height) = map(int, re.findall(r'viewBox="(.*?)"', drawing)[0].split())
    marks = [(float(x), float(y)) for x, y in re.findall(r'<rect x="(.*?)" y="(.*?)"', drawing)]
    assert len(set(marks)) == len(labels)
    assert all(top <= y < 22 for _, y in marks)
    for label, (x, _) in zip(labels, marks, strict=True):
        assert x + 18 + 6.6 * len(label) <= width
    assert height + top == 270
    assert left == 0


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_marks_and_their_intervals_stay_inside_the_axes(
    low: float, value: float, high: float
) -> None:
    mark = figures.Mark(
        label="cut", value=value, low=min(low, high) - 0.5, high=max(low, high) + 0.5
    )
    drawing = figures.histogram(
        [0.0, 0.5, 1.0], [("all", [1, 2], "kept-1")], x_label="score", y_label="texts",
        marks=[mark, figures.Mark(label="far", value=7.0)], description="scores",
    )  # fmt: skip
    ((left, width),) = re.findall(r'<rect x="([\d.]+)" y="26" width="([\d.]+)"', str(drawing))
    assert float(left) >= 66
    assert float(left) + float(width) <= 472.1
    assert "cut" in drawing
    assert "far" not in drawing
