"""One file -> array and geometry, for every format that data/ may hold.

`list_scans` says what there is, `read_scan` and `read_mask` read a whole stack, `read_slices` many
slices one after the other, and `read_image_slice` and `read_mask_slice` one slice; each opens a
volume once when its slices are asked for in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.data import dicom, pictures, volumes
from src.data.masks import Labels, colours_as_numbers, whole_numbers
from src.data.pictures import NO_SCALE, PictureScale
from src.data.scans import ScanFile, list_scans, scan_at, scan_file
from src.data.volumes import Scan

__all__ = [
    "PictureScale",
    "Scan",
    "ScanFile",
    "holds_several",
    "list_scans",
    "read_image_slice",
    "read_labels",
    "read_mask",
    "read_mask_slice",
    "read_scan",
    "read_slices",
    "read_stored",
]


def read_stored(root: Path, scan: ScanFile, scale: PictureScale) -> Scan:
    """Reads a stack with its stored values (pictures) or its HU (all else).

    Args:
        root: The folder that the scan's paths are relative to.
        scan: An image or a mask, but no DICOM SEG.
        scale: Where pictures take their spacing from.

    Returns:
        (D, H, W), or (D, H, W, 3) for pictures in colour.

    Raises:
        ValueError: A file is damaged or cut off, or the slices of a series differ in size.
    """
    if scan.kind == "picture":
        # Without pathlib: of small pictures there are very many.
        stored = pictures.decode(f"{root}/{scan.path}", scan.path)
        spacing = (scale.thickness_mm, *scale.spacing_mm)
        return Scan(stored, spacing, None, None, _type_name(stored.dtype))
    parts = [volumes.read_volume(root / file, file) for file in scan.files]
    if scan.kind == "volume" or parts[0].array.shape[0] > 1:
        return parts[0]
    for part, file in zip(parts, scan.files, strict=True):
        if part.array.shape != parts[0].array.shape:
            raise ValueError(
                f"{file}: found a slice of {part.array.shape[1:]} in a series of "
                f"{parts[0].array.shape[1:]}, expected one size. Move overviews (localizers) out "
                "of the series' folder."
            )
    spacing = (scan.thickness_mm or parts[0].spacing_mm[0], *parts[0].spacing_mm[1:])
    stack = np.concatenate([part.array for part in parts])
    return replace(parts[0], array=stack, spacing_mm=spacing)


def read_scan(
    source: ScanFile | Path | str, scale: PictureScale, *, root: Path | None = None
) -> Scan:
    """Reads a whole image in HU.

    Args:
        source: A scan from `list_scans`, or the path of a file or of a DICOM series' folder.
        scale: What the values and pixels of pictures mean.
        root: The folder that a `ScanFile` is relative to; not needed with a path.

    Returns:
        (D, H, W) float32 in HU, spacing, and what a mask needs to lie in the same place.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: Damaged, cut off, in colour, a segmentation, or an unknown format.
    """
    root, scan = _located(source, root)
    if scan.kind == "dicom-seg":
        raise ValueError(
            f"{scan.path}: found a DICOM SEG, expected an image. Name the image, not the mask."
        )
    stored = read_stored(root, scan, scale)
    return replace(stored, array=_image_hu(stored, scan, scale))


def read_mask(
    source: ScanFile | Path | str,
    scale: PictureScale,
    *,
    root: Path | None = None,
    image: ScanFile | None = None,
    image_root: Path | None = None,
) -> Scan:
    """Reads a whole mask as label values.

    Args:
        source: As in `read_scan`.
        scale: Where pictures take their spacing from.
        root: The folder that a `ScanFile` is relative to; not needed with a path.
        image: The image that a DICOM SEG is laid over; without it, its own order of slices.
        image_root: The folder that `image` is relative to; `root` where it is not given.

    Returns:
        (D, H, W) int32; colours as `colours_as_numbers` has them; segment numbers of a DICOM SEG.
        The origin is None where the file does not say where it lies, and for a DICOM SEG, which
        lies on its image.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: Damaged, cut off, not whole numbers, overlapping segments, or segments on
            slices that `image` lacks.
    """
    root, scan = _located(source, root)
    if scan.kind == "dicom-seg":
        segmentation = dicom.read_segmentation(root / scan.path, scan.path)
        labels = segmentation.labels
        if image is not None:
            folder = image_root or root
            found = [dicom.read_header(folder / file, file).instance for file in image.files]
            labels = segmentation.over(found, scan.path)
        spacing = (scale.thickness_mm, *scale.spacing_mm)
        return Scan(labels, spacing, None, None, "uint8")
    drawn = read_labels(root, scan, scale)
    return replace(drawn, array=drawn.array.astype(np.int32, copy=False))


def read_labels(root: Path, scan: ScanFile, scale: PictureScale) -> Scan:
    """`read_mask` of what is no DICOM SEG, with uint8 label values where the file stores 8 bits."""
    stored = read_stored(root, scan, scale)
    labels = _label_values(stored, scan)
    return stored if labels is stored.array else replace(stored, array=labels)


def holds_several(root: Path, scan: ScanFile) -> bool:
    """Whether a scan has several slices, by the head of its file; False if that cannot be read.

    Args:
        root: The folder that the scan's paths are relative to.
        scan: An image.
    """
    if len(scan.files) > 1:
        return True
    held = pictures if scan.kind == "picture" else volumes
    return held.holds_several(root / scan.files[0])


_type_name = cache(str)  # NumPy takes as long for it as for a small picture's range of values


def _located(source: ScanFile | Path | str, root: Path | None) -> tuple[Path, ScanFile]:
    if isinstance(source, ScanFile):
        return root or Path(), source
    return scan_at(Path(source))


def _image_hu(stored: Scan, scan: ScanFile, scale: PictureScale) -> NDArray[np.float32]:
    if scan.kind == "picture":
        return scale.hu(pictures.single_channel(stored.array, scan.path))
    return stored.array.astype(np.float32)


def _label_values(stored: Scan, scan: ScanFile) -> Labels:
    if stored.array.ndim == 3:
        return whole_numbers(stored.array, scan.path)
    pages: list[NDArray[Any]] = [colours_as_numbers(one[None], scan.path) for one in stored.array]
    return np.concatenate(pages)


def read_image_slice(root: Path, path: str, slice: int, scale: PictureScale) -> NDArray[np.float32]:
    """One slice of an image.

    Args:
        root: The data folder.
        path: image_path of the case table.
        slice: slice of the case table; a file of a single frame ignores it.
        scale: What the values of pictures mean.

    Returns:
        (H, W) float32 in HU.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: Damaged, cut off, in colour, or without such a slice.
    """
    return _image_slice(_cached_image(root, path, _stamp(root / path)), path, slice, scale)


def read_mask_slice(root: Path, path: str, slice: int, image_path: str) -> NDArray[np.int32]:
    """One slice of a mask.

    Args:
        root: The data folder.
        path: mask_path of the case table.
        slice: slice of the case table; a file of a single frame ignores it.
        image_path: image_path of the case table: a DICOM SEG is laid over it.

    Returns:
        (H, W) int32 label values as they stand in the file.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: Damaged, cut off, not whole numbers, or without such a slice.
    """
    held = _cached_mask(root, path, _stamp(root / path))
    found = _mask_slice(root, held, path, slice, image_path)
    return found.astype(np.int32)  # a copy: the cache must not change in the hands of a caller


def read_slices(
    root: Path, wanted: Iterable[tuple[str, str, int]], scale: PictureScale
) -> Iterator[tuple[NDArray[np.float32], Labels]]:
    """Slices of images with those of their masks; nothing but the last file of each is held.

    Args:
        root: The data folder.
        wanted: image_path, mask_path and slice of the case table. Where neighbours name the same
            file it is opened once.
        scale: What the values of pictures mean.

    Yields:
        (H, W) float32 in HU, and (H, W) label values as they stand in the file (int32 or uint8),
        to be read only.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: As `read_image_slice` and `read_mask_slice`.
    """
    image: tuple[str, _Image] | None = None
    mask: tuple[str, _Mask] | None = None
    for image_path, mask_path, place in wanted:
        if image is None or image[0] != image_path:
            image = image_path, _image(root, image_path)
        if mask is None or mask[0] != mask_path:
            mask = mask_path, _mask(root, mask_path)
        yield (
            _image_slice(image[1], image_path, place, scale),
            _mask_slice(root, mask[1], mask_path, place, image_path),
        )


def _stamp(path: Path) -> tuple[int, int]:
    """Part of the caches' key, so that a file that was replaced is read again."""
    state = path.stat()
    return state.st_mtime_ns, state.st_size


_Image = tuple[NDArray[Any], bool]  # stored values (D, H, W), and whether they are of a picture
_Mask = Labels | dicom.Segmentation


def _image(root: Path, path: str) -> _Image:
    """The stored values, so that a volume of 16 bits is held in 16."""
    scan = scan_file(root, path)
    stored = read_stored(root, scan, NO_SCALE).array
    return pictures.single_channel(stored, path), scan.kind == "picture"


def _mask(root: Path, path: str) -> _Mask:
    scan = scan_file(root, path)
    if scan.kind == "dicom-seg":
        return dicom.read_segmentation(root / path, path)
    return read_labels(root, scan, NO_SCALE).array


@lru_cache(maxsize=2)
def _cached_image(root: Path, path: str, stamp: tuple[int, int]) -> _Image:
    return _image(root, path)


@lru_cache(maxsize=2)
def _cached_mask(root: Path, path: str, stamp: tuple[int, int]) -> _Mask:
    return _mask(root, path)


def _image_slice(held: _Image, path: str, place: int, scale: PictureScale) -> NDArray[np.float32]:
    stack, is_picture = held
    values = _picked(stack, path, place)
    return scale.hu(values) if is_picture else values.astype(np.float32)


def _mask_slice(root: Path, held: _Mask, path: str, place: int, image_path: str) -> Labels:
    if isinstance(held, dicom.Segmentation):
        return held.at(dicom.read_header(root / image_path, image_path).instance)
    return _picked(held, path, place)


def _picked(stack: NDArray[Any], path: str, place: int) -> NDArray[Any]:
    if len(stack) == 1:
        place = 0
    if not 0 <= place < len(stack):
        raise ValueError(
            f"{path}: found {len(stack)} slices, expected slice {place} to be among them. The file "
            "changed after the audit: run `dvc repro audit`."
        )
    picked: NDArray[Any] = stack[place]
    return picked
