"""A small but complete reports/ folder, as the stages write it; numbers are invented."""

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

MODELS = ("unet", "unetpp", "attention_unet")
CHAMPION = "unetpp"
CLASSES = ("background", "organ", "lesion")
PATIENTS = ("P-12aa8de4", "P-2ebe22dc", "P-315e74b7", "P-84dc6cf1", "P-95da3264", "P-f1bb07f3")
TAGS: tuple[list[str], ...] = (
    ["missed"],
    ["tiny", "at border"],
    [],
    ["over-segmented"],
    ["tiny"],
    [],
)
MEAN = "mean_foreground"


def write_reports(
    reports: Path, *, absent: str = "", false_positive: bool = False, folds: int = 1
) -> Path:
    """Writes the folder.

    Args:
        reports: Where.
        absent: A class without truth in the test split.
        false_positive: Whether it is predicted in one test patient all the same.
        folds: How many; every one tests six patients of its own.

    Returns:
        `reports`.
    """
    write(reports / "audit.json", audit())
    names = [f"fold{fold}" for fold in range(folds)]
    write(reports / "split.json", {name: split(absent) for name in names})
    write(reports / "comparison.json", comparison())
    test = summary(0.9, absent=absent, false_positive=false_positive)
    means = {
        quantity: {
            label: {"mean": test[quantity][label], "low": test[f"{quantity}_low"][label],
                    "high": test[f"{quantity}_high"][label]}
            for label in (*CLASSES[1:], MEAN)
        }
        for quantity in ("dice", "iou")
    }  # fmt: skip
    content = {name: {"validation": means, "test": means} for name in MODELS}
    write(reports / "metrics.json", {"champion": CHAMPION, **content})
    for fold in range(folds):
        for index, name in enumerate(MODELS):
            folder = reports / "evaluation" / name / f"fold{fold}"
            write_model(folder, name, fold, 0.9 - 0.03 * index, absent, false_positive)
            for curve in ("loss", "mean_iou"):
                rows = [{"epoch": e, "train": 1 / e, "validation": 1.1 / e} for e in (1, 2, 3)]
                write_rows(reports / "curves" / name / f"fold{fold}" / f"{curve}.csv", rows)
    return reports


def write_model(
    folder: Path, name: str, fold: int, dice: float, absent: str, false_positive: bool
) -> None:
    """Writes what `evaluate` leaves of a model of one fold."""
    write(
        folder / "scores.json",
        {
            "trained": trained(name, fold),
            "validation": summary(dice),
            "test": summary(dice, absent=absent, false_positive=false_positive),
            "seconds_per_slice": 0.0417,
        },
    )
    rows = []
    for index, patient in enumerate(PATIENTS):
        row: dict[str, Any] = {"patient_pseudonym": patient, "source": f"scanner_{'ab'[index % 2]}"}
        row |= {"slices": 8, "uncertainty": 0.05 * index, "dice_background": 0.99}
        for label in CLASSES[1:]:
            shown = "" if label == absent else round(dice - 0.01 * index, 4)
            row |= {f"dice_{label}": shown, f"hd95_mm_{label}": 3 + index, f"nsd_{label}": 0.8}
            row[f"tags_{label}"] = "missed in 3; tiny in 1" if index == 0 else ""
        rows.append(row)
    write_rows(folder / "test_patients.csv", rows)
    write(folder / "calibration.json", calibration())
    write(folder / "uncertainty.json", uncertainty())
    write(folder / "dice_by_size.json", dice_by_size())
    cases = gallery(dice)
    for index, case in enumerate(cases):
        write_picture(folder / case["file"], shade=40 * index)
    write(folder / "gallery.json", cases)


def gallery(dice: float) -> list[dict[str, Any]]:
    """Six cases, worst first; the HD95 of the first is unknown, its Dice 0."""
    return [
        {
            "file": f"gallery/{patient}_00{index}.png",
            "case": f"{patient}/00{index}",
            "patient": patient,
            "source": f"scanner_{'ab'[index % 2]}",
            "class": "lesion",
            "dice": round(dice * index / 5, 4),
            "hd95_mm": None if index == 0 else 20.0 - index,
            "uncertainty": (0.3, 0.1, 0.6, 0.2, 0.5, 0.4)[index],
            "truth_mm2": 100.0 + 50 * index,
            "predicted_mm2": 90.0,
            "tags": TAGS[index],
        }
        for index, patient in enumerate(PATIENTS)
    ]


def summary(dice: float, *, absent: str = "", false_positive: bool = False) -> dict[str, Any]:
    """One side of scores.json."""
    labels = (*CLASSES, MEAN)
    groups: dict[str, Any] = {}
    for quantity, value in (("dice", dice), ("iou", dice - 0.1), ("precision", dice),
                            ("recall", dice), ("hd95_mm", 6.5), ("assd_mm", 1.2),
                            ("nsd", 0.85)):  # fmt: skip
        ends = {"": 0.0, "_low": -0.05, "_high": 0.05}
        if quantity in ("dice", "iou"):
            ends |= {"_slice_mean": -0.02, "_pooled": 0.01}
        for end, shift in ends.items():
            groups[quantity + end] = dict.fromkeys(labels, value + shift)
            if absent:
                groups[quantity + end][absent] = 0.0 if false_positive else None
    groups["num_scored"] = dict.fromkeys(labels, 6)
    groups["num_unscored"] = dict.fromkeys(labels, 0)
    groups["num_false_positive_patients"] = dict.fromkeys(labels, 0)
    groups["num_one_empty_cases"] = {"background": 0, "organ": 0, "lesion": 3, MEAN: 3}
    if absent:
        groups["num_scored"][absent] = int(false_positive)
        groups["num_unscored"][absent] = 6 - int(false_positive)
        groups["num_false_positive_patients"][absent] = int(false_positive)
    return groups


def trained(name: str, fold: int) -> dict[str, Any]:
    """run.json of a model."""
    return {
        "run_id": f"{name}-run-{fold}",
        "description": "**a model**",
        "architecture": name,
        "fold": fold,
        "recipe": "8a9285",
        "parameters": 2_263_459,
        "precision": "float32",
        "machine": "2 cores, A CPU",
        "epochs": 24,
        "best_epoch": 23,
        "seconds": 234.2,
        "peak_memory_mb": 812,
        "data_hash": "4de545467f7bea1088538dc06976114f.dir",
        "split_hash": "b00d44863e223adbae394a8f0a7d25ef",
        "git_commit": "b788e9a8dfc63197cdd296599664e58c54e92a80",
        "git_dirty": "false",
    }


def audit() -> dict[str, Any]:
    """audit.json, with one finding."""
    return {
        "errors": 0,
        "warnings": 2,
        "findings": [
            {"kind": "single-slice", "severity": "warning", "meaning": "a patient with one slice",
             "count": 2, "cases": []}
        ],
        "patients": 30,
        "slices": 249,
        "groups": 30,
        "slices_per_patient": {"least": 6, "median": 8.0, "most": 10},
        "share_of_pixels": {"background": 0.92, "organ": 0.07, "lesion": 0.01},
        "slices_with": {"background": 249, "organ": 249, "lesion": 181},
        "patients_with": {"background": 30, "organ": 30, "lesion": 30},
        "patients_by_source": {"scanner_a": 15, "scanner_b": 15},
        "sizes": [{"height": 128, "width": 128, "slices": 249}],
        "spacings_mm": [
            {"spacing_y_mm": 2.5, "spacing_x_mm": 2.5, "thickness_mm": 5.0, "slices": 249}
        ],
        "stored_types": {"uint16": 249},
        "intensity_hu": {"least": -1020.0, "percentile_1": -1006.0, "percentile_50": -968.0,
                         "percentile_99": 306.0, "greatest": 486.0},
    }  # fmt: skip


def split(absent: str) -> dict[str, Any]:
    """A fold of split.json."""

    def side(patients: int, missing: str = "") -> dict[str, Any]:
        return {
            "patients": patients,
            "slices": 8 * patients,
            "slices_with": {label: 0 if label == missing else 40 for label in CLASSES[1:]},
            "share_of_pixels": {"background": 0.92, "organ": 0.07, "lesion": 0.01},
            "patients_by_source": {"scanner_a": patients // 2, "scanner_b": patients // 2},
            "pseudonyms": [],
        }

    return {"train": side(18), "validation": side(6), "test": side(6, absent)}


def comparison() -> dict[str, Any]:
    """comparison.json, with an external model."""
    models = [
        {"name": name, "validation_dice": value, "test_dice": value, "test_low": value - 0.02,
         "test_high": value + 0.02, "parameters": 2_000_000, "seconds_training": 174.0,
         "seconds_per_slice": 0.04, "peak_memory_mb": 812.5, "external": False}
        for name, value in zip(MODELS, (0.91, 0.93, 0.90), strict=True)
    ]  # fmt: skip
    models.append(
        {"name": "nnunet", "validation_dice": None, "test_dice": 0.94, "test_low": 0.92,
         "test_high": 0.96, "parameters": None, "seconds_training": None,
         "seconds_per_slice": None, "peak_memory_mb": None, "external": True}
    )  # fmt: skip
    pairs = [
        {"first": "unetpp", "second": other, "class": label, "difference": 0.02, "low": -0.01,
         "high": 0.05, "p": 0.0312, "p_holm": 0.0625, "pairs": 6, "dropped": 0, "note": None}
        for other in ("unet", "attention_unet", "nnunet")
        for label in ("lesion", MEAN)
    ]  # fmt: skip
    return {
        "champion": CHAMPION,
        "rule": "patient-mean foreground Dice on validation",
        "few_test_patients": 6,
        "models": models,
        "pairs": pairs,
    }


def calibration() -> dict[str, Any]:
    """calibration.json: a network that is too sure, mended by the temperature."""

    def reliability(error: float) -> dict[str, Any]:
        bins = [
            {"low": i / 10, "high": (i + 1) / 10, "count": 10 ** min(i, 5),
             "confidence": i / 10 + 0.05, "accuracy": max(0.0, i / 10 + 0.05 - error)}
            for i in range(3, 10)
        ]  # fmt: skip
        empty = {"low": 0.0, "high": 0.1, "count": 0, "confidence": None, "accuracy": None}
        return {"ece": error, "ace": error, "brier": 0.02, "nll": 0.05, "bins": [empty, *bins]}

    region = {"before": reliability(0.1), "after": reliability(0.02)}
    side = {"all_pixels": region, "boundary": region}
    return {"temperature": 1.42, "state": "fitted", "validation": side, "test": side}


def uncertainty() -> dict[str, Any]:
    """uncertainty.json without folds, which one split does not have."""
    return {
        "test": {
            name: {
                "seconds_per_slice": 0.04 * samples,
                "samples": samples,
                "spearman": 0.7,
                "pearson": None,
                "aurc": 0.08,
                "aurc_ideal": 0.05,
                "aurc_random": 0.15,
                "coverage": [0.25, 0.5, 0.75, 1.0],
                "risk": [0.02, 0.05, 0.08, 0.01 * samples],
                "cases": 38,
            }
            for name, samples in (("entropy", 1), ("dropout", 10), ("flips", 4))
        }
    }


def dice_by_size() -> dict[str, Any]:
    """dice_by_size.json."""
    strata = [
        {"name": name, "low_mm2": None, "high_mm2": None, "slices": slices, "patients": patients,
         "mean": mean, "low": None if patients < 2 else mean - 0.1,
         "high": None if patients < 2 else mean + 0.05}
        for name, slices, patients, mean in (
            ("6 to 80 mm²", 12, 5, 0.61), ("80 to 300 mm²", 13, 6, 0.9), ("scanner_a", 25, 1, 0.8),
        )
    ]  # fmt: skip
    return {"class": "lesion", "by_size": strata[:2], "by_source": strata[2:]}


def write(path: Path, content: Any) -> None:
    """Writes JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_picture(path: Path, *, shade: int) -> None:
    """Writes a PNG of three grey panels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((64, 192, 3), shade, np.uint8))
