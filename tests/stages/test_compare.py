from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from src.stages.compare import choose, headline, model_card, read_results
from src.stages.evaluate import extremes


def result(validation: float | None, test: float) -> dict[str, Any]:
    def side(dice: float | None) -> dict[str, Any]:
        numbers = {"background": 1.0, "lesion": dice, "mean_foreground": dice}
        groups = {name: numbers for q in ("dice", "iou") for name in (q, f"{q}_low", f"{q}_high")}
        return {**groups, "num_scored": dict.fromkeys(numbers, 5)}

    return {
        "validation": side(validation),
        "test": side(test),
        "trained": {"parameters": 1234, "run_id": "r"},
    }


def test_the_choice_follows_validation_even_where_the_test_says_otherwise() -> None:
    assert choose({"a": result(0.70, test=0.9), "b": result(0.71, test=0.1)}) == "b"


def test_a_model_that_could_not_be_scored_is_not_chosen() -> None:
    assert choose({"a": result(None, test=0.9), "b": result(0.01, test=0.1)}) == "b"


def test_the_headline_leaves_the_background_out_and_keeps_intervals() -> None:
    content = headline({"a": result(0.7, test=0.6)}, "a")
    assert content["champion"] == "a"
    assert content["a"]["test"]["dice"]["lesion"] == {"mean": 0.6, "low": 0.6, "high": 0.6}
    assert "background" not in content["a"]["test"]["dice"]


def test_the_model_card_says_what_was_not_scored_and_that_it_is_for_research() -> None:
    card = model_card("unet", result(None, test=0.6))
    assert "| validation | lesion | 5 | not scored (not scored to not scored)" in card
    assert "not a clinical device" in card


def test_a_missing_evaluation_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dvc repro evaluate@unet"):
        read_results(tmp_path, ("unet",))


def patients(*scores: float) -> pd.DataFrame:
    names = [f"P-{n}" for n in range(len(scores))]
    return pd.DataFrame({"patient_pseudonym": names, "dice_lesion": scores})


def test_best_median_and_worst_patients_are_different_patients() -> None:
    table = patients(0.5, 0.1, 0.9, 0.3, 0.7)
    assert extremes(table, "dice_lesion", 3) == {
        "best": ["P-2"],
        "median": ["P-0"],
        "worst": ["P-1"],
    }


def test_patients_without_a_score_are_not_drawn_as_the_worst() -> None:
    table = patients(float("nan"), 0.4, 0.6)
    drawn = extremes(table, "dice_lesion", 1)
    assert drawn["worst"] == ["P-1"]
    assert all("P-0" not in names for names in drawn.values())
