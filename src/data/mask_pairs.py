"""Masks of the truth and of any method: found, and read in pairs on one grid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.data import dicom
from src.data.findings import Finding, count_of
from src.data.geometry import compared
from src.data.matching import images_of
from src.data.pictures import NO_SCALE
from src.data.readers import read_mask
from src.data.roles import Roles
from src.data.scans import ScanFile, list_scans, scan_at, split_suffix
from src.data.volumes import Scan

SIDES = ("truth", "prediction")
_MAP = re.compile(r"_(overlay|uncertainty|probability_.+)$")


@dataclass(frozen=True)
class MaskFolder:
    """The masks in a file or below a folder.

    Attributes:
        root: The folder that their paths are relative to.
        masks: The masks, sorted by path.
        images: Scans that lie beside a mask of their name, which are left out.
        findings: Files that are not read.
    """

    root: Path
    masks: list[ScanFile]
    images: list[ScanFile]
    findings: list[Finding]

    def name_of(self, scan: ScanFile) -> str:
        """The path of a mask with its folder: truth and prediction are often named alike."""
        return str(self.root / scan.path)


def find_masks(
    source: Path, mask_words: Sequence[str], *, image_words: Sequence[str] = ()
) -> MaskFolder:
    """Finds the masks in a file or below a folder.

    Args:
        source: A file, taken for a mask whatever its name, or a folder. All of its files are masks
            but those that lie beside a mask of their name, such as "P1_image" where there is
            "P1_mask" or a DICOM SEG of it, and but what `src.predict` writes beside its masks:
            "P1_overlay", "P1_uncertainty", "P1_probability_CLASS".
        mask_words: Words in a name that mark a mask.
        image_words: Words in a name that say nothing about which image it is.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: The format is not read, or there is no mask.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder. Check the path.")
    if source.is_file():
        root, scan = scan_at(source)
        return MaskFolder(root, [scan], [], [])
    scans, findings = list_scans(source)
    roles = Roles(image_words, mask_words)
    masks: list[ScanFile] = []
    rest: list[ScanFile] = []
    for scan in scans:
        others, drawn = roles.parted(scan)
        masks += drawn
        rest += others
    images = [scan for scan in rest if _is_map(scan.path)]
    images += images_of(masks, [scan for scan in rest if scan not in images], roles)
    masks = sorted(
        masks + [scan for scan in rest if scan not in images], key=lambda scan: scan.path
    )
    if not masks and not any(finding.severity == "error" for finding in findings):
        raise ValueError(
            f"{source}: found no mask, expected PNG, TIFF, JPEG, BMP, DICOM, DICOM SEG, NIfTI, "
            "NRRD or MHA files. Check the path."
        )
    images.sort(key=lambda scan: scan.path)
    return MaskFolder(source, masks, images, findings)


def _is_map(path: str) -> bool:
    """Whether a file, or the folder of its slices, is what `src.predict` writes beside a mask."""
    return any(_MAP.search(split_suffix(part)[0]) for part in PurePosixPath(path).parts)


@dataclass(frozen=True, eq=False)
class ReadPair:
    """A truth and its prediction.

    Attributes:
        truth: (D, H, W) int32 label values.
        prediction: Likewise; None where there is no file, or where it does not fit.
        spacing_mm: (y, x) as the file of the truth has it; None where it does not say it.
        prediction_spacing_mm: Likewise.
        findings: Why the two do not fit each other, and warnings.
    """

    truth: NDArray[np.int32]
    prediction: NDArray[np.int32] | None
    spacing_mm: tuple[float, float] | None
    prediction_spacing_mm: tuple[float, float] | None
    findings: list[Finding]


def read_pair(
    truths: MaskFolder,
    truth: ScanFile,
    predictions: MaskFolder,
    prediction: ScanFile | None,
    *,
    image: tuple[Path, ScanFile] | None = None,
) -> ReadPair:
    """Reads a truth and its prediction.

    DICOM segmentations name the slices they were drawn on: they are laid over the image, where it
    is known, else over each other. Beside a file that names no slices that cannot be done.

    Args:
        truths: Where the truth lies.
        truth: One of its masks.
        predictions: Where the prediction lies.
        prediction: One of its masks; None where there is none.
        image: Folder and scan of the image that both were drawn on. Without it a DICOM series among
            `truths.images` is taken, if it is the one that a DICOM SEG names.

    Raises:
        ValueError: A file is damaged, holds no whole numbers, or its slices are not known or not
            those of the image.
        OSError: A file cannot be read.
    """
    files = [(truths, truth)] + ([(predictions, prediction)] if prediction else [])
    image = image or _drawn_on(truths, [scan for _, scan in files])
    order = _instances(files, image)
    stacks: list[Scan] = []
    spacings: list[tuple[float, float] | None] = []
    for folder, scan in files:
        if scan.kind == "dicom-seg":
            segmentation = _segmentation(folder, scan)
            labels = segmentation.over(order, folder.name_of(scan))
            stacks.append(Scan(labels, (1.0, 1.0, 1.0), None, None, "uint8"))
            spacings.append(segmentation.spacing_mm)
        else:
            stack = _stack(folder, scan)
            stacks.append(stack)
            y, x = stack.spacing_mm[1:]
            spacings.append(None if scan.kind == "picture" else (y, x))
    if prediction is None:
        return ReadPair(stacks[0].array, None, spacings[0], None, [])
    names = tuple(folder.name_of(scan) for folder, scan in files)
    problems = [
        replace(problem, paths=names)
        for problem in compared(truth, stacks[0], prediction, stacks[1], SIDES)
    ]
    fits = not any(problem.severity == "error" for problem in problems)
    drawn = stacks[1].array if fits else None
    return ReadPair(stacks[0].array, drawn, spacings[0], spacings[1], problems)


def _stack(folder: MaskFolder, scan: ScanFile) -> Scan:
    try:
        return read_mask(scan, NO_SCALE, root=folder.root)
    except ValueError as error:
        told = str(error).removeprefix(f"{scan.path}: ")
        raise ValueError(f"{folder.name_of(scan)}: {told}") from error


def _segmentation(folder: MaskFolder, scan: ScanFile) -> dicom.Segmentation:
    return dicom.read_segmentation(folder.root / scan.path, folder.name_of(scan))


def _drawn_on(truths: MaskFolder, scans: Sequence[ScanFile]) -> tuple[Path, ScanFile] | None:
    named = {series for scan in scans for series in scan.references}
    found = [image for image in truths.images if image.series in named]
    return (truths.root, found[0]) if len(found) == 1 else None


def _instances(
    files: Sequence[tuple[MaskFolder, ScanFile]], image: tuple[Path, ScanFile] | None
) -> list[str]:
    """SOP Instance UIDs of the slices; none where no file is a DICOM SEG."""
    segmentations = [one for one in files if one[1].kind == "dicom-seg"]
    if not segmentations:
        return []
    if image is not None:
        folder, drawn_on = image
        return [dicom.read_header(folder / file, file).instance for file in drawn_on.files]
    named = [_segmentation(folder, scan) for folder, scan in segmentations]
    names = [folder.name_of(scan) for folder, scan in segmentations]
    others = [folder.name_of(scan) for folder, scan in files if scan.kind != "dicom-seg"]
    if others and len(named[0].instances) > 1:
        raise ValueError(
            f"{names[0]}: found a DICOM SEG of {count_of(len(named[0].instances), 'slice')} beside "
            f"{others[0]}, which does not say which slices it holds. Put the DICOM series into the "
            "folder of the truth, or export both as DICOM SEG or both as NIfTI."
        )
    if len(named) == 2 and not set(named[0].instances) & set(named[1].instances):
        raise ValueError(
            f"{names[1]}: found a DICOM SEG of other slices than {names[0]}, expected one drawn on "
            "the same series. Check which series each was drawn on."
        )
    listed: dict[str, Any] = dict.fromkeys(uid for one in named for uid in one.instances)
    return list(listed)
