"""Masks and maps of a scan -> PNG, NIfTI or DICOM SEG files that lie where the scan lies.

The counterpart of `readers`: what is written here is read there. Every file is whole or absent.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from src.data.scans import Kind
from src.data.volumes import Scan, read_volume
from src.files import whole_file, whole_folder, write_bytes

Format = Literal["png", "nifti", "dicom-seg"]

# What a viewer of such images opens without being told more.
NATURAL_FORMAT: dict[Kind, Format] = {"picture": "png", "volume": "nifti", "dicom": "dicom-seg"}

# Type 2 attributes: they must be there but may be empty. Anonymisers drop them.
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime",
)  # fmt: skip


def sixteen_bit(share: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    """Values of 0 to 1 -> 0 to 65535, of the same shape; for PNG files."""
    return np.rint(np.clip(share, 0.0, 1.0) * 65535).astype(np.uint16)


def write_png(stem: Path, slices: Iterable[NDArray[Any]], depth: int) -> Path:
    """Writes a stack as STEM.png or, where it has several slices, as STEM/000.png and so on.

    Args:
        stem: The destination without a suffix.
        slices: (H, W) uint8 or uint16 each, or (H, W, 3) uint8 in the order red, green, blue.
        depth: How many there are.

    Returns:
        The file, or the folder of several. An older one is replaced.
    """
    if depth == 1:
        path = stem.with_name(f"{stem.name}.png")
        write_bytes(path, _encoded(next(iter(slices))))
        return path
    digits = max(3, len(str(depth - 1)))
    with whole_folder(stem) as folder:
        for number, picture in enumerate(slices):
            (folder / f"{number:0{digits}d}.png").write_bytes(_encoded(picture))
    return stem


def _encoded(picture: NDArray[Any]) -> bytes:
    # To be written by Python: cv2.imwrite does not say why it failed.
    _, content = cv2.imencode(".png", picture if picture.ndim == 2 else picture[..., ::-1])
    return content.tobytes()


def write_nifti(stem: Path, array: NDArray[Any], scan: Scan) -> Path:
    """Writes a stack as STEM.nii.gz with the spacing, origin and direction of its scan.

    Args:
        stem: The destination without a suffix.
        array: (D, H, W), the size of the scan, uint8 or float32.
        scan: The scan; one that does not say where it lies is placed at the origin.

    Returns:
        The file. An older one is replaced.

    Raises:
        ValueError: The scan's place in space cannot be written.
        OSError: The file was cut off.
    """
    import SimpleITK as sitk  # noqa: N813 - the name that its manual uses

    path = stem.with_name(f"{stem.name}.nii.gz")
    with whole_file(path) as aside:
        try:
            image = sitk.GetImageFromArray(array, isVector=False)
            image.SetSpacing(scan.spacing_mm[::-1])
            if scan.origin is not None and scan.direction is not None:
                image.SetOrigin(scan.origin)
                image.SetDirection(scan.direction)
            sitk.WriteImage(image, str(aside), useCompression=True)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].replace(str(aside), path.name)
            raise ValueError(
                f"{path.name}: cannot be written as NIfTI ({reason}). Mend the geometry of the "
                "scan, or use --format png."
            ) from error
        try:  # on a full disk ITK leaves a short file and says nothing
            read_volume(aside, path.name)
        except ValueError as error:
            raise OSError(
                f"{path.name}: the file was cut off while it was written. Free some space on the "
                "disk, then run the same command again; nothing half-written was kept."
            ) from error
    return path


def write_dicom_seg(
    stem: Path,
    mask: NDArray[np.uint8],
    files: Sequence[Path],
    class_names: Sequence[str],
    *,
    algorithm: str,
    version: str,
) -> Path:
    """Writes a mask as STEM.dcm, a DICOM SEG that viewers lay over its series.

    Each foreground class becomes a segment with the number of its class index and its name as the
    label, coded as tissue: the standard has no code for the classes of a user's own.

    Args:
        stem: The destination without a suffix.
        mask: (D, H, W) uint8 class indices; without a foreground pixel, all frames are empty.
        files: The DICOM files of the series in the order of the mask's slices, or one file of
            several frames.
        class_names: Names in the order of the class index, background first.
        algorithm: Name of the network.
        version: What tells this network from others of its name.

    Returns:
        The file. An older one is replaced.

    Raises:
        ValueError: The series lacks what a DICOM SEG must repeat of it.
    """
    import highdicom
    from pydicom.sr.codedict import codes

    path = stem.with_name(f"{stem.name}.dcm")
    identification = highdicom.AlgorithmIdentificationSequence(
        name=algorithm, family=codes.DCM.ArtificialIntelligence, version=version
    )
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=identification,
        )
        for number, name in enumerate(class_names[1:], start=1)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd names of patients, not about this file
        try:
            segmentation = highdicom.seg.Segmentation(
                source_images=_headers(files),
                pixel_array=mask,
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=segments,
                series_instance_uid=highdicom.UID(),
                series_number=1000,  # far from those of a scanner
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer="ct-segmentation",
                manufacturer_model_name=algorithm[:64],
                software_versions=version[:64],
                device_serial_number=version[:64],
                content_label="SEGMENTATION",
                content_description="Automatic, for research alone",
                series_description="Automatic segmentation, for research alone",
                omit_empty_frames=bool(mask.any()),
            )
        # highdicom and pydicom raise errors of many types on headers that lack something.
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise ValueError(
                f"{path.name}: found a series whose headers do not allow a DICOM SEG ({error}), "
                "expected the patient, study and position of every slice. Use --format nifti."
            ) from error
        with whole_file(path) as aside:
            segmentation.save_as(aside)
    return path


def _headers(files: Sequence[Path]) -> list[Any]:
    """The headers of a series, without pixels, as highdicom wants them."""
    import pydicom

    headers = []
    for file in files:
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        if not header.get("SpecificCharacterSet"):
            header.pop("SpecificCharacterSet", None)  # empty means the default, as absence does
        for name in _MAY_BE_EMPTY:
            if name not in header:
                setattr(header, name, "")
        headers.append(header)
    return headers
