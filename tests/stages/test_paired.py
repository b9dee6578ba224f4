import math

import pandas as pd
import pytest

from src.evaluation.overlap import MEAN_FOREGROUND
from src.stages.paired import paired_differences, patient_dice, print_comparison

OPTIONS = {"seed": 1, "resamples": 200}


def test_the_dice_of_patients_by_class_and_their_mean() -> None:
    table = pd.DataFrame(
        {
            "patient_pseudonym": ["P", "Q"],
            "dice_background": [1.0, 1.0],
            "dice_organ": [0.5, 0.75],
            "dice_lesion": [0.25, math.nan],
        }
    )
    found = patient_dice(table, ["background", "organ", "lesion"])
    assert list(found) == ["organ", "lesion", MEAN_FOREGROUND]
    assert found["organ"] == {"P": 0.5, "Q": 0.75}
    assert found[MEAN_FOREGROUND] == {"P": 0.375, "Q": 0.75}


def test_a_single_foreground_class_has_no_mean_beside_it() -> None:
    table = pd.DataFrame(
        {"patient_pseudonym": ["P"], "dice_background": [1.0], "dice_lesion": [0.5]}
    )
    assert list(patient_dice(table, ["background", "lesion"])) == ["lesion"]


def model(*dice: float) -> dict[str, dict[str, float]]:
    return {"lesion": {f"P{number}": value for number, value in enumerate(dice)}}


def test_models_are_compared_over_the_patients_that_both_score() -> None:
    scores = {"unet": model(0.5, 0.75, math.nan), "unetpp": model(0.25, 0.25, 0.5)}
    (row,) = paired_differences(scores, **OPTIONS)
    assert (row["first"], row["second"], row["class"]) == ("unet", "unetpp", "lesion")
    assert row["difference"] == pytest.approx((0.25 + 0.5) / 2)
    assert row["low"] <= row["difference"] <= row["high"]
    assert (row["pairs"], row["dropped"]) == (2, 1)
    assert row["note"] == "2 patients are too few for any difference to reach p < 0.05"


def test_p_values_are_corrected_over_all_pairs_and_classes() -> None:
    better, worse = [0.9] * 6, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    middle = [(a + b) / 2 for a, b in zip(better, worse, strict=True)]
    scores = {"a": model(*better), "b": model(*worse), "c": model(*middle)}
    rows = paired_differences(scores, **OPTIONS)
    # All six differences of each pair point one way: p = 2 / 2 ** 6, times three by Holm.
    assert [row["p"] for row in rows] == pytest.approx([1 / 32] * 3)
    assert [row["p_holm"] for row in rows] == pytest.approx([3 / 32] * 3)
    assert [row["note"] for row in rows] == ["", "", ""]

    of_two = {name: {"organ": found["lesion"], **found} for name, found in scores.items()}
    rows = paired_differences(of_two, **OPTIONS)
    assert [row["class"] for row in rows] == ["organ"] * 3 + ["lesion"] * 3
    assert [row["p_holm"] for row in rows] == pytest.approx([6 / 32] * 6)  # six rows


def test_models_without_a_common_patient_say_so() -> None:
    scores = {"unet": model(math.nan), "unetpp": model(0.5)}
    (row,) = paired_differences(scores, **OPTIONS)
    assert (row["difference"], row["p_holm"]) == (None, None)
    assert row["note"] == "no patient is scored by both"


def test_one_model_has_nothing_to_be_compared_with() -> None:
    assert paired_differences({"unet": model(0.5)}, **OPTIONS) == []


def test_the_terminal_shows_costs_and_differences(capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"unet": model(0.5, 0.75), "nnunet": model(0.25, 0.25)}
    costs = {
        "test_dice": 0.625,
        "test_low": 0.5,
        "test_high": 0.75,
        "parameters": 1942323,
        "seconds_training": 81.6,
        "seconds_per_slice": 0.0254,
    }
    print_comparison(
        [
            {"name": "unet", **costs, "peak_memory_mb": 1274},
            {"name": "nnunet", **dict.fromkeys(costs), "peak_memory_mb": None},
        ],
        paired_differences(scores, **OPTIONS),
    )
    told = capsys.readouterr().out
    assert "0.625 (0.500 to 0.750)" in told
    assert "1,942,323" in told
    assert "1.3 GB" in told
    assert "unet less nnunet: +0.375 (+0.250 to +0.500), n = 2; Holm-corrected p = " in told
