import re

import pytest

from src.report.charts import Line, Row, intervals, lines, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.885, 0.973, [0.88, 0.9, 0.92, 0.94, 0.96, 0.98]),
        (1.0, 24.0, [0, 5, 10, 15, 20, 25]),
        (-0.01, 0.05, [-0.02, 0.0, 0.02, 0.04, 0.06]),
        (0.0, 0.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    ],
)
def test_ticks_are_round_and_cover_the_range(
    low: float, high: float, expected: list[float]
) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_marks_lie_where_their_values_are() -> None:
    row = Row("lesion", mean=0.5, low=0.0, high=1.0)
    chart = str(intervals([row], label="Dice", unit="Dice"))
    # The axis runs from x = 16 to 380 - 16: the whisker from end to end, the diamond in the middle.
    assert 'class="whisker c1" x1="16.0" y1="36.0" x2="364.0" y2="36.0"' in chart
    assert 'd="M190.0 30.0L196.0 36.0L190.0 42.0L184.0 36.0Z"' in chart
    assert "lesion: 0.5, 95 % interval 0 to 1" in chart


def test_a_row_without_a_score_says_so() -> None:
    chart = str(intervals([Row("lesion", None, None, None)], label="Dice", unit="Dice"))
    assert "not scored" in chart
    assert "whisker" not in chart


def test_a_share_has_no_tick_above_one() -> None:
    row = Row("lesion", mean=0.97, low=0.94, high=0.999)
    chart = str(intervals([row], label="Dice", unit="Dice", most=1.0))
    shown = [float(found) for found in re.findall(r'class="tick"[^>]*>([\d.]+)<', chart)]
    assert max(shown) <= 1.0


def test_a_line_goes_through_its_points() -> None:
    line = Line("risk", [(0.0, 0.0), (1.0, 1.0)])
    chart = str(lines([line], label="risk", axes=("x", "y")))
    # Up from the lower left corner (22 + 3 letters of 6.6) to the upper right one.
    assert 'd="M41.8 222.0L366.0 22.0"' in chart


def test_a_line_without_a_point_stands_in_the_legend_alone() -> None:
    chart = str(lines([Line("dropout", [])], label="risk", axes=("x", "y")))
    assert "dropout" in chart
    assert "<path" not in chart


def test_names_are_escaped_and_long_ones_are_cut_before_the_note() -> None:
    name = "<b>" + "very long " * 10
    chart = str(intervals([Row(name, 0.5, 0.4, 0.6, note="n = 6")], label="Dice", unit="Dice"))
    assert "<b>" not in chart
    assert "&lt;b&gt;very long" in chart
    assert "…</text>" in chart or "…<title>" in chart


def test_values_that_differ_by_rounding_alone_stand_at_one_place() -> None:
    assert ticks(0.711, 0.711 + 1e-16) == ticks(0.711, 0.711)
