"""`python -m src.score TRUTH PREDICTION`: the masks of any method, scored as the networks are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from src import terminal
from src.config import Params, load_params
from src.data.findings import count_of
from src.data.patients import Rules
from src.data.roles import Roles
from src.evaluation.overlap import MEAN_FOREGROUND
from src.external import (
    Comparison,
    check_name,
    read_comparison,
    write_external,
)
from src.files import NOT_FOR_GIT, keep_from_git, whole_folder
from src.label_values import label_value
from src.scored_labels import Labels
from src.scored_masks import PREDICTION_WORDS, Pairing, Settings, in_lines, measured, pair
from src.scoring import SubsetScores, count_table, scores_of
from src.stages.score_table import one_empty_notes, side_table

# Used where there is no params.yaml, which has them all.
SEED, RESAMPLES, TOLERANCE_MM = 2026, 10_000, 2.0
WORDS = ("mask", "masks", "label", "labels", "seg", "segs", "segmentation", "segmentations")
FILES = ("slices.csv", "patients.csv", "summary.json")
ONE = "one"  # in place of a rule for patients
FEW = 10  # patients, below which a bootstrap interval is too narrow

# --- What is wanted -------------------------------------------------------------------------------


def read_labels(text: str, option: str = "--labels") -> dict[int | str, str]:
    """`0=background,1=lesion`, or `{0: background, "#ff0000": lesion}` -> label value -> class.

    Raises:
        ValueError: Of another form, a value twice, or a class name that is none.
    """
    labels: dict[int | str, str] = {}
    for part in text.strip().strip("{}").split(","):
        found = re.fullmatch(
            r"""\s*["']?(-?\d+|\#[0-9a-fA-F]{6})["']?\s*[=:]\s*["']?([A-Za-z0-9_.-]+)["']?\s*""",
            part,
        )
        if not found:
            raise ValueError(
                f"{option} {text}: found {part.strip()!r}, expected VALUE=CLASS with a whole "
                "number or #rrggbb, and letters, digits, '_', '.' and '-'. Write it as "
                f"{option} 0=background,1=lesion."
            )
        key = found[1] if found[1].startswith("#") else int(found[1])
        same = [other for other in labels if label_value(other) == label_value(key)]
        if same:
            twice = f"{key} twice" if key in same else f"{same[0]} and {key}, which are the same"
            raise ValueError(f"{option} {text}: found {twice}, expected each value once.")
        labels[key] = found[2]
    return labels


def class_names(labels: Labels, known: Sequence[str]) -> tuple[str, ...]:
    """The classes that labels name, background first.

    Args:
        labels: As the user gave them.
        known: data.classes of params.yaml, or none.

    Returns:
        `known` where it has all of them; else the class of the value 0 first (or of the first
        value), then the others as they are given.

    Raises:
        ValueError: Fewer than two classes, or one with the name of the mean over classes.
    """
    named = list(dict.fromkeys(labels.values()))
    if MEAN_FOREGROUND in named:
        raise ValueError(
            f"--labels: found a class {MEAN_FOREGROUND!r}, expected another name: the tables give "
            "this one to the mean over classes. Rename the class."
        )
    if known and set(named) <= set(known):
        return tuple(known)
    if len(named) < 2:
        raise ValueError(
            f"--labels names {', '.join(named)} alone, expected the background and at least one "
            "class. Write it as --labels 0=background,1=lesion."
        )
    first = next((name for key, name in labels.items() if label_value(key) == 0), named[0])
    return (first, *(name for name in named if name != first))


def settings_of(
    params: Params | None,
    *,
    labels: str | None,
    prediction_labels: str | None,
    spacing_mm: tuple[float, float] | None,
    tolerance_mm: float | None,
    patient: str | None,
) -> Settings:
    """The options of the command, and params.yaml where they say nothing.

    Raises:
        ValueError: An option that makes no sense, or no labels at all.
    """
    data = params.data if params else None
    if labels is not None:
        truth_labels: Labels = read_labels(labels)
    elif data is not None:
        truth_labels = data.labels
    else:
        raise ValueError(
            "there is no params.yaml here, so the values in masks mean nothing yet. Say what they "
            "are: --labels 0=background,1=lesion."
        )
    classes = class_names(truth_labels, data.classes if data else ())
    others: Labels = truth_labels
    if prediction_labels is not None:
        others = read_labels(prediction_labels, "--prediction-labels")
        unknown = sorted(set(others.values()) - set(classes))
        if unknown:
            raise ValueError(
                f"--prediction-labels names {', '.join(unknown)}, expected classes of the truth: "
                f"{', '.join(classes)}."
            )
    if spacing_mm is None and data is not None:
        spacing_mm = data.pictures.spacing_mm
    if spacing_mm is not None and min(spacing_mm) <= 0:
        raise ValueError(
            f"--spacing-mm must be above 0, got {spacing_mm[0]:g} x {spacing_mm[1]:g}."
        )
    if tolerance_mm is None:
        tolerance_mm = params.evaluate.tolerance_mm if params else TOLERANCE_MM
    if tolerance_mm < 0:
        raise ValueError(f"--tolerance-mm must be 0 or more, got {tolerance_mm:g}.")
    image_words = data.image_words if data else ("image", "images")
    mask_words = data.mask_words if data else WORDS
    words = (*image_words, *mask_words, *PREDICTION_WORDS)
    try:
        rule = None if patient == ONE else data.patient if data and patient is None else patient
        rules = Rules(rule, None, Roles((), words))
    except (re.error, ValueError) as error:
        raise ValueError(
            f"--patient {patient}: {error}. Write it as '(?P<patient>[^/]+)'."
        ) from error
    return Settings(
        classes, truth_labels, others, spacing_mm, tolerance_mm, rules, words, mask_words,
        params.evaluate.seed if params else SEED,
        params.evaluate.bootstrap_resamples if params else RESAMPLES,
        one_patient=patient == ONE,
    )  # fmt: skip


# --- The command ----------------------------------------------------------------------------------


def main(
    truth: Annotated[
        Path, typer.Argument(metavar="TRUTH", help="a mask, or a folder of masks, nested or not")
    ],
    prediction: Annotated[
        Path, typer.Argument(metavar="PREDICTION", help="the masks of the method, named alike")
    ],
    labels: Annotated[
        str | None,
        typer.Option(
            help="value in a mask = class, such as 0=background,1=lesion; the first is the "
            "background. Default: data.labels of params.yaml"
        ),
    ] = None,
    prediction_labels: Annotated[
        str | None, typer.Option(help="likewise, where the method uses other values than the truth")
    ] = None,
    spacing_mm: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="height and width of a pixel of pictures; volumes know theirs. Default: "
            "data.pictures of params.yaml"
        ),
    ] = None,
    tolerance_mm: Annotated[
        float | None,
        typer.Option(
            help=f"of the NSD. Default: evaluate.tolerance_mm of params.yaml, else {TOLERANCE_MM:g}"
        ),
    ] = None,
    patient: Annotated[
        str | None,
        typer.Option(
            help="who the patient is: a regular expression on the path in TRUTH, "
            "'(?P<patient>…)'; or `one`, if all masks are of one patient. Default: data.patient of "
            "params.yaml, else the folder"
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="of the method: scores its masks of the test patients, with data as TRUTH, and "
            "adds them to the comparison (external/NAME)"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="the folder for the tables")] = Path("scores"),
    missing_is_empty: Annotated[
        bool,
        typer.Option(
            "--missing-is-empty", help="a truth without a prediction was predicted as background"
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace the tables in the folder")
    ] = False,
) -> None:
    """Scores the masks of any method by the rules that the networks are scored by.

    PNG, TIFF, JPEG, BMP, NIfTI, NRRD, MHA or DICOM SEG, matched by their names. Writes slices.csv,
    patients.csv and summary.json: with file names, so they are as private as the masks.

    Example: python -m src.score data/masks /path/to/nnunet_masks --name nnunet
    """
    root = Path.cwd()
    params = load_params(root / "params.yaml") if (root / "params.yaml").exists() else None
    settings = settings_of(
        params, labels=labels, prediction_labels=prediction_labels, spacing_mm=spacing_mm,
        tolerance_mm=tolerance_mm, patient=patient,
    )  # fmt: skip
    _refuse_to_lose(out, overwrite)
    compared_on = _compared_on(root, name, params, settings)
    pairing = pair(
        truth, prediction, settings, compared_on=compared_on, missing_is_empty=missing_is_empty
    )
    _say(pairing)
    with terminal.progress("scoring", len(pairing.pairs)) as tick:
        cases, measures = measured(pairing, settings, compared_on=compared_on, tick=tick)
    if compared_on is not None:
        # In the order of the case table, as the networks' are.
        order = cases.set_index("case_id").index.get_indexer(compared_on.cases["case_id"])
        cases, measures = cases.iloc[order], [measures[place] for place in order]
    scores = scores_of(
        count_table(cases, measures, settings.classes),
        settings.classes,
        seed=settings.seed,
        resamples=settings.resamples,
    )
    about = {"tolerance_mm": settings.tolerance_mm, "missing_taken_as_empty": pairing.num_missing}
    files = cases["case_id"].tolist() if compared_on is not None else None
    write(out, scores, {"truth": str(truth), "prediction": str(prediction), **about}, files)
    if name is not None and params is not None:
        write_external(root, params, name, scores, about)
    report(scores, name or prediction.name, settings)
    added = f"; `dvc repro compare` reads external/{name}" if name else ""
    terminal.console.print(f"Look at {out / FILES[1]} and {out / FILES[0]}{added}")


def _compared_on(
    root: Path, name: str | None, params: Params | None, settings: Settings
) -> Comparison | None:
    """The test patients, where the result joins the comparison."""
    if name is None:
        return None
    check_name(name)
    if params is None:
        raise ValueError(
            f"--name {name}: there is no params.yaml here. Run this in the folder of the "
            "repository."
        )
    for what, found, expected in (
        ("classes", settings.classes, params.data.classes),
        ("--labels", settings.truth_labels, params.data.labels),
        ("--tolerance-mm", settings.tolerance_mm, params.evaluate.tolerance_mm),
    ):
        if found != expected:
            raise ValueError(
                f"--name {name}: found {what} {found}, expected {expected} as the networks have "
                "it. Leave the option out, or change params.yaml."
            )
    return read_comparison(root)


def _refuse_to_lose(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: this is a file. Name a folder.")
    held = {path.name for path in out.iterdir()} - {NOT_FOR_GIT} if out.is_dir() else set()
    if held - set(FILES) or (held and not overwrite):
        remedy = "Name another one" + ("" if held - set(FILES) else ", or add --overwrite")
        raise ValueError(f"--out {out}: the folder is not empty. {remedy}.")


def _say(pairing: Pairing) -> None:
    """What was left out, and what is doubtful."""
    for line in in_lines(pairing.findings):
        terminal.warn(line)
    for folder in (pairing.truths, pairing.predictions):
        if folder.images:
            terminal.console.print(
                f"{count_of(len(folder.images), 'file')} in {folder.root} left out as images or "
                f"maps beside masks, such as {folder.images[0].path}"
            )
    if pairing.left_out:
        terminal.console.print(
            f"{count_of(pairing.left_out, 'prediction')} of patients who are not tested left out"
        )
    if pairing.num_missing:
        terminal.warn(
            f"{count_of(pairing.num_missing, 'truth')} without a prediction: taken as predicted "
            "empty (--missing-is-empty)"
        )


def write(
    out: Path, scores: SubsetScores, about: Mapping[str, Any], files: Sequence[str] | None = None
) -> None:
    """Writes the tables, all of them or none.

    Args:
        out: The folder.
        scores: All.
        about: What else is said in summary.json.
        files: Names of the cases, where they stand under pseudonyms.
    """
    slices, patients = (
        table.rename(columns={"patient_pseudonym": "patient"})
        for table in (scores.slices, scores.patients)
    )
    if files is not None:
        slices.insert(0, "file", files)
    content = {
        **about,
        "num_patients": len(patients),
        "num_slices": len(slices),
        "scores": scores.summary.to_dict(),
    }
    with whole_folder(out) as aside:
        for file, table in zip(FILES, (slices, patients), strict=False):
            kept = table if table["source"].any() else table.drop(columns="source")
            kept.to_csv(aside / file, index=False, lineterminator="\n")
        text = json.dumps(content, indent=2) + "\n"
        (aside / FILES[2]).write_text(text, encoding="utf-8")
        keep_from_git(aside, Path.cwd())


def report(scores: SubsetScores, title: str, settings: Settings) -> None:
    """Prints the means, and how far they can be trusted."""
    side = scores.summary.to_dict()
    patients = len(scores.patients)
    head = f"{title}: {count_of(patients, 'patient')}, {count_of(len(scores.slices), 'slice')}"
    for quantities in (("dice", "iou"), ("hd95_mm", "assd_mm", "nsd")):
        terminal.console.print(side_table(side, head, quantities))
        terminal.console.print()
    for note in one_empty_notes(side):
        terminal.console.print(note)
    means = "means over n patients with their 95 % intervals" if patients > 1 else "one patient"
    terminal.console.print(
        f"{means}. Dice and IoU: pixels of a patient's "
        "slices counted together. HD95, ASSD, NSD: of each slice in 2-D, then the mean of a "
        f"patient's slices; NSD within {settings.tolerance_mm:g} mm"
    )
    if patients == 1:
        terminal.warn("1 patient only: no interval can be given, and another may score otherwise")
    elif patients < FEW:
        terminal.warn(
            f"{count_of(patients, 'patient')} only: fewer than {FEW}, so the intervals are rather "
            "too narrow"
        )


if __name__ == "__main__":
    terminal.run(main)
