import numpy as np
import pandas as pd
import pytest

from src.data.splits import TEST, TRAIN, VALIDATION, fold_by_patient, split_by_patient


def table(patients: int, groups: dict[int, int] | None = None) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "patient": f"p{patient:02d}",
            "pseudonym": f"P-{patient:08x}",
            "group": f"g{(groups or {}).get(patient, patient):02d}",
            "source": "abc"[patient % 3],
            "pixels_lesion": int(random.integers(0, 500)),
            "height": 64,
            "width": 64,
        }
        for patient in range(patients)
        for _ in range(6)
    )


def split(cases: pd.DataFrame, **changes: object) -> pd.DataFrame:
    arguments = {"stratify_class": "lesion", "seed": 1, "validation": 0.2, "test": 0.2} | changes
    return split_by_patient(cases, **arguments)


def test_every_patient_stands_on_one_side_and_the_shares_are_met() -> None:
    sides = split(table(30))
    assert sides["patient"].is_unique
    assert sides["subset"].value_counts().to_dict() == {TRAIN: 18, VALIDATION: 6, TEST: 6}


def test_each_source_is_on_every_side() -> None:
    cases = table(30)
    sides = split(cases).merge(cases.drop_duplicates("patient"), on="patient")
    assert sides.groupby("subset")["source"].nunique().tolist() == [3, 3, 3]


def test_patients_who_share_pictures_stay_together() -> None:
    groups = {patient: patient // 2 * 2 for patient in range(30)}
    cases = table(30, groups)
    sides = split(cases).merge(cases.drop_duplicates("patient"), on="patient")
    assert (sides.groupby("group")["subset"].nunique() == 1).all()


def test_the_same_seed_gives_the_same_split_whatever_the_order_of_rows() -> None:
    cases = table(30)
    shuffled = cases.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(split(cases), split(shuffled))


def test_another_seed_gives_another_split() -> None:
    assert not split(table(30)).equals(split(table(30), seed=2))


def test_the_smallest_data_set_has_one_patient_a_side() -> None:
    assert split(table(3))["subset"].value_counts().to_dict() == {TRAIN: 1, VALIDATION: 1, TEST: 1}


def test_two_patients_cannot_be_split() -> None:
    with pytest.raises(ValueError, match=r"2 patients in 2 groups .* at least 3 are needed"):
        split(table(2))


def test_named_patients_are_the_test_side() -> None:
    sides = split(table(12), test_patients=("p03", "p07"))
    assert sides.loc[sides["subset"] == TEST, "patient"].tolist() == ["p03", "p07"]


def test_a_pseudonym_stands_for_its_patient_beside_names() -> None:
    sides = split(table(12), test_patients=("P-00000003", "p07"))
    assert sides.equals(split(table(12), test_patients=("p03", "p07")))


def test_an_unknown_test_patient_is_named() -> None:
    with pytest.raises(ValueError, match=r"test_patients names \['p99'\]"):
        split(table(12), test_patients=("p99",))


def test_over_all_folds_each_patient_is_tested_once() -> None:
    cases = table(13)
    tested: list[str] = []
    for fold in range(4):
        sides = fold_by_patient(cases, stratify_class="lesion", seed=1, folds=4, fold=fold)
        tested += sides.loc[sides["subset"] == TEST, "patient"].tolist()
    assert sorted(tested) == sorted(cases["patient"].unique())
