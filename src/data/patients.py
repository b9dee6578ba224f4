"""The patient and the source of a scan, and the pseudonyms that stand for patients in reports."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from src.data.findings import Finding
from src.data.roles import Roles
from src.data.scans import ScanFile, split_suffix


@dataclass(frozen=True)
class Rules:
    """How the patient and the source of a scan are told.

    Attributes:
        patient: A regular expression with the group `patient`, searched in the image's relative
            path; "dicom" (PatientID); or None: the deepest folder that is no role word, else the
            stem of a volume of several slices.
        source: A regular expression with the group `source`; "dicom" (manufacturer and model); or
            None: no source.
        roles: What a role word is.
    """

    patient: str | None
    source: str | None
    roles: Roles

    def __post_init__(self) -> None:
        for group in ("patient", "source"):
            rule = getattr(self, group)
            if rule not in (None, "dicom") and group not in re.compile(rule).groupindex:
                raise ValueError(
                    f"data.{group}: found {rule!r}, expected a group named {group}. Write it as "
                    f"'(?P<{group}>[^/]+)'."
                )

    def patient_of(self, image: ScanFile) -> str | Finding:
        """The patient of an image, or why it cannot be told."""
        if self.patient is not None:
            return self._told("patient", self.patient, image, image.patient)
        if named := self._folders(image):
            return named[-1]
        if image.kind == "volume":
            return split_suffix(image.path)[0].rpartition("/")[2]
        return unnamed(image)

    def is_by_stem(self, image: ScanFile) -> bool:
        """Whether the name of the file alone names the patient of a volume."""
        return self.patient is None and not self._folders(image)

    def _folders(self, image: ScanFile) -> list[str]:
        folders = image.files[0].split("/")[:-1]
        return [folder for folder in folders if not self.roles.is_role(folder)]

    def source_of(self, image: ScanFile) -> str | Finding:
        """The scanner or site of an image, "" without a rule, or why it cannot be told."""
        if self.source is None:
            return ""
        return self._told("source", self.source, image, image.scanner)

    def _told(self, group: str, rule: str, image: ScanFile, header: str) -> str | Finding:
        if rule == "dicom":
            told, found = header, "nothing about it in a DICOM header"
        else:
            hit = re.search(rule, image.files[0])
            told, found = (hit[group] or "") if hit else "", "a path that the rule does not fit"
        if told:
            return told
        without = ", say `source: null` where paths do not tell" if group == "source" else ""
        return Finding(
            f"{group}-unknown", "error", (image.path,), found, f"data.{group}: {rule}",
            f"Mend data.{group} in params.yaml so that it fits every image{without}, or rename the "
            "file.",
        )  # fmt: skip


def unnamed(image: ScanFile) -> Finding:
    """Says that nothing names the patient of a slice."""
    suffix = split_suffix(image.files[0])[1].lstrip(".").replace(".", "[.]") or "png"
    return Finding(
        "patient-unknown", "error", (image.path,), "no folder that names a patient",
        "a folder for each patient, or a rule",
        "Set data.patient in params.yaml to a regular expression on the path, such as "
        f"'(?P<patient>[^/_]+)_[0-9]+[.]{suffix}$'" + (", or to dicom." if image.series else "."),
    )  # fmt: skip


def pseudonyms(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Patient -> pseudonym, such as "P-3f9c1e2a".

    The key of the hash is made of the patient's own images: the pseudonym is the same wherever the
    data are, stays when patients are added, and cannot be computed without the images.

    Args:
        rows: Rows of the case table with patient and sha256_image.
    """
    hashes: dict[str, list[str]] = {}
    for row in rows:
        hashes.setdefault(row["patient"], []).append(row["sha256_image"])
    digests = {
        patient: hmac.digest(
            hashlib.sha256("".join(sorted(images)).encode()).digest(), patient.encode(), "sha256"
        ).hex()
        for patient, images in hashes.items()
    }
    length = 8
    while len({digest[:length] for digest in digests.values()}) < len(digests):
        length += 1
    return {patient: f"P-{digest[:length]}" for patient, digest in digests.items()}
