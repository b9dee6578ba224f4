"""Stage `compare`: chooses among the architectures on validation, and registers the choice.

The test figures stand beside the validation figures and decide nothing. Of several folds they are
out of fold: each patient is scored by the model that did not see it, and stands in the mean once.
What is registered is then the ensemble of the folds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from src import terminal, tracking
from src.config import Evaluate, Params, load_params, public_parameters
from src.data.splits import fold_folder
from src.evaluation.overlap import MEAN_FOREGROUND, QUANTITIES
from src.external import read_external
from src.files import whole_folder, write_text
from src.scoring import SubsetScores, metric_group, metrics_of, read_counts, scores_of
from src.stages.folds import label, run_name
from src.stages.paired import (
    FEW_PATIENTS,
    paired_differences,
    patient_dice,
    print_comparison,
)
from src.stages.score_table import SUBSETS, foreground, markdown_table, print_scores

if TYPE_CHECKING:
    import pandas as pd

RULE = "patient-mean foreground Dice on validation"
OUT_OF_FOLD = (
    "The test scores are out of fold: each patient was segmented by the model that saw it neither "
    "in training nor in validation. The ensemble of these models has seen all of the patients, so "
    "it has no score of its own on them."
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
        """What the choice rests on: mean over the folds; -1 if none could be scored."""
        found = [fold["validation"]["dice"][MEAN_FOREGROUND] for fold in self.folds.values()]
        scored = [value for value in found if value is not None]
        return float(np.mean(scored)) if scored else -1.0

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
        folds = f", mean of {len(self.folds)} folds" if len(self.folds) > 1 else ""
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


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the best validation score; of equals the first by name."""
    return max(sorted(candidates, key=lambda one: one.name), key=lambda one: one.validation_score)


def headline(candidates: Sequence[Candidate], chosen: str) -> dict[str, Any]:
    """All of the comparison, for programs: patient means with intervals.

    With several folds also the mean foreground Dice of each, and the mean that decides.
    """
    content: dict[str, Any] = {"champion": chosen}
    for candidate in candidates:
        scores = candidate.scores
        content[candidate.name] = {
            subset: {
                quantity: {
                    label: {
                        "mean": scores[subset][quantity][label],
                        "low": scores[subset][f"{quantity}_low"][label],
                        "high": scores[subset][f"{quantity}_high"][label],
                    }
                    for label in foreground(scores[subset])
                }
                for quantity in QUANTITIES[:2]
            }
            for subset in SUBSETS
        }
        if len(candidate.folds) > 1:
            content[candidate.name]["mean_of_folds"] = candidate.validation_score
            content[candidate.name]["folds"] = {
                f"fold{fold}": {s: result[s]["dice"][MEAN_FOREGROUND] for s in SUBSETS}
                for fold, result in candidate.folds.items()
            }
    return content


def costs(candidate: Candidate) -> dict[str, Any]:
    """What a model takes: all of its folds together, for a slice and for memory the mean and most.

    Returns:
        parameters, seconds_training, seconds_per_slice, peak_memory_mb (of training).
    """
    trained = [fold["trained"] for fold in candidate.folds.values()]
    return {
        "parameters": trained[0]["parameters"],
        "seconds_training": round(sum(one["seconds"] for one in trained), 1),
        "seconds_per_slice": float(
            np.mean([fold["seconds_per_slice"] for fold in candidate.folds.values()])
        ),
        "peak_memory_mb": max(one["peak_memory_mb"] for one in trained),
    }


def comparison(
    candidates: Sequence[Candidate],
    externals: Mapping[str, SubsetScores],
    chosen: str,
    evaluate: Evaluate,
) -> dict[str, Any]:
    """All models side by side, for the report: scores, costs, paired differences.

    Args:
        candidates: The networks of this repository.
        externals: Name of another method -> its scores on the test patients.
        chosen: The champion.
        evaluate: The group of params.yaml, for the bootstrap.

    Returns:
        champion, rule, few_test_patients (their number where it is below ten), models, pairs.
    """
    models: list[dict[str, Any]] = []
    for candidate in candidates:
        scores = candidate.scores
        test = scores["test"]
        models.append(
            {
                "name": candidate.name,
                "validation_dice": scores["validation"]["dice"][MEAN_FOREGROUND],
                "test_dice": test["dice"][MEAN_FOREGROUND],
                "test_low": test["dice_low"][MEAN_FOREGROUND],
                "test_high": test["dice_high"][MEAN_FOREGROUND],
                **costs(candidate),
                "external": False,
            }
        )
    for name, external in externals.items():
        test = external.summary.to_dict()
        models.append(
            {
                "name": name,
                "validation_dice": None,
                "test_dice": test["dice"][MEAN_FOREGROUND],
                "test_low": test["dice_low"][MEAN_FOREGROUND],
                "test_high": test["dice_high"][MEAN_FOREGROUND],
                **dict.fromkeys(costs(candidates[0])),
                "external": True,
            }
        )
    tables = {one.name: one.pooled["test"].patients for one in candidates}
    tables |= {name: external.patients for name, external in externals.items()}
    tested = len(candidates[0].pooled["test"].patients)
    classes = [name for name in candidates[0].scores["test"]["dice"] if name != MEAN_FOREGROUND]
    return {
        "champion": chosen,
        "rule": RULE,
        "few_test_patients": tested if tested < FEW_PATIENTS else None,
        "models": models,
        "pairs": paired_differences(
            {name: patient_dice(patients, classes) for name, patients in tables.items()},
            seed=evaluate.seed,
            resamples=evaluate.bootstrap_resamples,
        ),
    }


def metric_files(candidate: Candidate) -> dict[str, dict[str, dict[str, float | None]]]:
    """What `dvc metrics show` prints: it makes a row of a file and a column of a number.

    Returns:
        Class, or `mean_foreground` -> Dice on validation; Dice with its interval and IoU on test.
    """
    scores = candidate.scores
    return {
        label: {
            "validation": {"dice": scores["validation"]["dice"][label]},
            "test": {
                "dice": scores["test"]["dice"][label],
                "low": scores["test"]["dice_low"][label],
                "high": scores["test"]["dice_high"][label],
                "iou": scores["test"]["iou"][label],
            },
        }
        for label in foreground(scores["test"])
    }


def register(root: Path, params: Params, chosen: Candidate) -> str:
    """Registers the chosen model; it takes the alias `champion` unless a better one holds it.

    A champion of the same data and the same split stays where its validation score is not beaten;
    one of other data is replaced, as their scores cannot be compared.

    Returns:
        One sentence on what was done.
    """
    store, name = tracking.open_store(root), params.compare.registered_model
    origin: Mapping[str, str] = chosen.trained
    run_id, model = chosen.trained["run_id"], label(params, chosen.name, min(chosen.folds))
    if len(chosen.folds) > 1:
        origin = tracking.provenance(root, root / "prepared" / "split.csv")
        run_id, model = (
            ensemble_run(root, params, store, chosen, origin),
            label(params, chosen.name),
        )
    score = chosen.validation_score
    before, left = tracking.champion(store, name), ""
    if before is not None and before.run_id != run_id:
        same = all(before.tags.get(tag) == origin[tag] for tag in ("data_hash", "split_hash"))
        held = before.tags.get(tracking.SCORE_TAG)
        if same and held is not None and float(held) >= score:
            return (
                f"{name} version {before.version} stays champion: {RULE} {float(held):.4f} on the "
                f"same data and split, {model} reached {score:.4f}"
            )
        if not same:
            left = (
                f". Version {before.version} was of other data or another split, whose scores do "
                f"not compare; it stays at models:/{name}/{before.version}"
            )
    version = tracking.register_champion(
        store,
        run_id,
        tracking.model_of(store, run_id),
        name=name,
        description=model_card(model, chosen),
        reason=chosen.rule,
        score=score,
    )
    return f"{name} version {version.version} is champion: {model}, {chosen.rule}{left}"


def ensemble_run(
    root: Path,
    params: Params,
    store: tracking.Store,
    chosen: Candidate,
    provenance: Mapping[str, str],
) -> str:
    """The run of an ensemble of folds: its parameters, out-of-fold scores and model.

    The same members have one run, however often they are compared.

    Returns:
        Its id.
    """
    members = ",".join(fold["trained"]["run_id"] for fold in chosen.folds.values())
    found = tracking.find_run(store, {"members": members})
    with tracking.start_run(
        store,
        run_name(params, chosen.name),
        parameters=public_parameters(params, chosen.name),
        tags={
            **provenance,
            "stage": "compare",
            "architecture": chosen.name,
            "folds": ",".join(map(str, chosen.folds)),
            "members": members,
        },
        description=model_card(label(params, chosen.name), chosen),
        run_id=found,
    ) as run:
        for section, subset in (
            (metric_group("validation"), "validation"),
            ("out_of_fold", "test"),
        ):
            numbers = metrics_of(chosen.pooled[subset].summary)
            tracking.log_metrics(run, {f"{section}/{key}": value for key, value in numbers.items()})
        tracking.log_table(run, out_of_fold(chosen), "tables/out_of_fold_patients.json")
        if found is None:
            with TemporaryDirectory() as aside:
                # The folds that are compared, and no other that an earlier run left beside them.
                together = Path(aside) / chosen.name
                for fold in chosen.folds:
                    source = fold_folder(root / "models" / chosen.name, fold)
                    shutil.copytree(source, fold_folder(together, fold))
                tracking.log_model(run, together, code=root / "src")
    return run.run_id


def model_card(name: str, chosen: Candidate) -> str:
    """The description of a registered version, Markdown."""
    several = len(chosen.folds) > 1
    lines = [
        f"**{name}**, {chosen.trained['parameters']:,} parameters{' each' if several else ''}, "
        f"chosen by {RULE}{', mean of its folds' if several else ''}.",
        "",
        markdown_table(chosen.scores),
        "",
        *([OUT_OF_FOLD, ""] if several else []),
        "Input: CT slices in Hounsfield units, (B, H, W). Output: class indices of the same size.",
        "Research use only; not a clinical device. It knows the scanners and patients of its "
        "training data alone.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Sets the architectures side by side, chooses on validation, registers the choice.

    Example: python -m src.stages.compare
    """
    root = Path.cwd()
    params = load_params(root / "params.yaml")
    candidates = [
        read_candidate(root, name, params.split.fold, params.evaluate)
        for name in params.architectures
    ]
    chosen = choose(candidates)
    print_scores({one.name: one.scores for one in candidates}, QUANTITIES[:2])
    if len(params.split.fold) > 1:
        terminal.console.print(OUT_OF_FOLD)
    sentence = register(root, params, chosen)
    with whole_folder(root / "reports" / "out_of_fold") as aside:
        for candidate in candidates:
            out_of_fold(candidate).to_csv(aside / f"{candidate.name}.csv", index=False)
    with whole_folder(root / "reports" / "metrics") as aside:
        for candidate in candidates:
            for cls, numbers in metric_files(candidate).items():
                path = aside / candidate.name / f"{cls}.json"
                write_text(path, json.dumps(numbers, indent=2) + "\n")
    counts, left_out = read_external(root, params.data.classes)
    for sentence in left_out:
        terminal.warn(sentence)
    options = {"seed": params.evaluate.seed, "resamples": params.evaluate.bootstrap_resamples}
    externals = {
        name: scores_of(table, params.data.classes, **options) for name, table in counts.items()
    }
    together = comparison(candidates, externals, chosen.name, params.evaluate)
    print_comparison(together["models"], together["pairs"])
    write_text(root / "reports" / "comparison.json", json.dumps(together, indent=2) + "\n")
    content = headline(candidates, chosen.name)
    write_text(root / "reports" / "metrics.json", json.dumps(content, indent=2) + "\n")
    terminal.console.print(f"{sentence}. Look at it: make ui")


if __name__ == "__main__":
    terminal.run(main)
