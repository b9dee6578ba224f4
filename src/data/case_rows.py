"""An image with its mask, read and measured -> rows of the case table."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.data.findings import Finding
from src.data.geometry import compared
from src.data.hashes import hash_of_even, mask_hash, slice_hash
from src.data.intensities import Intensities, intensities
from src.data.masks import value_counts
from src.data.matching import Pair
from src.data.patients import Rules, unnamed
from src.data.pictures import PictureScale, single_channel
from src.data.readers import read_labels, read_mask, read_stored
from src.data.scans import ScanFile, split_suffix, unreadable
from src.data.thumbnails import signature
from src.data.volumes import Scan


class Row(NamedTuple):
    """What one slice gives to the case table; a tuple, for there may be very many."""

    case_id: str
    patient: str
    source: str
    image_path: str
    mask_path: str
    series: str  # Series Instance UID of DICOM
    slice: int
    height: int
    width: int
    spacing_y_mm: float
    spacing_x_mm: float
    thickness_mm: float
    sha256_image: str
    sha256_mask: str
    stored_dtype: str
    hu_min: float
    hu_p01: float
    hu_p50: float
    hu_p99: float
    hu_max: float
    pixels: tuple[int, ...]
    signature: bytes


@dataclass(frozen=True, slots=True)
class PairRead:
    """What one pair of image and mask gave: rows of the table, findings, unknown label values."""

    rows: list[Row]
    findings: list[Finding]
    unknown: tuple[int, ...] = ()
    mask_path: str = ""


def read_pairs(
    root: Path,
    rules: Rules,
    classes: list[str],
    lookup: Mapping[int, int],
    scale: PictureScale,
    pairs: Sequence[Pair],
) -> tuple[list[PairRead], set[int]]:
    """Reads and measures pairs of an image and its mask.

    Args:
        root: The data folder.
        rules: Who the patient is, and what the scanner or site.
        classes: Class names in the order of the class index.
        lookup: Label value -> class index.
        scale: What the values and pixels of pictures mean.
        pairs: Image and mask.

    Returns:
        What each pair gave, a bad file as a finding; and all label values that the masks hold.
    """
    seen: set[int] = set()
    return [_read_pair(root, rules, classes, lookup, scale, pair, seen) for pair in pairs], seen


def _read_pair(
    root: Path,
    rules: Rules,
    classes: list[str],
    lookup: Mapping[int, int],
    scale: PictureScale,
    pair: Pair,
    seen: set[int],
) -> PairRead:
    image, mask = pair
    patient, source = rules.patient_of(image), rules.source_of(image)
    if isinstance(patient, Finding) or isinstance(source, Finding):
        return PairRead([], [told for told in (patient, source) if isinstance(told, Finding)])
    patient, source = sys.intern(patient), sys.intern(source)  # one text for all rows
    stored: list[Scan] = []
    problems: list[Finding] = []
    for scan, read in ((image, _read_image), (mask, partial(_read_mask, image=image))):
        try:
            stored.append(read(root, scan, scale))
        except (ValueError, OSError) as error:
            problems.append(unreadable(scan.path, error))
    if problems:
        return PairRead([], problems)
    values, drawn = stored
    problems = compared(image, values, mask, drawn)
    if any(problem.kind == "size-mismatch" for problem in problems):
        return PairRead([], problems)
    depth, height, width = values.array.shape
    if depth == 1 and image.kind == "volume" and rules.is_by_stem(image):
        return PairRead([], [unnamed(image)])  # of several slices of a patient each has a name
    z, y, x = values.spacing_mm
    rows: list[Row] = []
    unknown: set[int] = set()
    for place in range(depth):
        labels = drawn.array[place]
        pixels = [0] * len(classes)
        counts = value_counts(labels)
        for value, number in counts.items():
            seen.add(value)
            if value in lookup:
                pixels[lookup[value]] += number
            else:
                unknown.add(value)
        case_id, image_path, mask_path, number = _named(image, mask, place, depth)
        picture = scale if image.kind == "picture" else None
        image_hash, found, thumb = _looked_at(values.array[place], picture)
        of_mask = hash_of_even(labels.shape, *counts) if len(counts) == 1 else mask_hash(labels)
        rows.append(
            Row(
                case_id, patient, source, image_path, mask_path, sys.intern(image.series), number,
                height, width, y, x, z, image_hash, of_mask, values.stored_dtype, *found,
                tuple(pixels), thumb,
            )
        )  # fmt: skip
    return PairRead(rows, problems, tuple(unknown), mask.path)


def _read_image(root: Path, scan: ScanFile, scale: PictureScale) -> Scan:
    stored = read_stored(root, scan, scale)
    grey = single_channel(stored.array, scan.path)
    return stored if grey is stored.array else replace(stored, array=grey)


def _read_mask(root: Path, scan: ScanFile, scale: PictureScale, *, image: ScanFile) -> Scan:
    if scan.kind != "dicom-seg":
        return read_labels(root, scan, scale)
    return read_mask(scan, scale, root=root, image=image)


def _named(image: ScanFile, mask: ScanFile, place: int, depth: int) -> tuple[str, str, str, int]:
    """case_id, paths and slice of one row; a DICOM slice goes by its own file."""
    single = len(image.files) == depth
    path = image.files[place] if single else image.path
    stem = split_suffix(path)[0]
    return (
        stem if single and image.kind != "volume" else f"{stem}#{place:03d}",
        path,
        mask.files[place] if len(mask.files) == depth else mask.path,
        image.first + place,
    )


def _looked_at(stored: NDArray[Any], scale: PictureScale | None) -> tuple[str, Intensities, bytes]:
    """The hash, intensities and signature of a slice."""
    found = intensities(stored, scale)
    thumb = b""
    if found.least < found.greatest:
        thumb = signature(stored if scale is None else scale.hu(stored))
    return slice_hash(stored.astype(np.float32)), found, thumb
