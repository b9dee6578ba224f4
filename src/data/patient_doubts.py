"""Signs that a rule takes one patient for several, or several for one.

One patient under two names may stand on two sides of the split, and its scores then say nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from src.data.findings import Finding, count_of, some_of
from src.data.patients import Rules
from src.data.scans import ScanFile

_SHOWN = 3


def patient_doubts(images: Iterable[ScanFile], rules: Rules) -> list[Finding]:
    """What speaks against the patients that a rule tells.

    Args:
        images: All images, of masks not one.
        rules: Who the patient is.

    Returns:
        An error for each PatientID that the default rule takes apart, a warning where a rule of
        the user's does; with the default rule an error for folders with names that lie in each
        other, unless `data.source` names the outer one: which of them is the patient is no guess.
    """
    images = list(images)
    findings = [*_one_id_for_several(images, rules)] if rules.patient != "dicom" else []
    return findings + ([*_folders_in_folders(images, rules)] if rules.patient is None else [])


def _one_id_for_several(images: Iterable[ScanFile], rules: Rules) -> Iterator[Finding]:
    told: dict[str, dict[str, str]] = {}  # PatientID -> patient -> one of its files
    for image in images:
        patient = rules.patient_of(image) if image.patient else ""
        if patient and isinstance(patient, str):
            told.setdefault(image.patient, {}).setdefault(patient, image.files[0])
    if len(told) < 2:  # one ID for all is what a program wrote that took the names away
        return
    for patients in told.values():
        if len(patients) > 1:
            yield Finding(
                "patient-split", "error" if rules.patient is None else "warning",
                tuple(patients.values()),
                f"one PatientID in the headers of {count_of(len(patients), 'patient')} "
                f"({some_of([*patients], _SHOWN)})",
                "one patient for each PatientID",
                "Set data.patient in params.yaml to dicom, or to a regular expression on the path "
                "that names the patient. If it is the PatientIDs that are wrong, such an "
                "expression is enough.",
            )  # fmt: skip


def _folders_in_folders(images: Iterable[ScanFile], rules: Rules) -> Iterator[Finding]:
    """P01/2020-01-03 beside P01/2021-07-01 may be one patient, and P01/first and P02/first two."""
    below: dict[str, dict[str, None]] = {}
    above: dict[str, dict[str, None]] = {}
    seen = {image.files[0].rpartition("/")[0]: image for image in images}
    for folder, image in seen.items():
        named = [part for part in folder.split("/") if not rules.roles.is_role(part)]
        if len(named) > 1:
            outer, patient = "/".join(named[:-1]), named[-1]
            above.setdefault(patient, {})[outer] = None
            if rules.source_of(image) not in named[:-1]:  # a scanner or site is no patient
                below.setdefault(outer, {})[patient] = None
    apart = {outer: [*patients] for outer, patients in below.items() if len(patients) > 1}
    if apart and len(below) > 1:  # a single folder around all is no patient
        outer, patients = next(iter(apart.items()))
        yield _undecided(
            f"{count_of(len(apart), 'folder')} with several patients in each, such as {outer} with "
            f"{some_of(patients, _SHOWN)}",
            outer,
            patients[0],
        )
    together = {patient: [*outer] for patient, outer in above.items() if len(outer) > 1}
    if together:
        patient, outer_ones = next(iter(together.items()))
        yield _undecided(
            f"{count_of(len(together), 'patient')} with folders in several others, such as "
            f"{patient} in {some_of(outer_ones, _SHOWN)}",
            outer_ones[0],
            patient,
        )


def _undecided(found: str, outer: str, inner: str) -> Finding:
    """Either of two folders may be the patient."""
    remedy = (
        f"Say in params.yaml who the patient is: if {outer}, data.patient: "
        "'(?P<patient>[^/]+)/[^/]+/[^/]+$'; "
        f"if {inner}, data.patient: '(?P<patient>[^/]+)/[^/]+$'."
    )
    expected = "a folder for each patient"
    return Finding("patient-folders", "error", (), found, expected, remedy)
