"""Masks of truth and prediction, from two folders -> what is measured of each slice.

Everything that does not match or fit is told at once, and then nothing is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src import terminal
from src.data.findings import Finding, count_of, some_of
from src.data.hashes import mask_hash
from src.data.mask_pairs import MaskFolder, ReadPair, find_masks, read_pair
from src.data.matching import match_masks
from src.data.patients import Rules
from src.data.scans import ScanFile, split_suffix, unreadable
from src.external import Comparison
from src.scored_labels import Labels, UnknownValuesError, findings_of, indices
from src.scoring import Measures, measure

if TYPE_CHECKING:
    import pandas as pd

# In the names of predictions alone: what another program calls its output is no choice of a user.
PREDICTION_WORDS = ("prediction", "predictions", "predicted", "pred", "preds")

_SHOWN = 10  # problems of a message, and files of a problem


@dataclass(frozen=True)
class Settings:
    """How masks are read and scored.

    Attributes:
        classes: Class names, background first.
        truth_labels: Label value or "#rrggbb" -> class name, in the files of the truth.
        prediction_labels: Likewise, in those of the prediction.
        spacing_mm: (y, x) of pictures; None where it is not known.
        tolerance_mm: Of the NSD.
        rules: Who the patient is.
        words: Words in names that say nothing about which case it is.
        mask_words: Words in names that make a file a mask.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.
        one_patient: Whether all masks are of one patient, whatever `rules` says.
    """

    classes: tuple[str, ...]
    truth_labels: Labels
    prediction_labels: Labels
    spacing_mm: tuple[float, float] | None
    tolerance_mm: float
    rules: Rules
    words: tuple[str, ...]
    mask_words: tuple[str, ...]
    seed: int
    resamples: int
    one_patient: bool = False


@dataclass(frozen=True)
class Pairing:
    """What is scored.

    Attributes:
        truths: Masks of the truth.
        predictions: Masks of the method.
        pairs: A truth and its prediction, None where a missing one counts as empty.
        left_out: Truths and predictions of patients that are not tested.
        findings: Warnings.
    """

    truths: MaskFolder
    predictions: MaskFolder
    pairs: list[tuple[ScanFile, ScanFile | None]]
    left_out: int
    findings: list[Finding]

    @property
    def num_missing(self) -> int:
        """How many truths have no prediction."""
        return sum(prediction is None for _, prediction in self.pairs)


def pair(
    truth: Path,
    prediction: Path,
    settings: Settings,
    *,
    compared_on: Comparison | None = None,
    missing_is_empty: bool = False,
) -> Pairing:
    """Finds the masks of both and matches them.

    Args:
        truth: A file or a folder.
        prediction: Likewise; two files are a pair, whatever their names.
        settings: The words in names.
        compared_on: The test patients, if all others are to be left out.
        missing_is_empty: Whether a truth without a prediction was predicted as background.

    Raises:
        OSError: Nothing is there.
        ValueError: With everything that does not match.
    """
    if truth.exists() and prediction.exists() and truth.is_dir() != prediction.is_dir():
        file, folder = (truth, prediction) if prediction.is_dir() else (prediction, truth)
        raise ValueError(
            f"{file} is a file and {folder} a folder, expected two of a kind. Name two files, or "
            "the folders that hold the masks."
        )
    truths, predictions = (
        find_masks(source, settings.mask_words, image_words=settings.words)
        for source in (truth, prediction)
    )
    findings = truths.findings + predictions.findings
    pairs: list[tuple[ScanFile, ScanFile | None]] = []
    alone: list[ScanFile] = []
    strangers: list[ScanFile] = []
    if truth.is_file() and prediction.is_file():
        pairs.append((truths.masks[0], predictions.masks[0]))
    else:
        matched, alone, strangers, problems = match_masks(
            truths.masks, predictions.masks, words=settings.words
        )
        pairs += matched
        findings += problems
    left_out = 0
    if compared_on is not None:
        wanted = [one for one in pairs if not compared_on.rows(truths.root, one[0]).empty]
        alone = [scan for scan in alone if not compared_on.rows(truths.root, scan).empty]
        left_out = len(pairs) - len(wanted)
        pairs = wanted
    findings += [
        Finding(
            "stray-prediction", "error", (predictions.name_of(scan),),
            "a prediction without a truth", f"a mask of this name in {truth}",
            f"Mend its name, or move it out of {prediction}.",
        )
        for scan in strangers
    ]  # fmt: skip
    if missing_is_empty:
        pairs = sorted([*pairs, *((scan, None) for scan in alone)], key=lambda one: one[0].path)
    elif compared_on is None:
        findings += [
            Finding(
                "missing-prediction", "error", (truths.name_of(scan),),
                "a truth without a prediction", f"a mask of this name in {prediction}",
                f"Add it. {_EMPTY}",
            )
            for scan in alone
        ]  # fmt: skip
    refuse(findings)
    if compared_on is not None:
        rows = [compared_on.rows(truths.root, scan) for scan, _ in pairs]
        compared_on.check_complete([case for part in rows for case in part["case_id"]], _EMPTY)
    return Pairing(truths, predictions, pairs, left_out, findings)


_EMPTY = "Where the method writes no file for an empty mask, use --missing-is-empty."


def refuse(findings: Sequence[Finding]) -> None:
    """Raises where there are errors, with all of them in one message."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        lines = "\n".join(f"  {line}" for line in in_lines(errors))
        raise ValueError(f"{count_of(len(errors), 'problem')}, nothing was scored:\n{lines}")


def in_lines(findings: Sequence[Finding]) -> list[str]:
    """Findings for a message, those that differ in their files alone in one line."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for finding in findings:
        key = (finding.found, finding.expected, finding.remedy)
        named = alike.setdefault(key, [])
        if 0 < len(finding.paths) <= 2:  # of more, `found` names some
            named.append(" and ".join(finding.paths))
    lines = []
    for (found, expected, remedy), paths in list(alike.items())[:_SHOWN]:
        where = f"{some_of(paths, _SHOWN)}: " if paths else ""
        lines.append(f"{where}found {found}, expected {expected}. {remedy}")
    if len(alike) > _SHOWN:
        lines.append(f"… and {len(alike) - _SHOWN} other problems")
    return lines


def measured(
    pairing: Pairing,
    settings: Settings,
    *,
    compared_on: Comparison | None = None,
    tick: Callable[[], None] = lambda: None,
) -> tuple[pd.DataFrame, list[Measures]]:
    """Reads and measures every pair.

    Args:
        pairing: What is scored.
        settings: How.
        compared_on: Where patients, spacing and pseudonyms are taken from; None: from paths and
            files.
        tick: Called after every pair.

    Returns:
        A row per slice, as `count_table` wants it, with case_id; and its measures.

    Raises:
        ValueError: With every file that is damaged, does not fit, or holds unknown values.
    """
    import pandas as pd

    findings: list[Finding] = []
    unknown: list[UnknownValuesError] = []
    rows: list[dict[str, Any]] = []
    measures: list[Measures] = []
    for truth, prediction in pairing.pairs:
        try:
            of_pair = _measured_pair(pairing, truth, prediction, settings, compared_on)
            rows += of_pair[0]
            measures += of_pair[1]
            findings += of_pair[2]
        except UnknownValuesError as error:
            unknown.append(error)
        except (ValueError, OSError) as error:
            findings.append(_as_finding(pairing.truths.name_of(truth), error))
        tick()
    labels = {"--labels": settings.truth_labels, "--prediction-labels": settings.prediction_labels}
    findings += findings_of(unknown, labels, settings.classes)
    refuse(findings)
    for line in in_lines(findings):
        terminal.warn(line)
    return pd.DataFrame(rows), measures


def _as_finding(truth: str, error: ValueError | OSError) -> Finding:
    text = terminal.explain(error)
    named = text.partition(": found ")[0] if ": found " in text else truth
    return unreadable(named, ValueError(text))


def _measured_pair(
    pairing: Pairing,
    truth: ScanFile,
    prediction: ScanFile | None,
    settings: Settings,
    compared_on: Comparison | None,
) -> tuple[list[dict[str, Any]], list[Measures], list[Finding]]:
    cases = None if compared_on is None else compared_on.rows(pairing.truths.root, truth)
    image = None
    if compared_on is not None and cases is not None:
        files = tuple(cases["image_path"])
        image = (compared_on.data, ScanFile(files[0], files, "dicom"))
    read = read_pair(pairing.truths, truth, pairing.predictions, prediction, image=image)
    if read.prediction is None and prediction is not None:
        return [], [], read.findings
    classes = settings.classes
    truth_name = pairing.truths.name_of(truth)
    actual = indices(read.truth, truth_name, settings.truth_labels, classes, "--labels")
    predicted = np.zeros_like(actual)
    if read.prediction is not None and prediction is not None:
        predicted = indices(
            read.prediction, pairing.predictions.name_of(prediction), settings.prediction_labels,
            classes, "--prediction-labels",
        )  # fmt: skip
    if cases is not None:
        rows = _known(cases, truth_name, read.truth)
    else:
        rows = _told(pairing, truth, len(actual), read, settings)
    if prediction is not None:
        name = pairing.predictions.name_of(prediction)
        _check_spacing(name, read, rows[0]["spacing_mm"])
    measures = [
        measure(
            one, other, len(classes),
            spacing_mm=row["spacing_mm"], tolerance_mm=settings.tolerance_mm,
        )
        for row, one, other in zip(rows, actual, predicted, strict=True)
    ]  # fmt: skip
    return rows, measures, read.findings


def _known(cases: pd.DataFrame, name: str, values: NDArray[np.int32]) -> list[dict[str, Any]]:
    """The slices of a truth that stands in the case table."""
    rows = list(cases.itertuples())
    if len(rows) != len(values) or any(
        row.sha256_mask != mask_hash(slice) for row, slice in zip(rows, values, strict=True)
    ):
        raise ValueError(
            f"{name}: found another mask than prepared/cases.csv was made of, expected the "
            "same. Run `dvc repro split`."
        )
    return [
        {
            "case_id": row.case_id,
            "case_pseudonym": row.case_pseudonym,
            "pseudonym": row.pseudonym,
            "source": row.source,
            "spacing_mm": (row.spacing_y_mm, row.spacing_x_mm),
        }
        for row in rows
    ]


def _check_spacing(prediction: str, read: ReadPair, spacing_mm: tuple[float, float]) -> None:
    """Refuses a volume beside a picture whose pixels are said to be of another size.

    A volume of 1 x 1 mm was likely written without its spacing.
    """
    found = read.prediction_spacing_mm
    if found is None or found == (1.0, 1.0) or np.allclose(found, spacing_mm, rtol=1e-3):
        return
    raise ValueError(
        f"{prediction}: found pixels of {found[0]:.4g} x {found[1]:.4g} mm, expected "
        f"{spacing_mm[0]:.4g} x {spacing_mm[1]:.4g} mm as the truth has. Pictures are of the size "
        "that --spacing-mm says, or data.pictures of params.yaml."
    )


def _told(
    pairing: Pairing,
    truth: ScanFile,
    depth: int,
    read: ReadPair,
    settings: Settings,
) -> list[dict[str, Any]]:
    """The slices of a truth by its path."""
    name = pairing.truths.name_of(truth)
    patient = (
        pairing.truths.root.resolve().name
        if settings.one_patient
        else settings.rules.patient_of(truth)
    )
    if isinstance(patient, Finding) and len(pairing.pairs) == 1 and settings.rules.patient is None:
        patient = split_suffix(truth.path)[0]
    if isinstance(patient, Finding):
        rule = settings.rules.patient
        if rule is None:
            expected = patient.expected
            remedy = (
                "Say who the patient is with --patient: `one` if all masks are of one patient, or "
                "a regular expression on the path such as '(?P<patient>[^/_]+)_[0-9]+[.]png$'."
            )
        else:
            expected = f"--patient or data.patient: {rule}"
            remedy = f"Mend it so that it fits the path {truth.files[0]}, as it is below TRUTH."
        raise ValueError(f"{name}: found {patient.found}, expected {expected}. {remedy}")
    spacing_mm = read.spacing_mm or settings.spacing_mm or read.prediction_spacing_mm
    if spacing_mm is None:
        raise ValueError(
            f"{name}: found a picture, which does not say the size of its pixels, expected "
            "it from you. Give --spacing-mm Y X."
        )
    by_file = len(truth.files) == depth
    names = truth.files if by_file else [f"{truth.path}#{place:03d}" for place in range(depth)]
    return [
        {"case_id": name, "case_pseudonym": name, "pseudonym": patient, "source": "",
         "spacing_mm": spacing_mm}
        for name in names
    ]  # fmt: skip
