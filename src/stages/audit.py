"""Stage `audit`: data/ -> the case table, and every problem of the data at once.

Writes prepared/findings.csv (private: with file names) and reports/audit.json (pseudonyms only),
and prepared/cases.csv unless there are errors.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ruamel.yaml import YAML

from src import terminal
from src.config import Params, load_params
from src.data.audit import (
    audit_cases,
    duplicate_groups,
    findings_list,
    near_duplicates,
    public_report,
)
from src.data.cases import build_cases, write_cases
from src.data.findings import Finding, count_of
from src.data.readers import PictureScale
from src.data.scans import linked_folders
from src.files import whole_file, write_text

if TYPE_CHECKING:
    import pandas as pd


FINDINGS = "prepared/findings.csv"
DEMO = "demo"  # the remote of the demo data: demo-remote/, which git keeps
# The version of the demo data. Not read from demo-remote/: there a private version stands as well
# once it was pushed by mistake.
DEMO_HASH = "4de545467f7bea1088538dc06976114f.dir"


def refuse_to_publish(path: Path) -> None:
    """Raises where `dvc push` would copy data of a user's own into the repository.

    DVC keeps the remote of the demo whenever it writes data.dvc again: `dvc add` and `dvc repro` do
    so after a change of data/.

    Args:
        path: data.dvc, which may be missing.

    Raises:
        ValueError: It names the remote of the demo beside other data.
    """
    if not path.is_file():
        return
    out = YAML(typ="safe").load(path)["outs"][0]
    if out.get("remote") == DEMO and out.get("md5") != DEMO_HASH:
        raise ValueError(
            f"{path.name}: found `remote: {DEMO}` beside data that are not the demo, expected no "
            "such line: `dvc push` would copy your images into demo-remote/. Run `python -m "
            "src.ingest data`, which takes it out, and push nothing before."
        )


def audit(data: Path, params: Params) -> tuple[pd.DataFrame, list[Finding]]:
    """Reads and checks everything under `data`.

    Args:
        data: The data folder.
        params: All parameters; `data`, `audit` and `prepare.window` are used.

    Returns:
        The case table with the column group, and all findings.

    Raises:
        FileNotFoundError: The folder is not there.
    """
    if not data.is_dir():
        raise FileNotFoundError(
            f"{data.name}: no such folder. Fetch the demo with `dvc pull data.dvc`, or bring in "
            "your own with `python -m src.ingest FOLDER`."
        )
    workers = os.cpu_count() or 1
    pictures = PictureScale(**params.data.pictures.model_dump())
    links = linked_folders(data)
    table, signatures, findings = build_cases(
        data,
        **params.data.model_dump(exclude={"pictures"}),
        pictures=pictures,
        workers=workers,
        progress=terminal.progress,
    )
    near = near_duplicates(
        table,
        signatures,
        root=data,
        pictures=pictures,
        correlation=params.audit.near_duplicate_correlation,
        workers=workers,
        progress=terminal.progress,
    )
    del signatures  # half of the memory that a slice takes
    table = table.drop(columns="signature")
    table["group"] = table["patient"].map(duplicate_groups(table, near))
    window = params.prepare.window
    limits = None
    if window.kind == "level_width":
        limits = (window.level - window.width / 2, window.level + window.width / 2)
    findings += links + audit_cases(
        table, classes=params.data.classes, pictures=pictures, window=limits, near=near
    )
    return table, findings


def report(findings: Sequence[Finding], table: pd.DataFrame, *, all_in: str) -> int:
    """Prints findings and what was read; `all_in` names the file of all; returns the errors."""
    errors = sum(finding.severity == "error" for finding in findings)
    if findings:
        terminal.console.print(findings_list(findings, all_in=all_in))
    terminal.console.print(
        f"{count_of(table['patient'].nunique(), 'patient')}, {count_of(len(table), 'slice')}: "
        f"{count_of(errors, 'error')}, {count_of(len(findings) - errors, 'warning')}"
    )
    return errors


def write_findings(path: Path, findings: Iterable[Finding]) -> None:
    """Writes the findings with their file names; private, like the data."""
    columns = ["severity", "kind", "paths", "found", "expected", "remedy"]
    with whole_file(path) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(finding.row() for finding in findings)


def main() -> None:
    """Matches images with masks, names patients, and lists every problem of the data.

    Example: python -m src.stages.audit
    """
    refuse_to_publish(Path("data.dvc"))
    params = load_params(Path("params.yaml"))
    cases = Path("prepared/cases.csv")
    cases.unlink(missing_ok=True)
    table, findings = audit(Path("data"), params)
    content = public_report(table, findings, classes=params.data.classes)
    write_text(Path("reports/audit.json"), json.dumps(content, indent=2) + "\n")
    write_findings(Path(FINDINGS), findings)
    errors = report(findings, table, all_in=FINDINGS)
    if errors:
        terminal.fail(
            f"{count_of(errors, 'error')} in the data. Mend them and run the same command again; "
            f"all of them stand in {FINDINGS}. Nothing was prepared."
        )
    write_cases(table, cases)


if __name__ == "__main__":
    terminal.run(main)
