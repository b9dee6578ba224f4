"""Stage `evaluate`: one model on validation and test patients, at the size of their scans.

The truth is read from data/ again, not from the prepared arrays: a score at the size of the arrays
would not be the score of the mask that a user gets.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from src import figures, terminal, tracking
from src.config import Params, load_params, public_parameters
from src.data.masks import class_indices
from src.data.readers import PictureScale, read_image_slice, read_mask_slice
from src.data.stacks import volumes_and_positions
from src.evaluation.overlap import (
    QUANTITIES,
    Counts,
    Summary,
    count,
    overlap,
    summarise,
)
from src.files import whole_folder
from src.stages.prepare import cases_with_sides
from src.stages.score_table import SUBSETS, markdown_table, print_scores

if TYPE_CHECKING:
    import pandas as pd

    from src.inference import Segmenter


@dataclass(frozen=True)
class SubsetScores:
    """The scores of one side.

    Attributes:
        summary: Means and intervals.
        slices: A row per slice, pseudonyms only: Dice, IoU, precision, recall of each class.
        patients: A row per patient, likewise.
        seconds: Of reading and prediction.
    """

    summary: Summary
    slices: pd.DataFrame
    patients: pd.DataFrame
    seconds: float


def evaluate(
    data: Path,
    cases: pd.DataFrame,
    segmenter: Segmenter,
    params: Params,
    tick: Callable[[], None] = lambda: None,
) -> SubsetScores:
    """Predicts the slices of a case table and scores them.

    Args:
        data: The data folder.
        cases: Rows of the case table: one side.
        segmenter: The model.
        params: All parameters; `data` and `evaluate` are used.
        tick: Called after every slice.

    Returns:
        The scores.
    """
    import pandas as pd

    classes = segmenter.class_names
    started = time.perf_counter()
    by_case: dict[str, Counts] = {}
    for scan in scans_of(cases):
        images, truths = _read(data, scan, params)
        for row, truth, prediction in zip(scan, truths, segmenter.masks(images), strict=True):
            by_case[row.case_id] = count(truth, prediction, len(classes))
            tick()
    counts = [by_case[case] for case in cases["case_id"]]
    seconds = time.perf_counter() - started
    by_patient: dict[str, list[Counts]] = {}
    for pseudonym, counted in zip(cases["pseudonym"], counts, strict=True):
        by_patient.setdefault(pseudonym, []).append(counted)
    pooled = {pseudonym: sum(parts[1:], parts[0]) for pseudonym, parts in by_patient.items()}
    sources = cases.drop_duplicates("pseudonym").set_index("pseudonym")["source"]
    return SubsetScores(
        summary=summarise(
            pooled,
            counts,
            class_names=classes,
            seed=params.evaluate.seed,
            resamples=params.evaluate.bootstrap_resamples,
        ),
        slices=pd.DataFrame(
            [
                {"case": case, "patient_pseudonym": pseudonym, "source": source}
                | _row(counted, classes)
                for case, pseudonym, source, counted in zip(
                    cases["case_pseudonym"],
                    cases["pseudonym"],
                    cases["source"],
                    counts,
                    strict=True,
                )
            ]
        ),
        patients=pd.DataFrame(
            [
                {
                    "patient_pseudonym": pseudonym,
                    "source": sources[pseudonym],
                    "slices": len(by_patient[pseudonym]),
                }
                | _row(counted, classes)
                for pseudonym, counted in pooled.items()
            ]
        ),
        seconds=seconds,
    )


def _row(counted: Counts, classes: tuple[str, ...]) -> dict[str, float]:
    scores = overlap(counted)
    row: dict[str, float] = {}
    for quantity in QUANTITIES:
        for name, value in zip(classes, getattr(scores, quantity), strict=True):
            row[f"{quantity}_{name}"] = round(float(value), 6)
    actual = counted.true_positives + counted.false_negatives
    predicted = counted.true_positives + counted.false_positives
    for index, name in enumerate(classes[1:], start=1):
        row[f"truth_pixels_{name}"] = int(actual[index])
        row[f"predicted_pixels_{name}"] = int(predicted[index])
    return row


def scans_of(cases: pd.DataFrame) -> list[list[Any]]:
    """The rows of the case table scan by scan, each in the order of its slices."""
    volumes, positions = volumes_and_positions(cases)
    ordered = cases.assign(volume=volumes, position=positions).sort_values(["volume", "position"])
    return [list(part.itertuples()) for _, part in ordered.groupby("volume")]


def _read(
    data: Path, rows: list[Any], params: Params
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.uint8]]]:
    scale = PictureScale(**params.data.pictures.model_dump())
    images = [read_image_slice(data, row.image_path, row.slice, scale) for row in rows]
    truths = [
        class_indices(
            read_mask_slice(data, row.mask_path, row.slice, row.image_path),
            params.data.labels,
            params.data.classes,
        )
        for row in rows
    ]
    return images, truths


def extremes(patients: pd.DataFrame, column: str, number: int) -> dict[str, list[str]]:
    """The best, median and worst patients by a score: pseudonyms, each patient once.

    Args:
        patients: A row per patient; those not scored (NaN) are left out.
        column: The score.
        number: How many of each, fewer where there are not enough patients.

    Returns:
        "worst", "median" and "best" -> pseudonyms.
    """
    ranked = patients.dropna(subset=[column]).sort_values(
        [column, "patient_pseudonym"], kind="stable"
    )["patient_pseudonym"]
    number = min(number, max(1, len(ranked) // 3))
    worst, best = ranked.iloc[:number], ranked.iloc[number:][-number:]
    middle = ranked.iloc[len(worst) : len(ranked) - len(best)]
    start = max(0, (len(middle) - number) // 2)
    return {
        "best": best.tolist()[::-1],
        "median": middle.iloc[start : start + number].tolist(),
        "worst": worst.tolist(),
    }


def draw(
    data: Path,
    cases: pd.DataFrame,
    scores: SubsetScores,
    segmenter: Segmenter,
    params: Params,
    folder: Path,
) -> list[Path]:
    """Draws image | truth | prediction of the best, median and worst patients, and the scores.

    Each patient is shown by the slice that holds most of the stratified class.

    Returns:
        The PNG files written below `folder`.
    """
    name = params.split.stratify_class
    column = f"dice_{name}"
    window = (segmenter.settings.window_low, segmenter.settings.window_high)
    values = scores.patients.set_index("patient_pseudonym")[column]
    written = []
    for rank, pseudonyms in extremes(
        scores.patients, column, params.evaluate.overlay_patients
    ).items():
        shown = []
        for pseudonym in pseudonyms:
            rows = cases[cases["pseudonym"] == pseudonym]
            largest = rows.loc[rows[f"pixels_{name}"].idxmax(), "case_id"]
            # The scan as a whole: neighbours and post-processing belong to the prediction.
            scan = next(s for s in scans_of(rows) if largest in {row.case_id for row in s})
            place = [row.case_id for row in scan].index(largest)
            row = scan[place]
            images, truths = _read(data, scan, params)
            shown.append(
                figures.OverlayCase(
                    image=images[place],
                    truth=truths[place],
                    prediction=segmenter.masks(images)[place],
                    spacing_mm=(row.spacing_y_mm, row.spacing_x_mm),
                    name=row.case_pseudonym,
                    score=f"{name} Dice of the patient {values[pseudonym]:.2f}",
                )
            )
        if not shown:
            continue
        sheet = figures.overlay_sheet(
            shown,
            class_names=segmenter.class_names,
            window=window,
            title=f"{rank} patients of the test side by {name} Dice",
        )
        written.append(folder / f"{rank}.png")
        figures.save(sheet, written[-1])
    for quantity in ("dice", "iou"):
        intervals = {
            cls: (s.patients.mean, s.patients.low, s.patients.high)
            for cls, s in scores.summary.scores[quantity].items()
            if cls in segmenter.class_names[1:]
        }
        chart = figures.patient_scores(
            {cls: scores.patients[f"{quantity}_{cls}"].to_numpy() for cls in intervals},
            intervals,
            class_names=segmenter.class_names,
            quantity={"dice": "Dice", "iou": "IoU"}[quantity],
        )
        written.append(folder / f"{quantity}_by_patient.png")
        figures.save(chart, written[-1])
    return written


def metrics_of(summary: Summary) -> dict[str, float]:
    """The means over patients as people meet them in MLflow: `dice/lesion`, `iou/lesion`, ….

    Their intervals stand in the description of the run, and all else in tables/scores.json: a chart
    for each single number would bury the curves.
    """
    groups = summary.to_dict()
    return {
        f"{quantity}/{name}": math.nan if value is None else float(value)
        for quantity in QUANTITIES
        for name, value in groups[quantity].items()
    }


def main(
    architecture: Annotated[str, typer.Argument(help="one of train.architectures in params.yaml")],
) -> None:
    """Scores one model on validation and test patients, with intervals, pictures and tables.

    Example: python -m src.stages.evaluate unet
    """
    from src.inference import load_segmenter

    root = Path.cwd()
    params = load_params(root / "params.yaml")
    cases = cases_with_sides(root / "prepared")
    model_folder = root / "models" / architecture
    segmenter = load_segmenter(model_folder)
    trained = json.loads((model_folder / "run.json").read_text(encoding="utf-8"))
    scores: dict[str, SubsetScores] = {}
    for subset in SUBSETS:
        side = cases[cases["subset"] == subset]
        with terminal.progress(f"scoring the {subset} patients", len(side)) as tick:
            scores[subset] = evaluate(root / "data", side, segmenter, params, tick)

    folder = root / "reports" / "evaluation" / architecture
    content = {
        "trained": trained,
        **{subset: result.summary.to_dict() for subset, result in scores.items()},
        "seconds_per_slice": round(
            sum(r.seconds for r in scores.values())
            / max(1, sum(len(r.slices) for r in scores.values())),
            4,
        ),
    }
    with whole_folder(folder) as aside:
        test_cases = cases[cases["subset"] == "test"]
        draw(root / "data", test_cases, scores["test"], segmenter, params, aside)
        for subset, result in scores.items():
            result.slices.to_csv(aside / f"{subset}_slices.csv", index=False)
            result.patients.to_csv(aside / f"{subset}_patients.csv", index=False)
        (aside / "scores.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    _log(root, params, architecture, content, scores, folder)
    for quantities in (QUANTITIES[:2], QUANTITIES[2:]):
        print_scores({architecture: content}, quantities)
    terminal.console.print(
        "means over n patients with their 95 % intervals; the mean of the classes leaves the "
        f"background out. Pictures and tables: reports/evaluation/{architecture}"
    )


def _log(
    root: Path,
    params: Params,
    architecture: str,
    content: dict[str, Any],
    scores: dict[str, SubsetScores],
    folder: Path,
) -> None:
    """Adds the scores, tables and pictures to the run that trained the model."""
    store = tracking.open_store(root)
    public = public_parameters(params, architecture)
    with tracking.start_run(
        store,
        tracking.run_name(architecture, public),
        parameters=public,
        tags=tracking.provenance(root, root / "prepared" / "split.csv"),
        description=f"{content['trained']['description']}\n\n{markdown_table(content)}",
        run_id=content["trained"]["run_id"],
    ) as run:
        for subset, result in scores.items():
            numbers = metrics_of(result.summary)
            # `validation/iou/…` is the curve of training: pixels pooled, at the size of the arrays.
            group = {"validation": "validation_patients"}.get(subset, subset)
            tracking.log_metrics(run, {f"{group}/{key}": value for key, value in numbers.items()})
            tracking.log_table(run, result.patients, f"tables/{subset}_patients.json")
            tracking.log_table(run, result.slices, f"tables/{subset}_slices.json")
        tracking.log_artifact(run, folder / "scores.json", "tables")
        for path in sorted(folder.glob("*.png")):
            tracking.log_artifact(run, path, "figures")


if __name__ == "__main__":
    terminal.run(main)
