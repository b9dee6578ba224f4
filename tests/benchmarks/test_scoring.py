"""Hand-computed checks of the scorer."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scoring
from benchmarks.setting import set_parameters


def repeat(validation: float, **test: float) -> dict[str, dict[str, float]]:
    return {"validation": {"v": validation}, "test": test}


def told(seconds: float) -> dict[str, float]:
    return {"seconds": seconds}


def test_overlap_of_a_patient_pools_the_pixels_of_its_slices() -> None:
    truth = np.zeros((2, 2, 2), dtype=np.uint8)
    truth[0] = 1  # 4 pixels in the first slice
    prediction = np.zeros_like(truth)
    prediction[0, 0] = 1  # 2 of them found
    prediction[1, 0, 0] = 1  # and one more in the empty slice
    found = scoring.patient_overlap(truth, prediction, 2)
    assert found == {"dice": pytest.approx(2 * 2 / (4 + 3)), "iou": pytest.approx(2 / 5)}


def test_a_patient_without_foreground_in_truth_and_prediction_is_not_scored() -> None:
    empty = np.zeros((1, 2, 2), dtype=np.uint8)
    assert all(math.isnan(value) for value in scoring.patient_overlap(empty, empty, 2).values())


def test_the_best_peer_is_the_one_with_the_highest_test_dice_and_has_no_difference() -> None:
    scores = {
        "unet": [repeat(0.5, a=0.9, b=0.7)],
        "first": [repeat(0.9, a=0.2, b=0.4)],
        "second": [repeat(0.1, a=0.6, b=0.6)],
    }
    training = {name: [told(60)] for name in scores}
    unet, first, second = scoring.table_rows(scores, training, ["first", "second"])
    assert unet.difference is not None
    assert unet.difference.mean == pytest.approx((0.3 + 0.1) / 2)
    assert first.difference is not None
    assert first.difference.mean == pytest.approx((-0.4 - 0.2) / 2)
    assert second.difference is None
    assert not unet.is_peer
    assert second.is_peer


def test_repeats_are_averaged_within_a_patient_and_their_spread_is_told() -> None:
    scores = {"unet": [repeat(0.5, a=0.2, b=0.4), repeat(0.7, a=0.6, b=0.8)]}
    (row,) = scoring.table_rows(scores, {"unet": [told(50), told(70)]}, [])
    assert row.test.mean == pytest.approx(0.5)  # a: 0.4, b: 0.6
    assert row.validation.mean == pytest.approx(0.6)
    assert row.spread == pytest.approx(math.sqrt(0.08))  # means 0.3 and 0.7
    assert row.seconds == 60
    assert row.difference is None


def test_methods_with_other_patients_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="same patients"):
        scoring.paired_difference({"a": 0.5}, {"b": 0.5})


def test_the_markdown_table_has_a_cell_for_each_of_its_ten_columns() -> None:
    scores = {"unet": [repeat(0.5, a=0.25, b=0.75)]}
    training = {"unet": [{**told(600), "steps": 1200, "precision": "bfloat16"}]}
    text = scoring.markdown(scoring.table_rows(scores, training, []), {"date": "today"})
    head, rule, row = text.splitlines()[2:]
    assert head.count("|") == rule.count("|") == row.count("|") == 11
    assert "| 0.500 (0.250 to 0.750) |" in row
    assert "| 1,200 |" in row


def test_a_changed_parameter_keeps_the_comments_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("train:\n  epochs: 10  # passes\n  seed: 1\n", encoding="utf-8")
    set_parameters(path, {"train.epochs": 1000})
    assert path.read_text(encoding="utf-8") == "train:\n  epochs: 1000 # passes\n  seed: 1\n"


def test_a_parameter_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("train:\n  epochs: 10\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"has no parameter train\.max_minutes"):
        set_parameters(path, {"train.max_minutes": 10.0})
