"""What there is to segment: the images in a file or folder, and which of them are one scan."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from src.data.findings import Finding, count_of
from src.data.patients import Rules
from src.data.readers import holds_several
from src.data.roles import Roles
from src.data.scans import ScanFile, list_scans, scan_at, split_suffix
from src.data.stacks import Slice, stacks


@dataclass(frozen=True)
class Images:
    """The images of an INPUT.

    Attributes:
        root: The folder that their paths are relative to.
        scans: The images, sorted by path.
        stems: Of each, where its outputs go: relative to the output folder, without a suffix.
        masks: Paths of the masks among them, which are left out.
        findings: What is wrong with files or with the distances of slices.
    """

    root: Path
    scans: list[ScanFile]
    stems: list[str]
    masks: list[str]
    findings: list[Finding]

    def name_of(self, scan: ScanFile) -> str:
        """The path of a scan; the folder's name where the INPUT is itself a DICOM series."""
        return _name(self.root, scan)


def _name(root: Path, scan: ScanFile) -> str:
    return root.resolve().name if scan.path == "." else scan.path


def find_images(sources: Sequence[Path], mask_words: Sequence[str]) -> Images:
    """Finds the images in files and below folders.

    Args:
        sources: A single file, taken for an image whatever its name; a folder; or several of
            either, such as a pattern of the shell gives: their names are looked at, and slices of a
            DICOM series stay together.
        mask_words: Words in a name that make a file a mask.

    Returns:
        The images.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: The format is not read, or there is no image.
    """
    for source in sources:
        if not source.exists():
            raise FileNotFoundError(f"{source}: no such file or folder. Check the path.")
    first, *others = sources
    if first.is_file() and not others:
        root, scan = scan_at(first)
        return Images(root, [scan], _stems(root, [scan]), [], [])
    root = first
    if others:
        sources = [_placed(source) for source in sources]
        root = Path(os.path.commonpath([one if one.is_dir() else one.parent for one in sources]))
    found, findings = list_scans(root, sources if others else ())
    roles = Roles((), mask_words)
    scans: list[ScanFile] = []
    masks: list[str] = []
    for scan in found:
        images, drawn = roles.parted(scan)
        scans += images
        masks += [mask.path for mask in drawn]
    if not scans and not any(finding.severity == "error" for finding in findings):
        nothing = f"{count_of(len(masks), 'mask')} and no image" if masks else "no image"
        raise ValueError(
            f"{', '.join(map(str, sources[:3]))}: found {nothing}, "
            "expected PNG, TIFF, JPEG, BMP, DICOM, NIfTI, NRRD or MHA files. Name a folder that "
            "holds images; a word of data.mask_words (params.yaml) in the name of a file or folder "
            "makes it a mask."
        )
    return Images(root, scans, _stems(root, scans), masks, findings)


def each_alone(images: Images) -> list[list[int]]:
    """Every image as a scan of its own, for a model that looks at slices alone."""
    return [[number] for number in range(len(images.scans))]


def one_scan_each(images: Images, rules: Rules, data: Path) -> tuple[list[list[int]], list[str]]:
    """Which images are one scan, by the rule of the case table (`src.data.stacks.stacks`).

    So a model that looks at whole scans is shown what it was scored on: files of one slice that lie
    in one folder and are of one patient, such as a folder of PNG slices, are one scan.

    Args:
        images: From `find_images`.
        rules: Who the patient is. Where they do not say it, all in the folder are one patient.
        data: The data folder: of an image in it the rules are shown the path that the case table
            has; of any other the path below the INPUT.

    Returns:
        Places in `images.scans`, scan by scan and in the order of the slices; and the paths of
        those whose patient the rules do not tell although it matters.
    """
    root, data = images.root.resolve(), data.resolve()
    inside = "" if root == data or data not in root.parents else f"{root.relative_to(data)}/"
    told = [_patient(rules, scan, inside) for scan in images.scans]
    slices = [
        Slice(patient or "", scan.files[0], scan.series, scan.first)
        for patient, scan in zip(told, images.scans, strict=True)
    ]
    found = stacks(slices, ())
    shared = {
        images.scans[number].files[0]
        for stack in found
        if len(stack) > 1  # else nothing depends on it, and no file needs to be opened
        for number in stack
        if holds_several(images.root, images.scans[number])
    }
    found = stacks(slices, shared) if shared else found
    unnamed = [
        images.scans[number].path
        for stack in found
        if len(stack) > 1
        for number in stack
        if told[number] is None
    ]
    return found, sorted(unnamed)


def _patient(rules: Rules, image: ScanFile, inside: str) -> str | None:
    """The patient of an image, "" where it is the one of the folder; None where no rule fits."""
    if rules.patient is None:
        return ""
    patient = rules.patient_of(replace(image, files=(inside + image.files[0],)))
    return None if isinstance(patient, Finding) else patient


def _placed(source: Path) -> Path:
    """An absolute path without "..", so that no output can leave the output folder.

    A link keeps its name: what it leads to may be a file of DVC's cache.
    """
    if source.name in ("", ".."):
        return source.resolve()
    return source.parent.resolve() / source.name


def _stems(root: Path, scans: Sequence[ScanFile]) -> list[str]:
    """A name of its own for each scan: "a/b" for a/b.png, longer where a/b.tif stands beside it."""
    names = [_name(root, scan) for scan in scans]
    short = [split_suffix(name)[0] for name in names]
    number = Counter(stem.casefold() for stem in short)
    return [
        stem if number[stem.casefold()] == 1
        else f"{name}_{scan.series}" if len(scan.files) > 1
        else name
        for stem, name, scan in zip(short, names, scans, strict=True)
    ]  # fmt: skip
