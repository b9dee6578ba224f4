"""What an audit finds: one record a problem, for a terminal or, without names, for a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Group

Severity = Literal["error", "warning"]

# What each kind means, in words that hold no file name: a report may print them.
MEANINGS: dict[str, str] = {
    "unknown-file": "a file of a format that is not read",
    "linked-folder": "a link to a folder, which DVC does not follow",
    "unreadable": "a file that is damaged, cut off or of a form that is not read",
    "slice-spacing": "a DICOM series whose slices are not evenly spaced",
    "no-images": "no image at all",
    "no-masks": "no mask at all",
    "orphan-image": "an image without a mask",
    "orphan-mask": "a mask without an image",
    "missing-prediction": "a truth without a prediction",
    "stray-prediction": "a prediction without a truth",
    "two-masks": "several masks for one image",
    "ambiguous": "several images and masks whose names fit each other",
    "matched-in-part": "an image and a mask whose names agree in part alone",
    "patient-unknown": "a file whose patient the rule does not tell",
    "source-unknown": "a file whose scanner or site the rule does not tell",
    "patient-split": "one PatientID under several patients",
    "patient-folders": "folders taken for patients that lie in other folders with a name",
    "patient-spelling": "one patient's name written in two ways",
    "patient-names": "names that may be those of one patient at several times",
    "many-scans": "several volumes taken for one patient",
    "size-mismatch": "a mask of another size than its image",
    "geometry-mismatch": "a mask that lies elsewhere in space than its image",
    "geometry-missing": "a mask that does not say where it lies in space",
    "unknown-label": "values in a mask that stand for no class",
    "nan-image": "an image with values that are infinite or no numbers",
    "constant-image": "slices of one value only",
    "not-hu": "values that do not look like Hounsfield units",
    "outside-window": "slices that the window shows as one grey",
    "mixed-bit-depth": "images stored with different numbers of bits",
    "empty-masks": "a patient without a pixel of any class but background",
    "all-masks-empty": "no mask with a pixel of any class but background",
    "mostly-foreground": "a class that covers most of the pictures",
    "class-unseen": "a class of which there is no pixel",
    "single-slice": "a patient with one slice",
    "few-patients": "fewer than three patients that may be separated",
    "shared-picture": "the same picture under several patients",
    "near-duplicate": "almost the same pictures under two patients",
}


@dataclass(frozen=True)
class Finding:
    """One problem of the data.

    Attributes:
        kind: One of `MEANINGS`.
        severity: "error" (numbers would be wrong) or "warning".
        paths: The files it is about, relative to data/; empty where it is about the whole.
        found: What was found.
        expected: What was expected.
        remedy: What to do.
    """

    kind: str
    severity: Severity
    paths: tuple[str, ...]
    found: str
    expected: str
    remedy: str

    def __post_init__(self) -> None:
        if self.kind not in MEANINGS:  # found here, and not where the findings of a user are told
            raise ValueError(f"{self.kind} is no kind of finding. Give it a meaning in MEANINGS.")

    def __str__(self) -> str:
        where = f"{', '.join(self.paths)}: " if self.paths else ""
        return f"{where}found {self.found}, expected {self.expected}. {self.remedy}"

    def row(self) -> dict[str, str]:
        """The finding as a row of prepared/findings.csv (private: with file names)."""
        return {
            "severity": self.severity,
            "kind": self.kind,
            "paths": " | ".join(self.paths),
            "found": self.found,
            "expected": self.expected,
            "remedy": self.remedy,
        }

    def public(self, mapping: Mapping[str, str]) -> dict[str, Any]:
        """The finding for a report: pseudonyms instead of names, and no free text.

        The texts `found`, `expected` and `remedy` may quote names, so a fixed sentence stands in.

        Args:
            mapping: Relative path -> pseudonym. A path that it lacks becomes "not in the table".

        Returns:
            kind, severity, meaning, cases (sorted, each once).
        """
        return {
            "kind": self.kind,
            "severity": self.severity,
            "meaning": MEANINGS[self.kind],
            "cases": sorted({mapping.get(path, "not in the table") for path in self.paths}),
        }


def count_of(number: int, noun: str) -> str:
    """1, "slice" -> "1 slice"; 3, "slice" -> "3 slices"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def some_of(names: Sequence[str], most: int) -> str:
    """The first names of a list, and how many there are beside: "a, b and 3 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def grouped(findings: Iterable[Finding]) -> dict[tuple[str, str], list[Finding]]:
    """(severity, kind) -> its findings; errors first, then the most frequent."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.kind), []).append(finding)
    return dict(sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1]), item[0][1])))


def findings_list(findings: Iterable[Finding], *, all_in: str, shown: int = 3) -> Group:
    """The findings for a terminal: one block a kind, its first few in full, and how many there are.

    Blocks of lines, not a table: whatever its width, a terminal then breaks no path and no name of
    a parameter.

    Args:
        findings: In any order; may be empty.
        all_in: The file that holds all of them, named where some are not shown.
        shown: How many of a kind are written out.

    Returns:
        What the console prints.
    """
    from rich.console import Group
    from rich.text import Text

    lines: list[Text] = []
    for (severity, kind), members in grouped(findings).items():
        colour = "red" if severity == "error" else "yellow"
        head = f"{len(members)} × {MEANINGS[kind]}"
        lines.append(Text.assemble((severity, f"bold {colour}"), f"  {head}"))
        for finding in members[:shown]:
            where = f"{', '.join(finding.paths)}: " if finding.paths else ""
            lines.append(Text(f"  {where}{finding.found} (expected: {finding.expected})"))
        if len(members) > shown:
            lines.append(Text(f"  … and {len(members) - shown} more in {all_in}"))
        lines.append(Text(f"  {members[0].remedy}", style="italic"))
    return Group(*lines)
