from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.config import Split, load_params
from src.stages.prepare import cases_with_sides
from src.stages.split import split, warn_of_few

ROOT = Path(__file__).parents[2]


def cases(patients: int = 13) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "case_id": f"p{patient:02d}/{place}",
            "patient": f"p{patient:02d}",
            "group": f"g{patient:02d}",
            "source": "ab"[patient % 2],
            "pixels_lesion": int(random.integers(0, 500)),
            "height": 64,
            "width": 64,
        }
        for patient in range(patients)
        for place in range(3)
    )


def params(folds: int, *fold: int) -> Split:
    return load_params(ROOT / "params.yaml").split.model_copy(
        update={"folds": folds, "fold": fold or (0,)}
    )


def test_one_split_is_fold_0_with_a_row_a_patient() -> None:
    sides = split(cases(), params(0))
    assert sides.columns.tolist() == ["patient", "fold", "subset"]
    assert sides["patient"].is_unique
    assert (sides["fold"] == 0).all()


def test_over_all_folds_each_patient_is_tested_once_and_validates_once() -> None:
    sides = split(cases(), params(4, 0, 1, 2, 3))
    assert len(sides) == 4 * 13
    for subset in ("test", "validation"):
        found = sides.loc[sides["subset"] == subset, "patient"]
        assert sorted(found) == sorted(cases()["patient"].unique())


def test_a_fold_has_the_same_sides_whatever_other_folds_are_run() -> None:
    several, alone = split(cases(), params(4, 3, 1)), split(cases(), params(4, 1))
    assert several["fold"].unique().tolist() == [1, 3]
    pd.testing.assert_frame_equal(several[several["fold"] == 1].reset_index(drop=True), alone)


def test_the_sides_of_a_fold_come_back_with_the_cases(tmp_path: Path) -> None:
    table = cases().drop(columns=["group"])
    table.to_csv(tmp_path / "cases.csv", index=False)
    sides = split(cases(), params(4, 1, 3))
    sides.to_csv(tmp_path / "split.csv", index=False)
    found = cases_with_sides(tmp_path, 3)
    assert found["case_id"].tolist() == table["case_id"].tolist()
    expected = sides[sides["fold"] == 3].set_index("patient")["subset"].to_dict()
    assert found.groupby("patient")["subset"].agg(set).to_dict() == {
        patient: {subset} for patient, subset in expected.items()
    }


def test_a_fold_that_the_split_does_not_hold_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"split.csv is missing.*dvc repro split"):
        cases_with_sides(tmp_path, 0)
    split(cases(), params(4, 1, 3)).to_csv(tmp_path / "split.csv", index=False)
    with pytest.raises(ValueError, match=r"holds the folds \['1', '3'\], not 0. Add it to"):
        cases_with_sides(tmp_path, 0)


@pytest.mark.parametrize(
    ("validation", "test", "told"),
    [(3, 3, []), (1, 3, ["validation"]), (2, 1, ["validation", "test"])],
)
def test_a_side_of_one_or_two_patients_is_told(
    validation: int, test: int, told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    warn_of_few({"validation": {"patients": validation}, "test": {"patients": test}}, fixed=False)
    said = " ".join(capsys.readouterr().err.split())
    found = [side for side in ("validation", "test") if f"the side {side}, which" in said]
    assert found == told
    assert said.count("split.folds: 5") == len(told)
