import pandas as pd

from src.stages.evaluate import extremes


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
