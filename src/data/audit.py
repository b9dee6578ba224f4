"""What is wrong with the data as a whole, and the report that may be shown.

`build_cases` finds what shows in one file or pair; here is what shows only in the whole table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from src.data.duplicates import (
    NearDuplicate,
    duplicate_groups,
    near_duplicates,
    shared_pictures,
)
from src.data.findings import MEANINGS, Finding, count_of, findings_list, grouped
from src.data.pictures import SUFFIXES, PictureScale

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Finding",
    "audit_cases",
    "duplicate_groups",
    "findings_list",
    "near_duplicates",
    "public_names",
    "public_report",
]


def audit_cases(
    table: pd.DataFrame,
    *,
    classes: Sequence[str],
    pictures: PictureScale,
    window: tuple[float, float] | None = None,
    near: Sequence[NearDuplicate] = (),
) -> list[Finding]:
    """Checks the case table as a whole.

    Args:
        table: The case table; a column `group` is used where it is there.
        classes: Class names, background first.
        pictures: What the values of pictures mean.
        window: Low and high end of the window in HU, where it is known before training.
        near: What `near_duplicates` found.

    Returns:
        Every problem; empty for an empty table, whose problems `build_cases` has told.
    """
    if table.empty:
        return []
    finite = np.isfinite(table[["hu_min", "hu_max"]]).all(axis=1)
    return [
        *_not_finite(table[~finite]),
        *_images(table[finite], window),
        *_not_hu(table[finite], pictures),
        *_bit_depths(table),
        *_masks(table, classes),
        *_patients(table),
        *_copies(table, near),
    ]


def _not_finite(rows: pd.DataFrame) -> list[Finding]:
    return [
        Finding(
            "nan-image", "error", paths,
            f"{count_of(count, 'slice')} with values that are infinite or no numbers",
            "finite numbers in every pixel",
            "Export the image again, or fill these pixels with -1024 HU.",
        )
        for _, paths, count in _per_patient(rows)
    ]  # fmt: skip


def _images(table: pd.DataFrame, window: tuple[float, float] | None) -> list[Finding]:
    constant = table["hu_min"] == table["hu_max"]
    findings = [
        Finding(
            "constant-image", "warning", paths, f"{count_of(count, 'slice')} of one value",
            "slices that show something", "Leave such slices out if they are padding.",
        )
        for _, paths, count in _per_patient(table[constant])
    ]  # fmt: skip
    if window is not None:
        low, high = window
        blind = ~constant & ((table["hu_p99"] <= low) | (table["hu_p01"] >= high))
        findings += [
            Finding(
                "outside-window", "warning", paths,
                f"{count_of(count, 'slice')} outside of {low:g} to {high:g} HU",
                "values within the window",
                "A few slices of air are no harm. Where they are many, mend prepare.window, or "
                "data.pictures.intercept if these are pictures.",
            )
            for _, paths, count in _per_patient(table[blind])
        ]  # fmt: skip
    return findings


def _not_hu(table: pd.DataFrame, pictures: PictureScale) -> list[Finding]:
    """CT holds air (-1000 HU) or fat (-100) and also soft tissue (about 40) nearly everywhere."""
    findings: list[Finding] = []
    of_pictures = _is_picture(table)
    for chosen, remedy in (
        (
            of_pictures,
            f"HU = {pictures.slope:g} × stored value + {pictures.intercept:g} now: set "
            "data.pictures.intercept (often -1024) and data.pictures.slope in params.yaml.",
        ),
        (
            ~of_pictures,
            "The file may hold stored values: export it in HU, with slope and intercept applied.",
        ),
    ):
        rows = table.loc[chosen, ["patient", "image_path", "hu_min", "hu_max"]]
        ends = rows.groupby("patient").agg(low=("hu_min", "min"), high=("hu_max", "max"))
        odd = ends[(ends["low"] >= 0) | (ends["high"] <= 0)]
        for patient, paths, _ in _per_patient(rows[rows["patient"].isin(odd.index)]):
            low, high = ends.loc[patient]
            findings.append(
                Finding(
                    "not-hu", "warning", paths, f"values from {low:g} to {high:g}",
                    "HU of both air or fat (below 0) and soft tissue (above 0)", remedy,
                )
            )  # fmt: skip
    return findings


def _bit_depths(table: pd.DataFrame) -> list[Finding]:
    findings: list[Finding] = []
    of_pictures = _is_picture(table)
    types = sorted(set(table.loc[of_pictures, "stored_dtype"]))
    if len(types) > 1:  # one slope and intercept cannot be right for both
        findings.append(
            _mixed("error", table[of_pictures], types,
                   "Export all pictures alike: data.pictures holds one slope and intercept.")
        )  # fmt: skip
    types = sorted(set(table.loc[~of_pictures, "stored_dtype"]))
    if len(types) > 1 and {"uint8", "int8"} & set(types):
        findings.append(
            _mixed("warning", table[~of_pictures], types,
                   "8 bits cannot hold HU: export these again from the original.")
        )  # fmt: skip
    return findings


def _mixed(severity: Any, rows: pd.DataFrame, types: list[str], remedy: str) -> Finding:
    counts = {name: int((rows["stored_dtype"] == name).sum()) for name in types}
    rare = min(counts, key=lambda name: counts[name])
    paths = tuple(dict.fromkeys(rows.loc[rows["stored_dtype"] == rare, "image_path"]))
    found = ", ".join(f"{count_of(number, 'slice')} of {name}" for name, number in counts.items())
    return Finding("mixed-bit-depth", severity, paths, found, "one type of values", remedy)


def _masks(table: pd.DataFrame, classes: Sequence[str]) -> list[Finding]:
    foreground = [f"pixels_{name}" for name in classes[1:]]
    if not table[foreground].to_numpy().any():
        return [
            Finding(
                "all-masks-empty", "error", (), "no pixel of any class but background",
                f"pixels of {', '.join(classes[1:])}",
                "Look at data.labels in params.yaml: it says which value in a mask is which class.",
            )
        ]  # fmt: skip
    findings = [
        Finding(
            "class-unseen", "warning", (), f"no pixel of {name}", "some in several patients",
            f"Mend data.labels, or take {name} out of data.classes: it can be neither learnt nor "
            "scored.",
        )
        for name in classes[1:]
        if not table[f"pixels_{name}"].any()
    ]  # fmt: skip
    area = int((table["height"] * table["width"]).sum())
    findings += [
        Finding(
            "mostly-foreground", "warning", (),
            f"{name} in {table[f'pixels_{name}'].sum() / area:.0%} of all pixels",
            "a background larger than any class",
            "Look at data.labels in params.yaml: the values of two classes may be swapped there.",
        )
        for name in classes[1:]
        if table[f"pixels_{name}"].sum() > area / 2
    ]  # fmt: skip
    empty = table.groupby("patient")[foreground].sum().sum(axis=1) == 0
    rows = table[table["patient"].isin(empty[empty].index)]
    return findings + [
        Finding(
            "empty-masks", "warning", paths, f"{count_of(count, 'slice')}, all masks empty",
            "pixels of some class", "Right for a healthy patient; else add the missing masks.",
        )
        for _, paths, count in _per_patient(rows)
    ]  # fmt: skip


def _patients(table: pd.DataFrame) -> list[Finding]:
    findings = [
        Finding(
            "single-slice", "warning", paths, "one slice of the patient", "a stack of slices",
            "Add missing slices; if data.patient takes a slice for a patient, mend it.",
        )
        for _, paths, _ in _per_patient(table[~table["patient"].duplicated(keep=False)])
    ]  # fmt: skip
    patients = table["patient"].nunique()
    groups = table["group" if "group" in table else "patient"].nunique()
    if groups < 3:
        together = "" if groups == patients else f", who share slices and make {groups} groups"
        findings.append(
            Finding(
                "few-patients", "error", (), f"{count_of(patients, 'patient')}{together}",
                "at least 3: for training, validation and test",
                "Add patients, or mend data.patient if it takes several patients for one.",
            )
        )  # fmt: skip
    return findings


def _copies(table: pd.DataFrame, near: Sequence[NearDuplicate]) -> list[Finding]:
    findings: list[Finding] = []
    shared: dict[tuple[str, ...], list[str]] = {}
    for key, owners in shared_pictures(table).items():
        shared.setdefault(tuple(owners), []).append(key)
    for patients, keys in shared.items():
        rows = table[table["sha256_image"].isin(keys)]
        findings.append(
            Finding(
                "shared-picture", "error", tuple(dict.fromkeys(rows["image_path"])),
                f"{count_of(len(keys), 'slice')} that are the same for {', '.join(patients)}",
                "pictures of one patient each",
                "Take one of the copies out, or mend data.patient if they are one patient.",
            )
        )  # fmt: skip
    return findings + [
        Finding(
            "near-duplicate", "warning", pair.image_paths,
            f"{count_of(pair.slices, 'pair')} of slices almost alike under the patients "
            f"{' and '.join(pair.patients)} (correlation {pair.correlation:.4f})",
            "pictures of one patient each",
            "The split keeps these patients on one side, but in the scores each counts as a "
            "patient of its own, so that intervals are too narrow and p values too small. Take a "
            "copy out, or set data.patient so that they are one patient.",
        )
        for pair in near
        if not any(set(pair.patients) <= set(patients) for patients in shared)
    ]  # fmt: skip


def _is_picture(table: pd.DataFrame) -> pd.Series[bool]:
    return table["image_path"].str.lower().str.endswith(SUFFIXES)


def _per_patient(rows: pd.DataFrame) -> Iterable[tuple[str, tuple[str, ...], int]]:
    """Patient, image files (each once) and number of slices."""
    for patient, part in rows.groupby("patient", sort=True):
        yield str(patient), tuple(dict.fromkeys(part["image_path"])), len(part)


def public_names(table: pd.DataFrame) -> dict[str, str]:
    """Relative path -> pseudonym: of the slice, or of the patient where a path holds several.

    The folders of DICOM series are among the paths, as findings name them.
    """
    names: dict[str, str] = {}
    for column in ("image_path", "mask_path"):
        paths = table[column].to_list()
        held = Counter(paths)
        codes = zip(table["case_pseudonym"], table["pseudonym"], strict=True)
        names |= {
            path: case if held[path] == 1 else patient
            for path, (case, patient) in reversed([*zip(paths, codes, strict=True)])
        }
    folders: dict[str, set[str]] = {}
    for path, code in zip(table["image_path"], table["pseudonym"], strict=True):
        folders.setdefault(path.rpartition("/")[0] or ".", set()).add(code)
    return {
        **{folder: next(iter(codes)) for folder, codes in folders.items() if len(codes) == 1},
        **names,
    }


def public_report(
    table: pd.DataFrame, findings: Sequence[Finding], *, classes: Sequence[str]
) -> dict[str, Any]:
    """What reports/audit.json holds: counts and pseudonyms, no file name, patient or path.

    Args:
        table: The case table.
        findings: Of `build_cases` and `audit_cases`.
        classes: Class names.

    Returns:
        A dict that JSON can hold. The percentiles of intensity are medians over the slices.
    """
    names = public_names(table)
    problems = []
    for (severity, kind), members in grouped(findings).items():
        cases = {name for finding in members for name in finding.public(names)["cases"]}
        problems.append(
            {
                "kind": kind,
                "severity": severity,
                "meaning": MEANINGS[kind],
                "count": len(members),
                "cases": sorted(cases),
            }
        )
    severities = [finding.severity for finding in findings]
    content: dict[str, Any] = {
        "errors": severities.count("error"),
        "warnings": severities.count("warning"),
        "findings": problems,
        "patients": int(table["patient"].nunique()),
        "slices": len(table),
    }
    if table.empty:
        return content
    per_patient = table.groupby("patient").size()
    area = int((table["height"] * table["width"]).sum())
    held = {name: table[f"pixels_{name}"] for name in classes}
    sources = table.groupby("source")["patient"]
    return content | {
        "groups": int(table["group" if "group" in table else "patient"].nunique()),
        "slices_per_patient": {
            "least": int(per_patient.min()),
            "median": float(per_patient.median()),
            "most": int(per_patient.max()),
        },
        "share_of_pixels": {name: int(pixels.sum()) / area for name, pixels in held.items()},
        "slices_with": {name: int((pixels > 0).sum()) for name, pixels in held.items()},
        "patients_with": {
            name: int(table.loc[pixels > 0, "patient"].nunique()) for name, pixels in held.items()
        },
        "patients_by_source": {str(name): int(part.nunique()) for name, part in sources},
        "sizes": _counted(table, ["height", "width"]),
        "spacings_mm": _counted(table, ["spacing_y_mm", "spacing_x_mm", "thickness_mm"]),
        "stored_types": {str(k): int(v) for k, v in table["stored_dtype"].value_counts().items()},
        "intensity_hu": {
            "least": _number(table["hu_min"].min()),
            "percentile_1": _number(table["hu_p01"].median()),
            "percentile_50": _number(table["hu_p50"].median()),
            "percentile_99": _number(table["hu_p99"].median()),
            "greatest": _number(table["hu_max"].max()),
        },
    }


def _number(value: float) -> float | None:
    """None where no slice has a number, or one an infinite one: JSON knows neither."""
    return round(float(value), 1) if isfinite(value) else None


def _counted(table: pd.DataFrame, columns: list[str], most: int = 20) -> list[dict[str, Any]]:
    """The most frequent combinations of these columns, rounded, with their number of slices."""
    counts = table[columns].round(4).value_counts().head(most)
    return [
        {**dict(zip(columns, values, strict=True)), "slices": int(number)}
        for values, number in counts.items()
    ]
