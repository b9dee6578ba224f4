"""What is compared: an architecture with the scores of its folds, read and pooled.

Of several folds the test scores are out of fold: each patient is scored by the model that did not
see it, and stands in the mean once. The validation scores are pooled alike, and of them the choice
is made: what chooses is what is shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.config import Evaluate
from src.data.splits import fold_folder
from src.evaluation.overlap import MEAN_FOREGROUND
from src.scoring import SubsetScores, read_counts, scores_of
from src.stages.score_table import SUBSETS

if TYPE_CHECKING:
    import pandas as pd

RULE = "patient-mean foreground Dice on validation"
OUT_OF_FOLD = (
    "The test scores are out of fold: each patient was segmented by the model that saw it neither "
    "in training nor in validation. The ensemble of these models has seen all of the patients, so "
    "it has no score of its own on them. Where architectures were chosen among, the choice saw "
    "them too, on validation in another fold: the scores of the chosen one are slightly optimistic."
)

Scores = Mapping[str, Any]
"""Of one model, as in scores.json: trained, validation, test."""


@dataclass(frozen=True)
class Candidate:
    """An architecture with the scores of its folds.

    Attributes:
        name: Of the architecture.
        folds: Number of a fold -> its scores; one entry where there is one split.
        pooled: "validation" and "test" -> scores of all patients of all folds together.
    """

    name: str
    folds: Mapping[int, Scores]
    pooled: Mapping[str, SubsetScores]

    @property
    def validation_score(self) -> float:
        """What the choice rests on: mean over the validation patients; -1 if none is scored."""
        mean = self.pooled["validation"].summary.to_dict()["dice"][MEAN_FOREGROUND]
        return -1.0 if mean is None else float(mean)

    @property
    def mean_of_folds(self) -> float | None:
        """Mean of the folds' own validation means, where a small fold weighs like a large one."""
        found = [fold["validation"]["dice"][MEAN_FOREGROUND] for fold in self.folds.values()]
        scored = [value for value in found if value is not None]
        return float(np.mean(scored)) if scored else None

    @property
    def scores(self) -> dict[str, Any]:
        """The scores of all patients together, as in scores.json."""
        return {subset: scores.summary.to_dict() for subset, scores in self.pooled.items()}

    @property
    def trained(self) -> Mapping[str, Any]:
        """What the first fold says of its training."""
        trained: Mapping[str, Any] = self.folds[min(self.folds)]["trained"]
        return trained

    @property
    def rule(self) -> str:
        """The rule of the choice and the value reached, in words."""
        folds = f" ({len(self.folds)} folds pooled)" if len(self.folds) > 1 else ""
        return f"{RULE}{folds} {self.validation_score:.4f}"


def read_candidate(root: Path, name: str, folds: Sequence[int], evaluate: Evaluate) -> Candidate:
    """Reads the scores of an architecture from reports/evaluation, and pools those of its folds.

    Args:
        root: The repository.
        name: Of the architecture.
        folds: Numbers of its folds.
        evaluate: The group of params.yaml, for the bootstrap.

    Raises:
        FileNotFoundError: A model was not evaluated yet; the message names the command.
        ValueError: The models were not made alike, or a patient is on the same side of two folds.
    """
    above = root / "reports" / "evaluation" / name
    contents: dict[int, Scores] = {}
    for fold in sorted(folds):
        path = fold_folder(above, fold) / "scores.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path.relative_to(root)} is missing. Make it with `dvc repro "
                f"evaluate@{name}-{fold}`."
            )
        contents[fold] = json.loads(path.read_text(encoding="utf-8"))
    recipes = {f"fold{fold}": content["trained"]["recipe"] for fold, content in contents.items()}
    if len(set(recipes.values())) > 1:
        raise ValueError(
            f"the folds of {name} were made in different ways or of different data (recipes "
            f"{recipes}): they are no ensemble. Make them anew with `dvc repro --force train`."
        )
    classes = [label for label in contents[min(folds)]["test"]["dice"] if label != MEAN_FOREGROUND]
    pooled = {}
    for subset in SUBSETS:
        tables = {fold: read_counts(fold_folder(above, fold) / f"{subset}_counts.csv")
                  for fold in contents}  # fmt: skip
        pooled[subset] = scores_of(
            pool(tables, subset),
            classes,
            seed=evaluate.seed,
            resamples=evaluate.bootstrap_resamples,
        )
    return Candidate(name, contents, pooled)


def pool(tables: Mapping[int, pd.DataFrame], subset: str) -> pd.DataFrame:
    """The counts of all folds below each other, with the column fold.

    Raises:
        ValueError: A patient stands in two of them: the mean would count it twice.
    """
    import pandas as pd

    together = pd.concat([table.assign(fold=fold) for fold, table in tables.items()])
    times = together.groupby("patient_pseudonym")["fold"].nunique()
    twice = sorted(times.index[times > 1])
    if twice:
        raise ValueError(
            f"{len(twice)} patients are on the {subset} side of more than one fold, such as "
            f"{twice[0]}: reports/evaluation is of different splits. Make it anew with "
            "`dvc repro --force evaluate`."
        )
    return together.reset_index(drop=True)


def out_of_fold(candidate: Candidate) -> pd.DataFrame:
    """A row per test patient: the fold that tested it, and its scores."""
    test = candidate.pooled["test"]
    folds = test.counts.drop_duplicates("patient_pseudonym").set_index("patient_pseudonym")["fold"]
    table = test.patients.copy()
    table.insert(1, "fold", table["patient_pseudonym"].map(folds))
    return table
