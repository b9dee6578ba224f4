"""Stage `compare`: chooses among the architectures on validation, and registers the choice.

The test figures stand beside the validation figures. With one split they decide nothing. With
several folds they are out of fold: each patient is scored by the model that did not see it, and
stands in the mean once. But who is tested in one fold validates in another, so the choice among
architectures has seen the test patients, and the test figure of the chosen one is slightly
optimistic. What is registered is then the ensemble of the folds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src import terminal
from src.config import Evaluate, load_params
from src.evaluation.overlap import MEAN_FOREGROUND, QUANTITIES
from src.external import read_external
from src.files import whole_folder, write_text
from src.scoring import SubsetScores, scores_of
from src.stages.candidates import OUT_OF_FOLD, RULE, Candidate, out_of_fold, read_candidate
from src.stages.leftovers import remove_unlisted
from src.stages.paired import (
    FEW_PATIENTS,
    paired_differences,
    patient_dice,
    print_comparison,
)
from src.stages.registration import register
from src.stages.score_table import SUBSETS, foreground, print_scores


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the best validation score; of equals the first by name."""
    return max(sorted(candidates, key=lambda one: one.name), key=lambda one: one.validation_score)


def headline(candidates: Sequence[Candidate], chosen: str) -> dict[str, Any]:
    """All of the comparison, for programs: patient means with intervals.

    With several folds also the mean foreground Dice of each, and the mean of these, which decides
    nothing: the choice rests on `validation`, where each patient counts once.
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
            content[candidate.name]["mean_of_folds"] = candidate.mean_of_folds
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


def main() -> None:
    """Sets the architectures side by side, chooses on validation, registers the choice.

    Example: python -m src.stages.compare
    """
    root = Path.cwd()
    params = load_params(root / "params.yaml")
    # Here and not in an earlier stage: DVC runs this one whenever anything lies there that is not
    # of the lists, and takes its hashes of models/ and reports/ afterwards.
    remove_unlisted(root, params.architectures, params.split.fold)
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
    counts, left_out = read_external(root, params)
    for reason in left_out:
        terminal.warn(reason)
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
