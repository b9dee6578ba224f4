"""One scan -> its mask, its maps, what they measure, and what makes them doubtful."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from src.data.scans import Kind
from src.data.volumes import Scan
from src.data.writers import (
    NATURAL_FORMAT,
    Format,
    sixteen_bit,
    write_dicom_seg,
    write_nifti,
    write_png,
)
from src.evaluation.uncertainty import normalised_entropy
from src.figures import COLOURS
from src.inference import cleaned

if TYPE_CHECKING:
    from src.inference import AnySegmenter

CT_RANGE = (-1024.0, 3071.0)  # HU that twelve bits hold
SPACING_FACTOR = 1.5  # how far the spacing may be from that of training


@dataclass(frozen=True)
class Wanted:
    """What is written for each scan.

    Attributes:
        format: Of masks; None for the natural one.
        overlay: Whether pictures with outlines are.
        uncertainty: Whether a map of it is.
        probabilities: Whether a map for each class is.
        batch_size: Slices that go through the network together.
    """

    format: Format | None = None
    overlay: bool = False
    uncertainty: bool = False
    probabilities: bool = False
    batch_size: int = 8


@dataclass(frozen=True)
class Image:
    """A scan in memory, and where it came from.

    Attributes:
        scan: (D, H, W) float32 in HU and its geometry.
        kind: "picture", "volume" or "dicom".
        files: Its files, in the order of the slices.
        modality: Of DICOM, "CT"; empty for all else.
    """

    scan: Scan
    kind: Kind
    files: tuple[Path, ...]
    modality: str = ""


@dataclass(frozen=True)
class Prediction:
    """What the model says of a scan.

    Attributes:
        mask: (D, H, W) uint8 class indices.
        mean_uncertainty: Mean over the predicted foreground of `normalised_entropy`, 0 to 1; None
            without foreground.
        uncertainty: (D, H, W) float32, `normalised_entropy`; None where not wanted.
        probabilities: (C, D, H, W) float32; None where not wanted.
    """

    mask: NDArray[np.uint8]
    mean_uncertainty: float | None
    uncertainty: NDArray[np.float32] | None
    probabilities: NDArray[np.float32] | None


def check_values(scan: Scan) -> None:
    """Raises ValueError where a slice holds values that are not finite."""
    for number, image in enumerate(scan.array):
        if not np.isfinite(image).all():
            raise ValueError(
                f"found values that are not numbers in slice {number}, expected HU everywhere. "
                "Export it again, or fill them with -1024."
            )


def segment_together(
    segmenter: AnySegmenter,
    stacks: Sequence[Sequence[Scan]],
    wanted: Wanted,
    *,
    on_slice: Callable[[], None] = lambda: None,
) -> list[Prediction]:
    """Segments scans, a few slices at a time.

    Args:
        segmenter: The model with its preprocessing.
        stacks: Scans, each of one or several files in the order of their slices; a file is
            (D, H, W), in HU and finite. A single one, where the model sees neighbours.
        wanted: What is needed of them.
        on_slice: Called after every slice; may raise to end the work.

    Returns:
        Mask and maps of each file, of its size, in the order in which they are given.

    Raises:
        ValueError: A slice cannot be brought to what the network takes.
    """
    scans = [scan for stack in stacks for scan in stack]
    owners = [(scan, place) for scan, one in enumerate(scans) for place in range(len(one.array))]
    masks = [np.empty(0, np.uint8)] * len(owners)
    uncertainty = [np.empty(scan.array.shape, np.float32) for scan in scans]
    by_class: list[NDArray[np.float32]] | None = None
    if wanted.probabilities:
        by_class = [
            np.empty((segmenter.num_classes, *scan.array.shape), np.float32) for scan in scans
        ]
    # The whole stack in order: a network with context sees neighbours.
    images = [image for scan in scans for image in scan.array]
    spacings = [scan.spacing_mm[1:] for scan in scans for _ in scan.array]
    predicted = segmenter.each_with_mask(images, spacings, batch_size=wanted.batch_size)
    for number, mask, probability in predicted:
        scan, place = owners[number]
        masks[number] = mask
        uncertainty[scan][place] = normalised_entropy(probability)
        if by_class is not None:
            by_class[scan][:, place] = np.moveaxis(probability, -1, 0)
        on_slice()
    start = 0
    for stack in stacks:  # cleaning sees the whole stack too
        end = start + sum(len(scan.array) for scan in stack)
        masks[start:end] = cleaned(masks[start:end], segmenter.postprocessing)
        start = end
    results = []
    waiting = iter(masks)
    for scan, unsure in enumerate(uncertainty):
        whole = np.stack([next(waiting) for _ in unsure])
        foreground = unsure[whole > 0]
        results.append(
            Prediction(
                whole,
                float(foreground.mean(dtype=np.float64)) if foreground.size else None,
                unsure if wanted.uncertainty else None,
                by_class[scan] if by_class is not None else None,
            )
        )
    return results


def segment(
    segmenter: AnySegmenter,
    array: NDArray[np.float32],
    wanted: Wanted,
    *,
    spacing_mm: tuple[float, float],
) -> Prediction:
    """Segments one stack, (D, H, W) in HU with pixels of (y, x) mm; see `segment_together`.

    Raises:
        ValueError: A slice holds values that are not finite.
    """
    scan = Scan(array, (1.0, *spacing_mm), None, None, str(array.dtype))
    check_values(scan)
    [result] = segment_together(segmenter, [[scan]], wanted)
    return result


def measures(
    mask: NDArray[np.uint8], class_names: Sequence[str], spacing_mm: tuple[float, float, float]
) -> dict[str, float]:
    """Area and volume of each foreground class.

    Args:
        mask: (D, H, W) class indices.
        class_names: Names in the order of the class index, background first.
        spacing_mm: (z, y, x).

    Returns:
        `area_mm2_CLASS`, summed over the slices, and `volume_ml_CLASS`; 0 for a class not found.
    """
    thickness, y, x = spacing_mm
    # Much quicker than bincount, which makes 64-bit numbers of the pixels first.
    named = [
        (name, int(np.count_nonzero(mask == index)) * (y * x))
        for index, name in enumerate(class_names[1:], start=1)
    ]
    return {
        **{f"area_mm2_{name}": round(area, 3) for name, area in named},
        **{f"volume_ml_{name}": round(area * thickness / 1000, 6) for name, area in named},
    }


def unlike_training(image: Image, segmenter: AnySegmenter) -> list[str]:
    """What about a scan makes its prediction doubtful, in words; empty where nothing does.

    Args:
        image: The scan.
        segmenter: Knows the spacing and the window of the training slices.
    """
    settings, trained = segmenter.settings, segmenter.spacing_mm
    array, (_, y, x) = image.scan.array, image.scan.spacing_mm
    height, width = array.shape[1:]
    size = settings.sampled_size(height, width, (y, x))
    doubts = []
    if image.modality not in ("", "CT"):
        doubts.append(f"modality {image.modality}, not CT")
    if settings.resamples:  # the network sees larger or smaller pixels than the scan has
        y, x = y * height / size[0], x * width / size[1]
        if min(height / size[0], width / size[1]) < 0.5:
            doubts.append(f"{height} x {width} pixels, enlarged to {size[0]} x {size[1]}")
    if max(y / trained[0], trained[0] / y, x / trained[1], trained[1] / x) > SPACING_FACTOR:
        doubts.append(
            f"pixels of {y:.3g} x {x:.3g} mm{' after resizing' if settings.resamples else ''}, "
            f"{trained[0]:.3g} x {trained[1]:.3g} mm in training"
        )
    low, high = float(array.min()), float(array.max())
    if low >= 0 or high <= 0:
        doubts.append(f"values from {low:g} to {high:g}: fat and air lie below 0 HU, tissue above")
    outside = 0.0
    if low < CT_RANGE[0] or high > CT_RANGE[1]:
        # Scanners fill what lies beyond their circle with one value, the lowest: that is no doubt.
        outside = _share((array > CT_RANGE[1]) | ((array < CT_RANGE[0]) & (array > low)))
    if outside > 0.01:
        doubts.append(
            f"{outside:.0%} of the pixels outside what CT holds "
            f"({CT_RANGE[0]:g} to {CT_RANGE[1]:g} HU)"
        )
    ends = _share((array <= settings.window_low) | (array >= settings.window_high))
    if ends > 0.95:
        doubts.append(
            f"{ends:.0%} of the pixels beyond the ends of the window "
            f"({settings.window_low:g} to {settings.window_high:g} HU)"
        )
    return doubts


def _share(pixels: NDArray[np.bool_]) -> float:
    # np.mean does the same, and takes many times as long.
    return int(np.count_nonzero(pixels)) / pixels.size


def contour_picture(
    image_hu: NDArray[np.float32],
    mask: NDArray[np.uint8],
    *,
    class_names: Sequence[str],
    spacing_mm: tuple[float, float],
    window: tuple[float, float],
) -> NDArray[np.uint8]:
    """Draws a slice and, beside it, the same with the outlines of its classes.

    Args:
        image_hu: (H, W) in HU.
        mask: (H, W) class indices.
        class_names: Names in the order of the class index, background first.
        spacing_mm: (y, x), for true proportions.
        window: HU shown black and white.

    Returns:
        (height, width, 3) uint8, red, green, blue; the shorter side of each of the two panels has
        at least 512 pixels.
    """
    height_mm, width_mm = (n * mm for n, mm in zip(image_hu.shape, spacing_mm, strict=True))
    pixels_a_mm = max(512 / min(height_mm, width_mm), 1 / min(spacing_mm))
    size = (round(width_mm * pixels_a_mm), round(height_mm * pixels_a_mm))
    share = np.clip((image_hu - window[0]) / (window[1] - window[0]), 0, 1)
    grey = cv2.resize(np.rint(share * 255).astype(np.uint8), size, interpolation=cv2.INTER_LINEAR)
    plain = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    outlined = plain.copy()
    labels = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
    legend = np.full((32, 2 * size[0] + 2, 3), 30, np.uint8)
    font, left = cv2.FONT_HERSHEY_SIMPLEX, 8
    for index, name in enumerate(class_names[1:], start=1):
        colour = COLOURS[1 + (index - 1) % (len(COLOURS) - 1)][:3]
        inside = (labels == index).astype(np.uint8)
        outlines, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(outlined, outlines, -1, colour, 2, cv2.LINE_AA)
        cv2.rectangle(legend, (left, 10), (left + 12, 22), colour, cv2.FILLED)
        cv2.putText(legend, name, (left + 18, 21), font, 0.5, (235, 235, 235), 1, cv2.LINE_AA)
        left += 36 + cv2.getTextSize(name, font, 0.5, 1)[0][0]
    gap = np.zeros((size[1], 2, 3), np.uint8)
    return np.vstack([legend, np.hstack([plain, gap, outlined])])


def write(
    stem: Path,
    image: Image,
    result: Prediction,
    segmenter: AnySegmenter,
    wanted: Wanted,
    *,
    version: str,
) -> Path:
    """Writes the mask of a scan and the maps that are wanted.

    Args:
        stem: The destination without role and suffix: STEM_mask.png and so on.
        image: The scan.
        result: The prediction.
        segmenter: Names the classes; its window shows the overlays.
        wanted: What is wanted.
        version: What tells this model from others, for DICOM SEG.

    Returns:
        The mask: a file, or a folder of PNG slices.

    Raises:
        ValueError: The scan's place in space cannot be written in this format.
    """
    names, scan, depth = segmenter.class_names, image.scan, len(result.mask)
    form = wanted.format or NATURAL_FORMAT[image.kind]

    def at(role: str) -> Path:
        return stem.with_name(f"{stem.name}_{role}")

    def write_map(role: str, values: NDArray[np.float32]) -> None:
        if form == "png":
            write_png(at(role), map(sixteen_bit, values), depth)
        else:
            write_nifti(at(role), values, scan)

    if form == "png":
        path = write_png(at("mask"), result.mask, depth)
    elif form == "nifti":
        path = write_nifti(at("mask"), result.mask, scan)
    else:
        algorithm = segmenter.name
        path = write_dicom_seg(
            at("mask"), result.mask, image.files, names, algorithm=algorithm, version=version
        )
    if result.uncertainty is not None:
        write_map("uncertainty", result.uncertainty)
    if result.probabilities is not None:
        for name, values in zip(names, result.probabilities, strict=True):
            write_map(f"probability_{name}", values)
    if wanted.overlay:
        window = (segmenter.settings.window_low, segmenter.settings.window_high)
        _, y, x = scan.spacing_mm
        pictures = (
            contour_picture(*pair, class_names=names, spacing_mm=(y, x), window=window)
            for pair in zip(scan.array, result.mask, strict=True)
        )
        write_png(at("overlay"), pictures, depth)
    return path
