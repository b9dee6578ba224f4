"""Stage `evaluate`: the model of one fold on validation and test patients, at full size.

The truth is read from data/ again, not from the prepared arrays: a score at the size of the arrays
would not be the score of the mask that a user gets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from src import figures, terminal, tracking
from src.config import Params, load_params, public_parameters, truth_parameters
from src.data.splits import fold_folder
from src.evaluation.failures import failure_tags
from src.evaluation.overlap import QUANTITIES
from src.evaluation.temperature import apply_temperature
from src.files import whole_folder
from src.inference import Segmenter, cleaned, load_segmenter, most_probable
from src.scoring import (
    Measures,
    SubsetScores,
    count_table,
    measure,
    metric_group,
    metrics_of,
    scores_of,
)
from src.stages.confidence import (
    REGIONS,
    CalibrationTally,
    Doubt,
    Look,
    doubt_of_looks,
    looks_at_flips,
    looks_with_dropout,
    of_class,
    side_by_side,
    worth,
)
from src.stages.failure_notes import strata, with_notes
from src.stages.folds import label, run_name
from src.stages.gallery import draw
from src.stages.prepare import cases_with_sides
from src.stages.scans import read_images_and_truths, scans_of, spacings_of
from src.stages.score_table import (
    DISTANCES,
    SUBSETS,
    markdown_table,
    one_empty_notes,
    print_scores,
)

if TYPE_CHECKING:
    import pandas as pd

ENTROPY = "entropy"  # of the model as it is used: the doubt that costs nothing more
DOUBT = "flips_disagreement"  # what stands beside the score of a case: of little cost, much worth


@dataclass(frozen=True)
class Evaluation:
    """What is known of a model on one side.

    Attributes:
        scores: Of slices and patients, with uncertainty and tags in their tables.
        calibration: Of the probabilities, see `CalibrationTally.to_dict`.
        doubts: Way of asking how sure the model is -> the uncertainty of each case.
    """

    scores: SubsetScores
    calibration: dict[str, Any]
    doubts: dict[str, Doubt]

    @property
    def seconds_per_slice(self) -> float:
        """Of prediction as the model is used."""
        return self.doubts[ENTROPY].seconds / max(len(self.scores.slices), 1)


def evaluate(
    data: Path,
    cases: pd.DataFrame,
    segmenter: Segmenter,
    params: Params,
    tick: Callable[[], None] = lambda: None,
    *,
    predictions: Path | None = None,
    others: Mapping[str, Sequence[Look]] = MappingProxyType({}),
) -> Evaluation:
    """Predicts the slices of a case table and scores them.

    Args:
        data: The data folder.
        cases: Rows of the case table: one side.
        segmenter: The model.
        params: All parameters; `data`, `evaluate` and `split.stratify_class` are used.
        tick: Called after every slice.
        predictions: A folder for the masks, see `keep_masks`; None to keep none.
        others: Further ways of asking how sure the model is: name -> several looks at a scan.

    Returns:
        The evaluation.
    """
    temperature = segmenter.card.temperature
    network = segmenter.changed(temperature=1.0)
    tally = CalibrationTally()
    looked_at = segmenter.class_names.index(params.split.stratify_class)
    doubts = {ENTROPY: Doubt(4 if segmenter.card.flips else 1)}
    for way, looks in others.items():
        doubts |= {way: Doubt(len(looks)), f"{way}_disagreement": Doubt(len(looks))}
    by_case: dict[str, Measures] = {}
    tags: dict[str, dict[int, tuple[str, ...]]] = {}
    for scan in scans_of(cases):
        images, truths = read_images_and_truths(data, scan, params)
        spacings = spacings_of(scan)
        masks = [np.empty(0, np.uint8)] * len(scan)
        for number, before in doubts[ENTROPY].timed(network.each(images, spacings)):
            after = apply_temperature(before, temperature)
            masks[number] = most_probable(before)
            tally.add(before, after, truths[number], spacings[number])
            doubts[ENTROPY].cases[scan[number].case_id] = of_class(after, looked_at)
        for way, looks in others.items():
            said = doubts[way].timed(side_by_side(looks, images, spacings))
            for number, probabilities in said:
                entropy, disagreement = doubt_of_looks(probabilities, looked_at)
                doubts[way].cases[scan[number].case_id] = entropy
                doubts[f"{way}_disagreement"].cases[scan[number].case_id] = disagreement
        masks = cleaned(masks, segmenter.postprocessing)
        for row, truth, prediction, spacing in zip(scan, truths, masks, spacings, strict=True):
            by_case[row.case_id] = measure(
                truth,
                prediction,
                segmenter.num_classes,
                spacing_mm=spacing,
                tolerance_mm=params.evaluate.tolerance_mm,
            )
            tags[row.case_id] = failure_tags(truth, prediction, segmenter.num_classes, spacing)
            tick()
        if predictions is not None:
            keep_masks(predictions, scan, masks)
    for way in others:  # both are read off the same looks
        doubts[f"{way}_disagreement"].seconds = doubts[way].seconds
    ids = cases["case_id"].tolist()
    scores = scores_of(
        count_table(cases, [by_case[case] for case in ids], segmenter.class_names),
        segmenter.class_names,
        seed=params.evaluate.seed,
        resamples=params.evaluate.bootstrap_resamples,
    )
    doubt = doubts.get(DOUBT, doubts[ENTROPY])
    scores = with_notes(
        scores,
        doubt.of_cases(ids),
        doubt.of_patients(ids, cases["pseudonym"].tolist()),
        [tags[case] for case in ids],
        segmenter.class_names,
    )
    return Evaluation(scores, tally.to_dict(), doubts)


def keep_masks(folder: Path, scan: list[Any], masks: list[NDArray[np.uint8]]) -> None:
    """Writes the predicted masks of a scan, compressed: P-3f9c1e2a_000.npz after its first slice.

    Args:
        folder: Where.
        scan: Rows of the case table, in the order of the slices.
        masks: (H, W) class indices of each; the file has one array a slice, named by what follows
            the patient in its case pseudonym, such as "000".
    """
    slices: dict[str, Any] = {
        row.case_pseudonym.rpartition("/")[2]: mask for row, mask in zip(scan, masks, strict=True)
    }
    np.savez_compressed(folder / f"{scan[0].case_pseudonym.replace('/', '_')}.npz", **slices)


def main(
    architecture: Annotated[str, typer.Argument(help="one of architectures in params.yaml")],
    fold: Annotated[int, typer.Argument(help="one of split.fold in params.yaml")] = 0,
) -> None:
    """Scores one model on validation and test patients, with intervals, pictures and tables.

    Example: python -m src.stages.evaluate unet 0
    """
    root = Path.cwd()
    params = load_params(root / "params.yaml")
    cases = cases_with_sides(root / "prepared", fold)
    model_folder = fold_folder(root / "models" / architecture, fold)
    segmenter = load_segmenter(model_folder)
    assert isinstance(segmenter, Segmenter)  # the folder of a fold holds one model
    terminal.console.print(f"engine: {segmenter.engine_note}")
    trained = json.loads((model_folder / "run.json").read_text(encoding="utf-8"))
    sides = {subset: cases[cases["subset"] == subset] for subset in SUBSETS}
    found: dict[str, Evaluation] = {}
    with whole_folder(fold_folder(root / "prepared" / "predictions" / architecture, fold)) as masks:
        for subset, side in sides.items():
            is_test = subset == "test"
            with terminal.progress(f"scoring the {subset} patients", len(side)) as tick:
                found[subset] = evaluate(
                    root / "data", side, segmenter, params, tick,
                    predictions=masks if is_test else None,
                    others=ways_of_asking(segmenter, params if is_test else None),
                )  # fmt: skip
    folder = fold_folder(root / "reports" / "evaluation" / architecture, fold)
    scores = {subset: result.scores for subset, result in found.items()}
    content = {
        "trained": trained,
        **{subset: result.summary.to_dict() for subset, result in scores.items()},
        "seconds_per_slice": round(found["test"].seconds_per_slice, 5),
    }
    name = params.split.stratify_class
    test = found["test"]
    calibrated: dict[str, Any] = {
        "temperature": segmenter.card.temperature,
        "state": segmenter.card.calibration,
        **{subset: result.calibration for subset, result in found.items()},
    }
    asked = worth(
        test.doubts, sides["test"]["case_id"].tolist(), test.scores.slices[f"dice_{name}"]
    )
    by_stratum = strata(test.scores, sides["test"], params)
    with whole_folder(folder) as aside:
        draw(root / "data", sides["test"], test.scores, segmenter, params, aside)
        figures.save(figures.reliability_diagram(calibrated["test"]), aside / "reliability.png")
        figures.save(figures.risk_coverage_curves(asked), aside / "risk_coverage.png")
        figures.save(figures.dice_by_stratum(by_stratum), aside / "dice_by_size.png")
        for subset, result in scores.items():
            result.slices.to_csv(aside / f"{subset}_slices.csv", index=False)
            result.patients.to_csv(aside / f"{subset}_patients.csv", index=False)
            result.counts.to_csv(aside / f"{subset}_counts.csv", index=False)
        for file, numbers in (
            ("calibration", calibrated),
            ("uncertainty", {"class": name, "test": asked}),
            ("dice_by_size", by_stratum),
            ("scores", content),
        ):
            (aside / f"{file}.json").write_text(json.dumps(numbers, indent=2) + "\n", "utf-8")
    more = confidence_metrics(calibrated["test"], asked)
    _log(root, params, architecture, fold, content, scores, folder, more)
    for quantities in (QUANTITIES[:2], QUANTITIES[2:], DISTANCES):
        print_scores({label(params, architecture, fold): content}, quantities)
    for subset in SUBSETS:
        for note in one_empty_notes(content[subset]):
            terminal.console.print(f"{subset}: {note}")
    terminal.console.print(
        "means over n patients with their 95 % intervals; the mean of the classes leaves the "
        f"background out. Pictures and tables: reports/evaluation/{architecture}/fold{fold}"
    )


def ways_of_asking(segmenter: Segmenter, params: Params | None) -> dict[str, list[Look]]:
    """Ways to ask a model how sure it is beside its own entropy: flips, and with params dropout."""
    ways = {"flips": looks_at_flips(segmenter)}
    if params is not None:
        runs, seed = params.evaluate.dropout_runs, params.evaluate.seed
        ways["dropout"] = looks_with_dropout(segmenter, runs, seed=seed)
    return {way: looks for way, looks in ways.items() if looks}


def confidence_metrics(calibrated: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, float]:
    """What of calibration and uncertainty stands in the list of runs: `ece/boundary`, …."""
    metrics = {
        f"{number}/{region}": calibrated[region]["after"][number]
        for region in REGIONS
        for number in ("ece", "brier")
    }
    metrics |= {f"aurc/{way}": found["aurc"] for way, found in asked.items()}
    return {key: float(value) for key, value in metrics.items() if value is not None}


def _log(
    root: Path,
    params: Params,
    architecture: str,
    fold: int,
    content: dict[str, Any],
    scores: dict[str, SubsetScores],
    folder: Path,
    more: Mapping[str, float],
) -> None:
    """Adds the scores, tables and pictures to the run that trained the model."""
    store = tracking.open_store(root)
    with tracking.start_run(
        store,
        run_name(params, architecture, fold),
        parameters=public_parameters(params, architecture, fold),
        tags={
            **tracking.provenance(
                root, root / "prepared" / "split.csv", truth_parameters(params), fold
            ),
            "architecture": architecture,
            "fold": str(fold),
        },
        description=f"{content['trained']['description']}\n\n{markdown_table(content)}",
        run_id=content["trained"]["run_id"],
    ) as run:
        for subset, result in scores.items():
            numbers = metrics_of(result.summary)
            group = metric_group(subset)
            tracking.log_metrics(run, {f"{group}/{key}": value for key, value in numbers.items()})
            tracking.log_table(run, result.patients, f"tables/{subset}_patients.json")
            tracking.log_table(run, result.slices, f"tables/{subset}_slices.json")
        tracking.log_metrics(run, {f"test/{key}": value for key, value in more.items()})
        for path in sorted(folder.glob("*.json")):
            tracking.log_artifact(run, path, "tables")
        for path in sorted(folder.glob("*.png")):
            tracking.log_artifact(run, path, "figures")


if __name__ == "__main__":
    terminal.run(main)
