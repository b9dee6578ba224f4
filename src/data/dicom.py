"""DICOM: which files are one series and in which order, their pixels in HU, and DICOM SEG.

pydicom reads the headers, SimpleITK the pixels (rescaled to HU), highdicom the segmentations.
"""

from __future__ import annotations

import sqlite3
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.data.findings import count_of

SUFFIXES = (".dcm", ".dicom", ".ima")
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "PatientID", "Manufacturer",
    "ManufacturerModelName", "Rows", "Columns", "NumberOfFrames", "InstanceNumber",
    "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness",
    "ReferencedSeriesSequence",
]  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What is needed of a DICOM header to sort and match; pixels are not read.

    Attributes:
        instance: SOP Instance UID.
        series: Series Instance UID.
        modality: E.g. "CT", "SEG", "RTSTRUCT".
        is_segmentation: The file is a DICOM SEG.
        is_image: The file has rows and columns.
        frames: Number of frames; 1 where the header does not say.
        patient: PatientID, may be empty.
        scanner: Manufacturer and model, may be empty.
        place: Position along the normal of the slice in mm, None where the header lacks it.
        number: InstanceNumber, 0 where the header lacks it.
        thickness_mm: SliceThickness, None where the header lacks it.
        references: Series Instance UIDs that a segmentation was drawn on.
    """

    instance: str
    series: str
    modality: str
    is_segmentation: bool
    is_image: bool
    frames: int
    patient: str
    scanner: str
    place: float | None
    number: int
    thickness_mm: float | None
    references: tuple[str, ...]


def is_dicom(path: Path) -> bool:
    """Whether the file carries DICOM's mark, whatever its name."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def read_header(path: Path, name: str) -> Header:
    """Reads the header of a DICOM file.

    Args:
        path: The file.
        name: What to call it in a message.

    Raises:
        ValueError: The file is no DICOM file, or its header is damaged or cut off.
        OSError: The system refuses to read it.
    """
    import pydicom
    from pydicom import config

    config.settings.reading_validation_mode = config.IGNORE  # scanners write odd values; read on
    try:
        # Old files lack the mark, so `force`; what is no DICOM then lacks the tags below.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS, force=True)
            instance = str(found.get("SOPInstanceUID", ""))
            sop_class = str(found.get("SOPClassUID", ""))
            series = str(found.get("SeriesInstanceUID", ""))
            place = _place(found)
            header = Header(
                instance=instance,
                series=series,
                modality=str(found.get("Modality", "")),
                is_segmentation=sop_class in _SEGMENTATIONS,
                is_image="Rows" in found and "Columns" in found,
                frames=int(found.get("NumberOfFrames") or 1),
                patient=str(found.get("PatientID") or "").strip(),
                scanner=" ".join(
                    str(found.get(tag) or "").strip()
                    for tag in ("Manufacturer", "ManufacturerModelName")
                ).strip(),
                place=place,
                number=int(found.get("InstanceNumber") or 0),
                thickness_mm=float(found.get("SliceThickness") or 0) or None,
                references=tuple(
                    str(item.SeriesInstanceUID)
                    for item in found.get("ReferencedSeriesSequence") or ()
                ),
            )
    except _of_damage() as error:
        if _is_refusal(error):
            raise
        raise _unreadable(name, f"a damaged DICOM header ({type(error).__name__})") from error
    if not (sop_class and instance and series):
        raise _unreadable(name, "no complete DICOM header")
    return header


def _of_damage() -> tuple[type[Exception], ...]:
    """The errors of many types that pydicom and highdicom raise on damaged bytes."""
    from pydicom.errors import BytesLengthException

    return (
        ArithmeticError, AttributeError, BytesLengthException, EOFError, LookupError, OSError,
        RuntimeError, TypeError, ValueError, sqlite3.Error, struct.error, zlib.error,
    )  # fmt: skip


def _is_refusal(error: Exception) -> bool:
    """Whether an error is the system's; pydicom raises an `OSError` without a number."""
    return isinstance(error, OSError) and error.errno is not None


def _place(found: Any) -> float | None:
    position, axes = found.get("ImagePositionPatient"), found.get("ImageOrientationPatient")
    if not position or not axes or len(position) != 3 or len(axes) != 6:
        return None
    axes = np.array(axes, dtype=np.float64)
    return float(np.cross(axes[:3], axes[3:]) @ np.array(position, dtype=np.float64))


def in_order(headers: dict[Path, Header]) -> list[Path]:
    """The files of one series along the normal of their slices, as ITK's series reader has them.

    Where a header lacks its position, all are ordered by instance number, then by name.
    """
    if all(header.place is not None for header in headers.values()):
        return sorted(headers, key=lambda path: (headers[path].place, path))
    return sorted(headers, key=lambda path: (headers[path].number, path))


def uneven_steps(places: Sequence[float | None]) -> str:
    """What is uneven about the distances of ordered slices; empty where nothing is."""
    if len(places) < 3 or any(place is None for place in places):
        return ""
    steps = np.diff(np.array(places, dtype=np.float64))
    usual = float(np.median(steps))
    if steps.min() < 1e-3:
        return f"{count_of(int((steps < 1e-3).sum()), 'slice')} at the place of another one"
    if steps.max() - steps.min() > max(0.1 * usual, 0.02):
        return f"distances of neighbouring slices from {steps.min():.3g} to {steps.max():.3g} mm"
    return ""


def usual_step(places: Sequence[float | None]) -> float | None:
    """Median distance in mm of ordered slices; None where it is not known or zero."""
    known = np.array([place for place in places if place is not None], dtype=np.float64)
    if len(known) < 2 or len(known) < len(places):
        return None
    return float(np.median(np.diff(known))) or None


@dataclass(frozen=True)
class Segmentation:
    """A decoded DICOM SEG.

    Attributes:
        instances: SOP Instance UIDs of the image slices it was drawn on.
        labels: (N, H, W) int32 segment numbers, 0 where there is no segment; in that order.
        spacing_mm: (y, x) of a pixel; None where the file does not say it once for all.
    """

    instances: tuple[str, ...]
    labels: NDArray[np.int32]
    spacing_mm: tuple[float, float] | None = None

    def at(self, instance: str) -> NDArray[np.int32]:
        """(H, W) int32 for an image slice; zeros for a slice that is not mentioned."""
        labels = np.zeros(self.labels.shape[1:], dtype=np.int32)
        if instance in self.instances:
            labels[:] = self.labels[self.instances.index(instance)]
        return labels

    def over(self, series: Sequence[str], name: str) -> NDArray[np.int32]:
        """(D, H, W) int32 for a whole series; zeros for slices that are not mentioned.

        Args:
            series: SOP Instance UIDs of its slices, in their order.
            name: What to call the segmentation in a message.

        Raises:
            ValueError: A segment is drawn on a slice that is not in the series.
        """
        planes = zip(self.instances, self.labels, strict=True)
        elsewhere = {instance for instance, labels in planes if labels.any()} - {*series}
        if elsewhere:
            raise ValueError(
                f"{name}: found segments on {count_of(len(elsewhere), 'slice')} that the series "
                "lacks, expected a DICOM SEG of this series. Export the segmentation again for "
                "this series, or add the missing slices."
            )
        return np.stack([self.at(instance) for instance in series])


def read_segmentation(path: Path, name: str) -> Segmentation:
    """Reads a DICOM SEG whole; segment numbers become label values.

    Args:
        path: The file.
        name: What to call it in a message.

    Raises:
        ValueError: Damaged, overlapping segments, fractions, drawn on multi-frame images, or with
            frames whose slice the file does not name.
        OSError: The system refuses to read it.
    """
    import highdicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            segmentation = highdicom.seg.segread(path)
            instances = tuple(uid for _, _, uid in segmentation.get_source_image_uids())
            labels = segmentation.get_pixels_by_source_instance(
                instances,
                combine_segments=True,
                ignore_spatial_locations=True,  # many writers leave the statement out
                assert_missing_frames_are_empty=True,
            )
            unnamed = _frames_elsewhere(segmentation, instances)
            spacing_mm = _pixel_spacing(segmentation)
    except _of_damage() as error:
        if _is_refusal(error):
            raise
        if isinstance(error, RuntimeError) and "overlap" in str(error):
            raise ValueError(
                f"{name}: found overlapping segments ({error}), expected one segment a pixel. "
                "Export the segments to files of their own, or decide in your editor which one "
                "lies on top."
            ) from error
        raise ValueError(
            f"{name}: found a DICOM SEG that cannot be laid over its images ({error}), expected a "
            "whole file of binary segments drawn on single-frame slices. Export it again, or save "
            "the mask as NIfTI."
        ) from error
    if unnamed:
        raise ValueError(
            f"{name}: found {count_of(unnamed, 'frame')} of a DICOM SEG whose slice is not among "
            f"the {len(instances)} that it lists, expected one of them for every frame. Export it "
            "again, or save the mask as NIfTI."
        )
    return Segmentation(instances, labels.astype(np.int32), spacing_mm)


def _frames_elsewhere(segmentation: Any, instances: Sequence[str]) -> int:
    """Number of frames that are not drawn on one of these; highdicom passes over them."""

    def named(groups: Any) -> set[str]:
        return {
            str(source.ReferencedSOPInstanceUID)
            for derivation in groups.get("DerivationImageSequence") or ()
            for source in derivation.get("SourceImageSequence") or ()
        }

    shared = [named(one) for one in segmentation.get("SharedFunctionalGroupsSequence") or ()]
    known = {*instances}
    if any(known & one for one in shared):
        return 0
    return sum(not known & named(one) for one in segmentation.PerFrameFunctionalGroupsSequence)


def _pixel_spacing(segmentation: Any) -> tuple[float, float] | None:
    for groups in segmentation.get("SharedFunctionalGroupsSequence") or ():
        for measures in groups.get("PixelMeasuresSequence") or ():
            spacing = measures.get("PixelSpacing")
            if spacing and len(spacing) == 2:
                return float(spacing[0]), float(spacing[1])
    return None


def _unreadable(name: str, problem: str) -> ValueError:
    return ValueError(
        f"{name}: found {problem}, expected a whole DICOM file. Copy or export the file again."
    )
