import pytest

from src.figures import dice_by_stratum, reliability_diagram, risk_coverage_curves


def state(ece: float) -> dict[str, object]:
    bins = [
        {"low": 0.0, "high": 0.5, "count": 0, "confidence": None, "accuracy": None},
        {"low": 0.5, "high": 0.9, "count": 10, "confidence": 0.7, "accuracy": 0.5},
        {"low": 0.9, "high": 1.0, "count": 90, "confidence": 0.95, "accuracy": 0.9},
    ]
    return {"ece": ece, "bins": bins}


def test_the_reliability_diagram_has_a_panel_a_region_and_a_line_a_state() -> None:
    both = {"before": state(0.1), "after": state(0.02)}
    figure = reliability_diagram({"all_pixels": both, "boundary": both})
    for axes in figure.axes:
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels == ["before: ECE 0.100", "after: ECE 0.020"]
        # The diagonal, then two lines over the bins that hold pixels.
        assert [len(line.get_xdata()) for line in axes.lines] == [2, 2, 2]


def curve(aurc: float | None) -> dict[str, object]:
    found = aurc is not None
    return {
        "coverage": [0.5, 1.0] if found else [], "risk": [0.1, 0.3] if found else [],
        "aurc": aurc, "aurc_ideal": 0.1, "aurc_random": 0.3,
    }  # fmt: skip


def test_each_way_of_asking_is_a_curve_beside_the_random_order() -> None:
    figure = risk_coverage_curves({"entropy": curve(0.2), "dropout": curve(0.15)})
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ["entropy: AURC 0.200", "entropy of dropout runs: AURC 0.150"]
    assert labels[2] == "no order: 0.300; ideal order: AURC 0.100"


def test_without_a_scored_slice_there_is_no_curve() -> None:
    assert not risk_coverage_curves({"entropy": curve(None)}).axes[0].lines


def test_strata_are_rows_from_top_to_bottom_with_their_numbers() -> None:
    rows = [
        {"name": "1 to 2 mm²", "slices": 3, "patients": 2, "mean": 0.5, "low": 0.4, "high": 0.6},
        {"name": "2 to 9 mm²", "slices": 1, "patients": 1, "mean": 0.8, "low": None, "high": None},
    ]
    figure = dice_by_stratum({"class": "lesion", "by_size": rows, "by_source": []})
    by_size, by_source = figure.axes
    names = [text.get_text() for text in by_size.get_yticklabels()]
    assert names[0] == "1 to 2 mm²\n3 slices, 2 patients"
    assert by_size.get_yticks()[0] > by_size.get_yticks()[1]
    assert [line.get_ydata()[0] for line in by_size.lines] == pytest.approx([2, 2, 1])
    assert by_source.texts[0].get_text() == "no slice is scored"


def test_no_panel_of_sources_where_none_is_told() -> None:
    row = {"name": "", "slices": 3, "patients": 2, "mean": 0.8, "low": 0.7, "high": 0.9}
    strata = {"class": "lesion", "by_size": [row | {"name": "1 to 2 mm²"}], "by_source": [row]}
    (by_size,) = dice_by_stratum(strata).axes
    assert by_size.get_title() == "by size in the slice"
    strata["by_source"] = [row, row | {"name": "a"}]
    assert len(dice_by_stratum(strata).axes) == 2
