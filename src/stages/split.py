"""Stage `split`: every patient on one side of each fold.

Writes prepared/split.csv and reports/split.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from src import terminal
from src.config import Split, load_params
from src.data.cases import read_cases
from src.data.findings import count_of
from src.data.splits import SUBSETS, fold_by_patient, split_by_patient
from src.files import whole_file, write_text

if TYPE_CHECKING:
    import pandas as pd

FEW_PATIENTS = 3  # fewer on a side, and one of them decides what the side says


def split(cases: pd.DataFrame, params: Split) -> pd.DataFrame:
    """The side of each patient in each fold that is run.

    Args:
        cases: The case table.
        params: The group `split` of params.yaml.

    Returns:
        A row per fold and patient: patient, fold, subset; fold 0 alone where there is one split.

    Raises:
        ValueError: No mask holds the class that the sides are to be alike in, or there are too few
            patients.
    """
    import pandas as pd

    if not cases[f"pixels_{params.stratify_class}"].any():
        raise ValueError(
            f"split.stratify_class: found no pixel of {params.stratify_class} in any mask, "
            "expected a class that there is. Mend data.labels in params.yaml (which value in a "
            "mask is which class), or name another class."
        )
    parts = [_sides(cases, params, fold).assign(fold=fold) for fold in sorted(params.fold)]
    return pd.concat(parts, ignore_index=True)[["patient", "fold", "subset"]]


def _sides(cases: pd.DataFrame, params: Split, fold: int) -> pd.DataFrame:
    if params.folds:
        return fold_by_patient(
            cases,
            stratify_class=params.stratify_class,
            seed=params.seed,
            folds=params.folds,
            fold=fold,
        )
    return split_by_patient(
        cases,
        stratify_class=params.stratify_class,
        seed=params.seed,
        validation=params.validation,
        test=params.test,
        test_patients=params.test_patients,
    )


def describe(cases: pd.DataFrame, sides: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, Any]:
    """What stands on each side of a fold: patients, slices, sources, share of each class."""
    table = cases.merge(sides, on="patient", validate="many_to_one")
    content: dict[str, Any] = {}
    for subset in SUBSETS:
        rows = table[table["subset"] == subset]
        area = int((rows["height"] * rows["width"]).sum())
        content[subset] = {
            "patients": int(rows["patient"].nunique()),
            "slices": len(rows),
            "slices_with": {name: int((rows[f"pixels_{name}"] > 0).sum()) for name in classes[1:]},
            "share_of_pixels": {
                name: round(int(rows[f"pixels_{name}"].sum()) / max(area, 1), 6) for name in classes
            },
            "patients_by_source": {
                str(source): int(part["patient"].nunique())
                for source, part in rows.groupby("source")
            },
            "pseudonyms": sorted(rows["pseudonym"].unique().tolist()),
        }
    return content


def warn_of_names(cases: pd.DataFrame, test_patients: tuple[str, ...]) -> None:
    """Tells of test patients that stand in params.yaml by name, and what to write there.

    Args:
        cases: The case table: columns patient and pseudonym.
        test_patients: As in params.yaml.
    """
    pseudonyms = dict(zip(cases["patient"], cases["pseudonym"], strict=True))
    if any(name in pseudonyms for name in test_patients):
        known = {*pseudonyms, *pseudonyms.values()}
        same = ", which is the same test side" if known.issuperset(test_patients) else ""
        written = ", ".join(pseudonyms.get(name, name) for name in test_patients)
        terminal.warn(
            "split.test_patients: found names of patients, expected pseudonyms. Names stand in "
            "params.yaml, and in dvc.lock after `dvc repro`: commit neither, or write "
            f"`test_patients: [{written}]`{same}."
        )


def warn_of_few(by_side: dict[str, Any], *, fixed: bool) -> None:
    """Tells of sides of a single split whose figures hang on one or two patients.

    Args:
        by_side: Of `describe`, of one fold.
        fixed: Whether the test patients are given, which leaves no folds.
    """
    uses = {"validation": "chooses the epoch and the network", "test": "gives the scores"}
    for subset, use in uses.items():
        number = by_side[subset]["patients"]
        if number < FEW_PATIENTS:
            folds = (
                ", or set split.folds: 5 in params.yaml and split.fold: [0, 1, 2, 3, 4], so that "
                "each is tested once"
            )
            terminal.warn(
                f"the side {subset}, which {use}, has {count_of(number, 'patient')}: other "
                f"patients could say otherwise. Bring in more patients{'' if fixed else folds}."
            )


def main() -> None:
    """Puts every patient on one side (train, validation, test), alike in burden and source.

    Example: python -m src.stages.split
    """
    params = load_params(Path("params.yaml"))
    cases = read_cases(Path("prepared/cases.csv"))
    sides = split(cases, params.split)
    content = {
        f"fold{fold}": describe(cases, part.drop(columns="fold"), params.data.classes)
        for fold, part in sides.groupby("fold")
    }
    with whole_file(Path("prepared/split.csv")) as aside:
        sides.to_csv(aside, index=False)
    write_text(Path("reports/split.json"), json.dumps(content, indent=2) + "\n")

    several, foreground = len(content) > 1, params.data.classes[1:]
    table = Table("side", "patients", "slices", *(f"slices with {c}" for c in foreground))
    for fold, by_side in content.items():
        for subset, side in by_side.items():
            name = f"{fold} {subset}" if several else subset
            with_class = [str(side["slices_with"][c]) for c in foreground]
            table.add_row(name, str(side["patients"]), str(side["slices"]), *with_class)
            for empty in (c for c in foreground if side["slices_with"][c] == 0):
                held = any(other["slices_with"][empty] for other in by_side.values())
                terminal.warn(
                    f"no slice of the side {name} holds {empty}: its scores will be empty. "
                    + ("Try another split.seed." if held else "No mask at all holds it.")
                )
    terminal.console.print(table)
    warn_of_names(cases, params.split.test_patients)
    if not params.split.folds:
        warn_of_few(content["fold0"], fixed=bool(params.split.test_patients))


if __name__ == "__main__":
    terminal.run(main)
