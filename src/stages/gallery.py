"""Pictures of what people should look at: the worst slices, and the largest of each patient."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from src import figures, terminal
from src.config import Params
from src.evaluation.uncertainty import normalised_entropy
from src.files import write_text
from src.inference import Segmenter, cleaned, most_probable
from src.scoring import SubsetScores, json_number
from src.stages.scans import read_images_and_truths, scans_of, spacings_of

if TYPE_CHECKING:
    import pandas as pd

PICTURES = "gallery"  # the folder beside gallery.json


def largest_slices(slices: pd.DataFrame, name: str) -> pd.Series[str]:
    """Patient pseudonym -> the case that holds most of a class, of equals the first by name."""
    by_size = slices.sort_values([f"truth_pixels_{name}", "case"], ascending=[False, True])
    return by_size.drop_duplicates("patient_pseudonym").set_index("patient_pseudonym")["case"]


def gallery_cases(slices: pd.DataFrame, name: str, worst: int) -> list[str]:
    """Which slices are shown.

    Args:
        slices: A row per slice: case, patient_pseudonym, dice_NAME, truth_pixels_NAME.
        name: Of the class that is looked at.
        worst: How many of the slices with the lowest Dice.

    Returns:
        Cases by their Dice, the lowest first: the worst, and of each patient the slice that holds
        most of the class. A slice without the class in truth and prediction has no Dice and is
        shown of a patient that has no other.
    """
    scored = slices.dropna(subset=[f"dice_{name}"])
    # Many slices have a Dice of 0: they take turns by patient, and missed ones with false ones.
    kind = [scored["patient_pseudonym"], scored[f"dice_{name}"], scored[f"truth_pixels_{name}"] > 0]
    turns = scored.assign(turn=scored.groupby(kind).cumcount())
    lowest = turns.sort_values([f"dice_{name}", "turn", "case"], kind="stable")["case"].head(worst)
    chosen = slices[slices["case"].isin({*lowest, *largest_slices(slices, name)})]
    return chosen.sort_values([f"dice_{name}", "case"], kind="stable")["case"].tolist()


def write_gallery(
    folder: Path,
    slices: pd.DataFrame,
    pictures: Mapping[str, figures.OverlayCase],
    *,
    name: str,
    class_names: tuple[str, ...],
    window: tuple[float, float],
) -> None:
    """Draws the slices and writes what is known of them.

    Args:
        folder: Gets gallery.json and gallery/*.png.
        slices: As in `gallery_cases`, with source, uncertainty, tags_NAME, areas in pixels and
            distances.
        pictures: Case -> what is drawn, in the order of the gallery.
        name: Of the class that is looked at.
        class_names: All classes.
        window: (low, high) in HU.
    """
    rows = slices.set_index("case")
    entries = []
    (folder / PICTURES).mkdir()
    for case, shown in pictures.items():
        row = rows.loc[case]
        path = Path(PICTURES) / f"{case.replace('/', '_')}.png"
        picture = figures.overlay_picture(
            [shown], class_names=class_names, window=window, heading=f"{name} {shown.score}"
        )
        if not cv2.imwrite(str(folder / path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
            raise OSError(f"{path.name} could not be written")
        pixel_mm2 = shown.spacing_mm[0] * shown.spacing_mm[1]
        entries.append(
            {
                "file": path.as_posix(),
                "case": case,
                "patient": row["patient_pseudonym"],
                "source": row["source"],
                "class": name,
                "dice": json_number(row[f"dice_{name}"]),
                "hd95_mm": json_number(row.get(f"hd95_mm_{name}", np.nan)),
                "uncertainty": json_number(row["uncertainty"]),
                "truth_mm2": round(float(row[f"truth_pixels_{name}"] * pixel_mm2), 2),
                "predicted_mm2": round(float(row[f"predicted_pixels_{name}"] * pixel_mm2), 2),
                "tags": [tag for tag in row[f"tags_{name}"].split("; ") if tag],
            }
        )
    write_text(folder / "gallery.json", json.dumps(entries, indent=2) + "\n")


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


def shown_cases(
    data: Path,
    cases: pd.DataFrame,
    wanted: Sequence[str],
    segmenter: Segmenter,
    params: Params,
) -> dict[str, figures.OverlayCase]:
    """Image, truth, prediction and uncertainty of some slices, with a progress bar over scans.

    Args:
        data: The data folder.
        cases: Rows of the case table: one side.
        wanted: Case pseudonyms.
        segmenter: The model.
        params: All parameters.

    Returns:
        Case pseudonym -> what is drawn, in the order of `wanted`, without a score.
    """
    found: dict[str, figures.OverlayCase] = {}
    scans = [
        (scan, places)
        for scan in scans_of(cases)
        if (places := [place for place, row in enumerate(scan) if row.case_pseudonym in wanted])
    ]
    with terminal.progress("drawing scans", len(scans)) as tick:
        for scan, places in scans:
            # The scan as a whole: neighbours and post-processing belong to the prediction.
            images, truths = read_images_and_truths(data, scan, params)
            spacings = spacings_of(scan)
            masks = [np.empty(0, np.uint8)] * len(scan)
            unsure: dict[int, NDArray[np.float32]] = {}
            for number, probability in segmenter.each(images, spacings):
                masks[number] = most_probable(probability)
                if number in places:
                    unsure[number] = normalised_entropy(probability)
            masks = cleaned(masks, segmenter.postprocessing)
            for place in places:
                found[scan[place].case_pseudonym] = figures.OverlayCase(
                    image=images[place],
                    truth=truths[place],
                    prediction=masks[place],
                    spacing_mm=spacings[place],
                    name=scan[place].case_pseudonym,
                    uncertainty=unsure[place],
                )
            tick()
    return {case: found[case] for case in wanted}


def draw(
    data: Path,
    cases: pd.DataFrame,
    scores: SubsetScores,
    segmenter: Segmenter,
    params: Params,
    folder: Path,
) -> None:
    """Draws best, median and worst patients, the scores of all, and the gallery of slices.

    Each patient is shown by the slice that holds most of the stratified class.
    """
    name = params.split.stratify_class
    window = (segmenter.settings.window_low, segmenter.settings.window_high)
    of_slices = scores.slices.set_index("case")[f"dice_{name}"]
    of_patients = scores.patients.set_index("patient_pseudonym")[f"dice_{name}"]
    gallery = gallery_cases(scores.slices, name, params.evaluate.gallery_slices)
    pictures = shown_cases(data, cases, gallery, segmenter, params)
    write_gallery(
        folder,
        scores.slices,
        {case: replace(shown, score=_score(of_slices[case])) for case, shown in pictures.items()},
        name=name,
        class_names=segmenter.class_names,
        window=window,
    )
    largest = largest_slices(scores.slices, name)
    ranks = extremes(scores.patients, f"dice_{name}", params.evaluate.overlay_patients)
    for rank, pseudonyms in ranks.items():
        shown = [
            replace(
                pictures[largest[pseudonym]],
                score=f"{name} Dice of the patient {of_patients[pseudonym]:.2f}",
            )
            for pseudonym in pseudonyms
        ]
        if not shown:
            continue
        sheet = figures.overlay_sheet(
            shown,
            class_names=segmenter.class_names,
            window=window,
            title=f"{rank} patients of the test side by {name} Dice",
        )
        figures.save(sheet, folder / f"{rank}.png")
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
        figures.save(chart, folder / f"{quantity}_by_patient.png")


def _score(dice: float) -> str:
    return "none, none predicted" if np.isnan(dice) else f"Dice {dice:.2f}"
