import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from src.config import load_params
from src.scoring import scores_of
from src.stages.candidates import OUT_OF_FOLD, Candidate, out_of_fold, pool, read_candidate
from src.stages.compare import choose, comparison, headline, metric_files
from src.stages.registration import model_card

ROOT = Path(__file__).parents[2]
CLASSES = ("background", "lesion")
EVALUATE = load_params(ROOT / "params.yaml").evaluate.model_copy(
    update={"seed": 1, "bootstrap_resamples": 100}
)


def table(**dice: float | None) -> pd.DataFrame:
    """A slice a patient whose lesion has this Dice: of 100 pixels of it; None for no lesion."""
    rows = []
    for patient, value in dice.items():
        found = 0 if value is None else round(100 * value)
        lesion = 0 if value is None else 100
        rows.append(
            {
                "case": f"{patient}/000",
                "patient_pseudonym": patient,
                "source": "a",
                "true_positives_background": 900,
                "false_positives_background": lesion - found,
                "false_negatives_background": lesion - found,
                "true_positives_lesion": found,
                "false_positives_lesion": lesion - found,
                "false_negatives_lesion": lesion - found,
                "hd95_mm_lesion": np.nan if value is None else 5.0,
                "assd_mm_lesion": np.nan if value is None else 1.0,
                "nsd_lesion": np.nan if value is None else 0.5,
            }
        )
    return pd.DataFrame(rows)


def fold(validation: float | None) -> dict[str, Any]:
    """What compare reads of scores.json."""
    return {
        "validation": {"dice": {"lesion": validation, "mean_foreground": validation}},
        "test": {"dice": dict.fromkeys((*CLASSES, "mean_foreground"), 0.5)},
        "trained": {
            "parameters": 1234,
            "run_id": "r",
            "recipe": "3f9c1e",
            "seconds": 60.0,
            "peak_memory_mb": 800,
        },
        "seconds_per_slice": 0.05,
    }


def candidate(
    name: str, *validation: float | None, test: dict[int, pd.DataFrame] | None = None
) -> Candidate:
    """Of a fold for each validation score, which both of its patients have."""
    held = {n: table(**{f"v{n}": value, f"w{n}": value}) for n, value in enumerate(validation)}
    return pooled(name, held, test or {0: table(p=0.6, q=0.6)})


def pooled(
    name: str, validation: dict[int, pd.DataFrame], test: dict[int, pd.DataFrame]
) -> Candidate:
    means = {
        number: scores_of(counts, CLASSES, seed=1, resamples=2).summary.to_dict()["dice"]["lesion"]
        for number, counts in validation.items()
    }
    return Candidate(
        name,
        {number: fold(value) for number, value in means.items()},
        {
            subset: scores_of(pool(tables, subset), CLASSES, seed=1, resamples=100)
            for subset, tables in (("validation", validation), ("test", test))
        },
    )


def test_the_choice_follows_validation_even_where_the_test_says_otherwise() -> None:
    better, worse = {0: table(p=0.9)}, {0: table(p=0.1)}
    found = choose([candidate("a", 0.70, test=better), candidate("b", 0.71, test=worse)])
    assert found.name == "b"


def test_a_model_that_could_not_be_scored_is_not_chosen() -> None:
    assert choose([candidate("a", None), candidate("b", 0.01)]).name == "b"


def test_of_equals_the_first_by_name_is_chosen() -> None:
    assert choose([candidate("b", 0.5), candidate("a", 0.5)]).name == "a"


def test_the_choice_rests_on_the_patients_of_all_folds() -> None:
    found = choose([candidate("a", 0.9, 0.3), candidate("b", 0.5, 0.8), candidate("c", None, 0.64)])
    assert found.name == "b"
    assert found.validation_score == pytest.approx(0.65)
    assert found.rule.endswith("on validation (2 folds pooled) 0.6500")


def test_what_chooses_is_what_is_shown_where_folds_differ_in_size() -> None:
    # Folds of one and of three patients: a has the better mean over patients, b that of folds.
    test = {0: table(p=0.5)}
    a = pooled("a", {0: table(v=0.2), 1: table(w=0.8, x=0.8, y=0.8)}, test)
    b = pooled("b", {0: table(v=0.8), 1: table(w=0.5, x=0.5, y=0.5)}, test)
    assert (a.mean_of_folds, b.mean_of_folds) == (pytest.approx(0.5), pytest.approx(0.65))
    chosen = choose([a, b])
    assert chosen.name == "a"
    assert chosen.validation_score == pytest.approx((0.2 + 3 * 0.8) / 4)
    assert metric_files(chosen)["lesion"]["validation"]["dice"] == chosen.validation_score
    shown = comparison([a, b], {}, "a", EVALUATE)["models"][0]
    assert shown["validation_dice"] == chosen.validation_score


def test_each_patient_of_every_fold_counts_once_in_the_mean() -> None:
    # Folds of one and of three patients: the mean over patients is not that of the folds' means.
    test = {0: table(p=0.2), 3: table(q=0.6, r=0.8, s=None)}
    found = candidate("a", 0.5, 0.5, test=test)
    side = found.scores["test"]
    assert side["dice"]["lesion"] == pytest.approx((0.2 + 0.6 + 0.8) / 3)
    assert (side["num_scored"]["lesion"], side["num_unscored"]["lesion"]) == (3, 1)
    rows = out_of_fold(found)
    assert rows["patient_pseudonym"].tolist() == ["p", "q", "r", "s"]
    assert rows["fold"].tolist() == [0, 3, 3, 3]
    assert rows["dice_lesion"].tolist() == pytest.approx([0.2, 0.6, 0.8, np.nan], nan_ok=True)


def test_a_patient_who_was_tested_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"1 patients are on the test side of more than one fold"):
        pool({0: table(p=0.5, q=0.5), 1: table(q=0.4)}, "test")


def test_the_headline_leaves_the_background_out_and_keeps_intervals() -> None:
    content = headline([candidate("a", 0.7)], "a")
    assert content["champion"] == "a"
    assert content["a"]["test"]["dice"]["lesion"] == {"mean": 0.6, "low": 0.6, "high": 0.6}
    assert "background" not in content["a"]["test"]["dice"]
    assert set(content["a"]) == {"validation", "test"}


def test_the_headline_of_several_folds_has_each_of_them_and_their_mean() -> None:
    content = headline([candidate("a", 0.25, 0.75)], "a")["a"]
    assert content["mean_of_folds"] == 0.5
    assert content["folds"]["fold1"] == {"validation": 0.75, "test": 0.5}


def test_dvc_gets_a_row_of_five_numbers_for_each_class() -> None:
    rows = metric_files(candidate("a", 0.7))
    assert list(rows) == ["lesion", "mean_foreground"]
    assert rows["lesion"]["validation"] == {"dice": 0.7}
    iou = pytest.approx(0.6 / (2 - 0.6))
    assert rows["lesion"]["test"] == {"dice": 0.6, "low": 0.6, "high": 0.6, "iou": iou}


def test_the_model_card_says_what_was_not_scored_and_that_it_is_for_research() -> None:
    card = model_card("unet", candidate("unet", None))
    assert "| validation | lesion | 0 | not scored | not scored |" in card
    assert "| test | lesion | 2 | 0.600 (0.600 to 0.600) |" in card
    assert "not a clinical device" in card
    assert OUT_OF_FOLD not in card


def test_the_model_card_of_an_ensemble_says_that_its_scores_are_those_of_its_members() -> None:
    card = model_card("unet, ensemble of 2 folds", candidate("unet", 0.5, 0.5))
    assert card.startswith("**unet, ensemble of 2 folds**, 1,234 parameters each, chosen by")
    assert OUT_OF_FOLD in card
    assert "the scores of the chosen one are slightly optimistic" in card


def write(folder: Path, *, test: pd.DataFrame) -> None:
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(json.dumps(fold(0.5)))
    table(**{f"{folder.name}v": 0.5}).to_csv(folder / "validation_counts.csv", index=False)
    test.to_csv(folder / "test_counts.csv", index=False)


def test_the_folds_that_are_named_are_read_and_no_other(tmp_path: Path) -> None:
    above = tmp_path / "reports" / "evaluation" / "unet"
    for number, dice in ((0, 0.2), (1, 0.9), (2, 0.4)):
        write(above / f"fold{number}", test=table(**{f"p{number}": dice}))
    found = read_candidate(tmp_path, "unet", (2, 0), EVALUATE)
    assert list(found.folds) == [0, 2]
    assert found.scores["test"]["dice"]["lesion"] == pytest.approx(0.3)
    assert found.trained["parameters"] == 1234


def test_folds_that_were_not_made_alike_are_not_compared_as_one(tmp_path: Path) -> None:
    above = tmp_path / "reports" / "evaluation" / "unet"
    for number in (0, 1):
        write(above / f"fold{number}", test=table(**{f"p{number}": 0.5}))
    changed = fold(0.5)
    changed["trained"]["recipe"] = "77aa00"
    (above / "fold1" / "scores.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"unet were made in different ways.*'fold1': '77aa00'"):
        read_candidate(tmp_path, "unet", (0, 1), EVALUATE)


def test_a_missing_evaluation_names_the_command(tmp_path: Path) -> None:
    write(tmp_path / "reports" / "evaluation" / "unet" / "fold0", test=table(p=0.5))
    with pytest.raises(FileNotFoundError, match="dvc repro evaluate@unet-3`"):
        read_candidate(tmp_path, "unet", (0, 3), EVALUATE)
