import json
from pathlib import Path
from typing import Any

import pytest

from src.stages.compare import choose, headline, model_card, read_results


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
    assert "| validation | lesion | 5 | not scored | not scored |" in card
    assert "| test | lesion | 5 | 0.600 (0.600 to 0.600) |" in card
    assert "not a clinical device" in card


def test_a_missing_evaluation_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dvc repro evaluate@unet"):
        read_results(tmp_path, ("unet",))


def test_the_scores_of_every_architecture_are_read_from_below_one_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / "reports" / "evaluation" / name
        folder.mkdir(parents=True)
        (folder / "scores.json").write_text(json.dumps(result(0.7, test=0.6)))
    assert read_results(tmp_path, ("one", "two"))["two"] == result(0.7, test=0.6)
