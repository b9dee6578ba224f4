"""Stage `evaluate`: the model of one fold on validation and test patients, at full size.

The truth is read from data/ again, not from the prepared arrays: a score at the size of the arrays
would not be the score of the mask that a user gets.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from src import figures, terminal, tracking
from src.config import Params, load_params, public_parameters
from src.data.masks import class_indices
from src.data.readers import PictureScale, read_image_slice, read_mask_slice
from src.data.splits import fold_folder
from src.data.stacks import volumes_and_positions
from src.evaluation.overlap import QUANTITIES
from src.files import whole_folder
from src.scoring import (
    Measures,
    SubsetScores,
    count_table,
    measure,
    metric_group,
    metrics_of,
    scores_of,
)
from src.stages.folds import label, run_name
from src.stages.prepare import cases_with_sides
from src.stages.score_table import DISTANCES, SUBSETS, markdown_table, print_scores

if TYPE_CHECKING:
    import pandas as pd

    from src.inference import AnySegmenter


def evaluate(
    data: Path,
    cases: pd.DataFrame,
    segmenter: AnySegmenter,
    params: Params,
    tick: Callable[[], None] = lambda: None,
    *,
    predictions: Path | None = None,
) -> SubsetScores:
    """Predicts the slices of a case table and scores them.

    Args:
        data: The data folder.
        cases: Rows of the case table: one side.
        segmenter: The model.
        params: All parameters; `data` and `evaluate` are used.
        tick: Called after every slice.
        predictions: A folder for the masks, see `keep_masks`; None to keep none.

    Returns:
        The scores.
    """
    seconds = 0.0
    by_case: dict[str, Measures] = {}
    for scan in scans_of(cases):
        started = time.perf_counter()
        images, truths = _read(data, scan, params)
        masks = segmenter.masks(images)
        seconds += time.perf_counter() - started
        for row, truth, prediction in zip(scan, truths, masks, strict=True):
            by_case[row.case_id] = measure(
                truth,
                prediction,
                segmenter.num_classes,
                spacing_mm=(row.spacing_y_mm, row.spacing_x_mm),
                tolerance_mm=params.evaluate.tolerance_mm,
            )
            tick()
        if predictions is not None:
            keep_masks(predictions, scan, masks)
    measures = [by_case[case] for case in cases["case_id"]]
    scores = scores_of(
        count_table(cases, measures, segmenter.class_names),
        segmenter.class_names,
        seed=params.evaluate.seed,
        resamples=params.evaluate.bootstrap_resamples,
    )
    return replace(scores, seconds=seconds)


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
    segmenter: AnySegmenter,
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


def main(
    architecture: Annotated[str, typer.Argument(help="one of architectures in params.yaml")],
    fold: Annotated[int, typer.Argument(help="one of split.fold in params.yaml")] = 0,
) -> None:
    """Scores one model on validation and test patients, with intervals, pictures and tables.

    Example: python -m src.stages.evaluate unet 0
    """
    from src.inference import load_segmenter

    root = Path.cwd()
    params = load_params(root / "params.yaml")
    cases = cases_with_sides(root / "prepared", fold)
    model_folder = fold_folder(root / "models" / architecture, fold)
    segmenter = load_segmenter(model_folder)
    trained = json.loads((model_folder / "run.json").read_text(encoding="utf-8"))
    scores: dict[str, SubsetScores] = {}
    with whole_folder(fold_folder(root / "prepared" / "predictions" / architecture, fold)) as masks:
        for subset in SUBSETS:
            side = cases[cases["subset"] == subset]
            kept = masks if subset == "test" else None
            with terminal.progress(f"scoring the {subset} patients", len(side)) as tick:
                scores[subset] = evaluate(
                    root / "data", side, segmenter, params, tick, predictions=kept
                )

    folder = fold_folder(root / "reports" / "evaluation" / architecture, fold)
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
            result.counts.to_csv(aside / f"{subset}_counts.csv", index=False)
        (aside / "scores.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    _log(root, params, architecture, fold, content, scores, folder)
    for quantities in (QUANTITIES[:2], QUANTITIES[2:], DISTANCES):
        print_scores({label(params, architecture, fold): content}, quantities)
    terminal.console.print(
        "means over n patients with their 95 % intervals; the mean of the classes leaves the "
        f"background out. Pictures and tables: reports/evaluation/{architecture}/fold{fold}"
    )


def _log(
    root: Path,
    params: Params,
    architecture: str,
    fold: int,
    content: dict[str, Any],
    scores: dict[str, SubsetScores],
    folder: Path,
) -> None:
    """Adds the scores, tables and pictures to the run that trained the model."""
    store = tracking.open_store(root)
    with tracking.start_run(
        store,
        run_name(params, architecture, fold),
        parameters=public_parameters(params, architecture, fold),
        tags={
            **tracking.provenance(root, root / "prepared" / "split.csv", fold),
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
        tracking.log_artifact(run, folder / "scores.json", "tables")
        for path in sorted(folder.glob("*.png")):
            tracking.log_artifact(run, path, "figures")


if __name__ == "__main__":
    terminal.run(main)
