"""What went wrong: uncertainty and tags of each case beside its scores, Dice by size and source."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.config import Params
from src.evaluation.failures import Stratum, dice_by_size, dice_by_source
from src.scoring import SubsetScores, json_number

if TYPE_CHECKING:
    import pandas as pd


def with_notes(
    scores: SubsetScores,
    uncertainty: NDArray[np.float64],
    of_patients: Mapping[str, float],
    tags: Sequence[Mapping[int, tuple[str, ...]]],
    classes: Sequence[str],
) -> SubsetScores:
    """The scores with uncertainty and failure tags as further columns of their tables.

    Args:
        scores: Of one side.
        uncertainty: (N,) of each slice, in the order of the table.
        of_patients: Patient pseudonym -> uncertainty.
        tags: Of each slice: index of a class -> its tags.
        classes: Class names, background first.

    Returns:
        Scores with the columns uncertainty and tags_CLASS: of a slice "missed; tiny", of a patient
        how many of its slices have a tag, "missed in 3; tiny in 1".
    """
    slices = scores.slices.assign(uncertainty=uncertainty.round(6))
    patients = scores.patients.assign(
        uncertainty=scores.patients["patient_pseudonym"].map(of_patients).round(6)
    )
    for index, name in enumerate(classes[1:], start=1):
        column = f"tags_{name}"
        slices[column] = ["; ".join(found[index]) for found in tags]
        counted: dict[str, Counter[str]] = defaultdict(Counter)
        for patient, found in zip(slices["patient_pseudonym"], tags, strict=True):
            counted[patient].update(found[index])
        patients[column] = [
            "; ".join(f"{tag} in {number}" for tag, number in counted[patient].most_common())
            for patient in patients["patient_pseudonym"]
        ]
    return replace(scores, slices=slices, patients=patients)


def strata(scores: SubsetScores, cases: pd.DataFrame, params: Params) -> dict[str, Any]:
    """How the Dice of the stratified class depends on its size in a slice, and on the source.

    Returns:
        class, slices and by_source as in dice_by_size.json.
    """
    name = params.split.stratify_class
    table = scores.slices.merge(
        cases[["case_pseudonym", "spacing_y_mm", "spacing_x_mm"]],
        left_on="case",
        right_on="case_pseudonym",
    )
    areas = table[f"truth_pixels_{name}"] * table["spacing_y_mm"] * table["spacing_x_mm"]
    options: dict[str, Any] = {
        "patients": table["patient_pseudonym"].tolist(),
        "seed": params.evaluate.seed,
        "resamples": params.evaluate.bootstrap_resamples,
    }
    dice = table[f"dice_{name}"].to_numpy()

    def rows(found: Sequence[Stratum]) -> list[dict[str, Any]]:
        return [
            {
                "name": one.name,
                "low_mm2": json_number(one.low_mm2),
                "high_mm2": json_number(one.high_mm2),
                "slices": one.num_cases,
                "patients": one.dice.n,
                "mean": json_number(one.dice.mean),
                "low": json_number(one.dice.low),
                "high": json_number(one.dice.high),
            }
            for one in found
        ]

    return {
        "class": name,
        "by_size": rows(dice_by_size(areas, dice, **options)),
        "by_source": rows(dice_by_source(table["source"].tolist(), dice, **options)),
    }
