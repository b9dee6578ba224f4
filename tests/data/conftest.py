"""Small CT files of every kind, written by the tests themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from src.data.cases import build_cases
from src.data.pictures import PictureScale

SCALE = PictureScale(slope=1.0, intercept=-1024.0, spacing_mm=(0.5, 0.75), thickness_mm=5.0)
IMAGE_WORDS = ("image", "images", "img", "ct", "scan", "imagesTr")
MASK_WORDS = ("mask", "masks", "label", "labels", "labelsTr", "seg", "gt")


def ct(seed: int, *, size: int = 40, depth: int = 1) -> np.ndarray:
    """(D, size, size) int16 in HU: air, and a round body of noise of its own."""
    noise = np.random.default_rng(seed).normal(40, 60, (depth, size, size))
    y, x = np.mgrid[:size, :size] - size / 2 + 0.5
    body = x**2 + (y * 1.2) ** 2 < (0.4 * size) ** 2
    return np.where(body, noise, -1000).astype(np.int16)


def organ(*, size: int = 40, depth: int = 1, value: int = 1) -> np.ndarray:
    """(D, size, size) uint8, a square of 10 x 10 = 100 pixels of the value a slice."""
    mask = np.zeros((depth, size, size), np.uint8)
    mask[:, 15:25, 15:25] = value
    return mask


def write_picture(path: Path, array: np.ndarray, *options: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array, list(options))
    return path


def write_ct_picture(path: Path, seed: int) -> Path:
    """A 16-bit picture of `ct`: stored value = HU + 1024."""
    return write_picture(path, (ct(seed)[0] + 1024).astype(np.uint16))


def write_volume(
    path: Path,
    array: np.ndarray,
    *,
    spacing: tuple[float, ...] = (0.5, 0.75, 3.0),
    origin: tuple[float, ...] = (10.0, 20.0, 30.0),
    direction: tuple[float, ...] | None = None,
) -> Path:
    import SimpleITK as sitk  # noqa: N813

    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction:
        image.SetDirection(direction)
    sitk.WriteImage(image, str(path), path.name.endswith("gz"))
    return path


def write_series(
    folder: Path,
    array: np.ndarray,
    *,
    name: str = "a",
    names: list[str] | None = None,
    patient: str = "made-up",
    places: list[float] | None = None,
) -> list[Any]:
    """A DICOM series of HU (D, H, W); returns the pydicom data sets in the order of the slices."""
    import pydicom
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    sets = []
    for number, pixels in enumerate(array):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.SOPInstanceUID = generate_uid(entropy_srcs=[name, str(number)])
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.SeriesInstanceUID = generate_uid(entropy_srcs=[name, "series"])
        data.StudyInstanceUID = generate_uid(entropy_srcs=[name, "study"])
        data.FrameOfReferenceUID = generate_uid(entropy_srcs=[name, "frame"])
        data.Modality, data.PatientID, data.PatientName = "CT", patient, "Nobody^At^All"
        data.Manufacturer, data.ManufacturerModelName = "Acme", "Ring 1"
        for tag in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
                    "AccessionNumber", "ReferringPhysicianName"):  # fmt: skip
            setattr(data, tag, "")
        data.SeriesNumber, data.InstanceNumber = 1, number + 1
        place = places[number] if places else 2.5 * number
        data.ImagePositionPatient = [1.0, 2.0, place]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [0.5, 0.75], 2.0
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.PixelRepresentation = 0
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.PixelData = (pixels.astype(np.int32) + 1024).astype(np.uint16).tobytes()
        data.save_as(folder / (names[number] if names else f"{number:02d}.dcm"),
                     enforce_file_format=True)  # fmt: skip
        sets.append(data)
    return sets


def write_segmentation(path: Path, sets: list[Any], segments: np.ndarray) -> Path:
    """A DICOM SEG of (D, H, W, S) booleans on the slices of a series."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    described = [
        hd.seg.SegmentDescription(
            segment_number=number + 1,
            segment_label=f"segment {number + 1}",
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number in range(segments.shape[-1])
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    hd.seg.Segmentation(
        source_images=sets,
        pixel_array=segments.astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=hd.UID(),
        series_number=2,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="Acme",
        manufacturer_model_name="Pen 1",
        software_versions="1",
        device_serial_number="1",
    ).save_as(path)
    return path


Build = Callable[..., tuple[Any, ...]]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """build(**changes) -> (case table, findings) of the test's folder.

    build(signed=True) -> (case table, signatures, findings).
    """

    def run(*, signed: bool = False, **changes: Any) -> tuple[Any, ...]:
        settings: dict[str, Any] = {
            "classes": ("background", "organ"),
            "labels": {0: "background", 1: "organ"},
            "image_words": IMAGE_WORDS,
            "mask_words": MASK_WORDS,
            "patient": None,
            "source": None,
            "pictures": SCALE,
            "workers": 2,
        }
        table, signatures, findings = build_cases(tmp_path, **(settings | changes))
        return (table, signatures, findings) if signed else (table, findings)

    return run


def kinds(findings: list[Any]) -> list[str]:
    return [finding.kind for finding in findings]


def add_patient(root: Path, name: str, seed: int, *, slices: int = 2) -> None:
    """images/NAME/0.png with masks/NAME/0.png, and so on."""
    for place in range(slices):
        write_ct_picture(root / "images" / name / f"{place}.png", 100 * seed + place)
        write_picture(root / "masks" / name / f"{place}.png", organ()[0])
