"""The split: every patient on one side, alike in lesion burden and source on all sides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SUBSETS = (TRAIN, VALIDATION, TEST)


def split_by_patient(
    cases: pd.DataFrame,
    *,
    stratify_class: str,
    seed: int,
    validation: float,
    test: float,
    test_patients: tuple[str, ...] = (),
) -> pd.DataFrame:
    """Splits the patients of a case table into train, validation and test.

    Patients that share near-duplicate slices (column `group`) move together. The sides are alike in
    `source` and in lesion burden: both make the strata of scikit-learn's StratifiedGroupKFold. A
    share is met to one part in a whole number (0.15 is a seventh).

    Args:
        cases: The case table: columns patient, pseudonym (where `test_patients` is given), group,
            source, pixels_<class>, height, width.
        stratify_class: The class whose pixels are the burden.
        seed: Of the shuffle; the same seed gives the same split for the same patients.
        validation: Share of all patients, in (0, 1).
        test: Share of all patients, in (0, 1); not used where `test_patients` is given.
        test_patients: These patients, by pseudonym or name, and those grouped with them, are the
            test side.

    Returns:
        A table with a row per patient, sorted: patient, subset.

    Raises:
        ValueError: Fewer than three groups of patients, or a test patient that is not in the data.
    """
    patients = _patients(cases, stratify_class)
    _check_enough(patients, sides=3)
    if test_patients:
        unknown = sorted(set(test_patients) - set(cases["patient"]) - set(cases["pseudonym"]))
        if unknown:
            raise ValueError(
                f"split.test_patients names {unknown}, not among the {len(patients)} patients of "
                "the data (prepared/cases.csv, columns pseudonym and patient)"
            )
        named = cases["pseudonym"].isin(test_patients) | cases["patient"].isin(test_patients)
        is_test = patients["group"].isin(cases.loc[named, "group"])
    else:
        is_test = _share_of(patients, test, seed)
    rest = patients[~is_test]
    _check_enough(rest, sides=2)
    is_validation = _share_of(rest, validation * len(patients) / len(rest), seed + 1)
    subset = np.where(is_test, TEST, TRAIN).astype(object)
    subset[np.flatnonzero(~is_test)[is_validation]] = VALIDATION
    return patients[["patient"]].assign(subset=subset)


def fold_by_patient(
    cases: pd.DataFrame, *, stratify_class: str, seed: int, folds: int, fold: int
) -> pd.DataFrame:
    """Splits the patients into folds: fold `fold` is tested, the next one validates.

    Args:
        cases: The case table, as for `split_by_patient`.
        stratify_class: The class whose pixels are the burden.
        seed: Of the shuffle.
        folds: Number of folds, at least 3. Over all values of `fold`, each patient is tested once.
        fold: The fold that is tested, 0 to folds - 1.

    Returns:
        A table with a row per patient, sorted: patient, subset.

    Raises:
        ValueError: Fewer groups of patients than folds.
    """
    patients = _patients(cases, stratify_class)
    _check_enough(patients, sides=folds)
    number = _fold_of(patients, folds, seed)
    subset = np.full(len(patients), TRAIN, dtype=object)
    subset[number == (fold + 1) % folds] = VALIDATION
    subset[number == fold] = TEST
    return patients[["patient"]].assign(subset=subset)


def fold_folder(parent: Path, fold: int) -> Path:
    """The part of a fold, such as models/unet/fold0."""
    return parent / f"fold{fold}"


def _patients(cases: pd.DataFrame, stratify_class: str) -> pd.DataFrame:
    """One row per patient: patient, group, source, burden (share of pixels of the class)."""
    rows = cases.assign(
        lesion=cases[f"pixels_{stratify_class}"], area=cases["height"] * cases["width"]
    )
    patients = rows.groupby("patient", sort=True).agg(
        group=("group", "min"),
        source=("source", "first"),
        lesion=("lesion", "sum"),
        area=("area", "sum"),
    )
    return patients.assign(burden=patients["lesion"] / patients["area"]).reset_index()


def _check_enough(patients: pd.DataFrame, *, sides: int) -> None:
    groups = patients["group"].nunique()
    if groups < sides:
        raise ValueError(
            f"{len(patients)} patients in {groups} groups (near-duplicates stay together) cannot "
            f"be split into {sides} sides: at least {sides} are needed. Add patients, or mend the "
            "rule data.patient in params.yaml if it takes several patients for one."
        )


def _share_of(patients: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    """Marks about `share` of the patients, (N,) bool: the fold whose size comes closest."""
    fold = _fold_of(patients, max(2, round(1 / share)), seed)
    sizes = np.bincount(fold)
    return fold == int(np.argmin(np.abs(sizes - share * len(patients))))


def _fold_of(patients: pd.DataFrame, folds: int, seed: int) -> np.ndarray:
    """The fold of each patient, (N,) int; strata are source x burden where numbers allow."""
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(folds, patients["group"].nunique())
    # Burden in as many equal parts as leave each stratum about one patient a fold: with few
    # patients a finer stratum says nothing.
    sources = max(1, patients["source"].fillna("").nunique())
    parts = int(np.clip(len(patients) // (sources * folds), 1, 4))
    rank = patients["burden"].rank(method="first").to_numpy() - 1
    part = (rank * parts // len(patients)).astype(int)
    stratum = patients["source"].fillna("").astype(str) + "/" + part.astype(str)
    result = np.zeros(len(patients), dtype=int)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    # Strata smaller than the number of folds are spread as far as they go; scikit-learn refuses
    # only when every one is, so then the stratum is dropped.
    if stratum.value_counts().max() < folds:
        stratum[:] = "all"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for number, (_, side) in enumerate(splitter.split(patients, stratum, patients["group"])):
            result[side] = number
    return result
