"""Signs that a rule takes one patient for several, or several for one.

One patient under two names may stand on two sides of the split, and its scores then say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from src.data.findings import Finding, count_of, some_of
from src.data.patient_names import spelling, without_occasion
from src.data.patients import Rules
from src.data.scans import ScanFile, split_suffix

_SHOWN = 3
_FEW = 8  # endings that an expression spells out


def patient_doubts(images: Iterable[ScanFile], rules: Rules) -> list[Finding]:
    """What speaks against the patients that a rule tells.

    Args:
        images: All images, of masks not one.
        rules: Who the patient is.

    Returns:
        An error for each PatientID that the default rule takes apart, a warning where a rule of
        the user's does; with the default rule an error for folders with names that lie in each
        other, unless `data.source` names the outer one: which of them is the patient is no guess.
        An error for names that differ in upper case or blanks alone, a warning where a rule of the
        user's tells them; and without such a rule a warning for names that differ in what
        `patient_names` takes for an occasion.
    """
    images = list(images)
    findings = [*_one_id_for_several(images, rules)] if rules.patient != "dicom" else []
    findings += _folders_in_folders(images, rules) if rules.patient is None else []
    named: dict[str, str] = {}  # patient -> one of its files
    for image in images:
        if isinstance(patient := rules.patient_of(image), str):
            named.setdefault(patient, image.files[0])
    findings += _spellings(named, rules)
    if rules.patient in (None, "dicom"):
        distinct = {spelling(name): (name, file) for name, file in named.items()}
        findings += _occasions(dict(distinct.values()), images, rules)
    return findings


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


def _spellings(named: Mapping[str, str], rules: Rules) -> Iterator[Finding]:
    """P00 beside p00."""
    for names in _alike(named, spelling).values():
        yield Finding(
            "patient-spelling", "error" if rules.patient in (None, "dicom") else "warning",
            tuple(named[name] for name in names),
            f"{count_of(len(names), 'patient')} whose names differ in upper and lower case or "
            f"blanks alone: {some_of([repr(name) for name in names], _SHOWN)}",
            "one way to write the name of a patient",
            "Write their names alike. If they are different people, set data.patient in "
            "params.yaml to a regular expression on the path that names the patient.",
        )  # fmt: skip


def _occasions(
    named: Mapping[str, str], images: Sequence[ScanFile], rules: Rules
) -> Iterator[Finding]:
    """P00_pre beside P00_post."""

    def left(name: str) -> str:
        return spelling(without_occasion(name, rules.roles.is_role))

    groups = _alike(named, left)
    if not groups:
        return
    known = _patterns([*named], images, rules, left) if rules.patient is None else None
    together, apart = known or ("a regular expression on the path that names both alike", "another")
    remedy = (
        f"If they are one patient, set data.patient in params.yaml to {together}. If they are "
        f"different people, set it to {apart}: with a rule of yours nothing more is asked."
    )
    for names in groups.values():
        yield Finding(
            "patient-names", "warning", tuple(named[name] for name in names),
            f"{count_of(len(names), 'patient')} who may be one: {some_of(names, _SHOWN)}",
            "one name for each patient, who else may stand on two sides of the split",
            remedy,
        )  # fmt: skip


def _alike(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    """Names with the same key, where there are several."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return {one: members for one, members in groups.items() if len(members) > 1}


def _patterns(
    names: Sequence[str], images: Sequence[ScanFile], rules: Rules, left: Callable[[str], str]
) -> tuple[str, str] | None:
    """Expressions by which patients with the same name left are one, and by which they are not.

    None where a try on all images fails.
    """
    endings = {name[len(without_occasion(name, rules.roles.is_role)) :] for name in names} - {""}
    spelt = {re.escape(ending) for ending in endings}
    if len(spelt) > _FEW:  # dates
        spelt = {re.sub("[0-9]+", lambda hit: f"[0-9]{{{len(hit[0])}}}", end) for end in spelt}
    suffixes = sorted({re.escape(split_suffix(image.files[0])[1]) for image in images})
    of_files = f"{suffixes[0]}$" if len(suffixes) == 1 else f"(?:{'|'.join(suffixes)})$"
    for behind in ("/[^/]+$", of_files):
        pattern = f"(?P<patient>[^/]+?)(?:{'|'.join(sorted(spelt))})?{behind}"
        tried = replace(rules, patient=pattern)
        pairs = {
            (tried.patient_of(one), left(patient))
            for one in images
            if isinstance(patient := rules.patient_of(one), str)
        }
        if len(pairs) == len({told for told, _ in pairs}) == len({name for _, name in pairs}):
            return f"'{pattern}'", f"'(?P<patient>[^/]+){behind}'"
    return None
