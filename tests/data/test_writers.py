import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from src.data.dicom import read_segmentation
from src.data.readers import read_scan
from src.data.volumes import Scan
from src.data.writers import sixteen_bit, write_dicom_seg, write_nifti, write_png
from tests.data.conftest import SCALE, ct, write_series, write_volume

CLASSES = ("background", "organ", "lesion")
ROOT = Path(__file__).parents[2]
# A patient who lies on the side, scanned from the feet up, the table tilted by 20 degrees.
COSINE, SINE = np.cos(np.radians(20)), np.sin(np.radians(20))
ODD = (0.0, COSINE, SINE, -1.0, 0.0, 0.0, 0.0, -SINE, COSINE)


def mask(depth: int = 3, size: int = 40) -> np.ndarray:
    """(D, size, size) uint8: slice d holds one organ pixel and two lesion pixels at its place."""
    labels = np.zeros((depth, size, size), np.uint8)
    for place in range(depth):
        labels[place, 2 + place, 5] = 1
        labels[place, 2 + place, 8:10] = 2
    return labels


# --- PNG ------------------------------------------------------------------------------------------


def test_a_single_slice_becomes_one_file_of_class_indices(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a" / "1.5mm_mask", mask(1), 1)
    assert path == tmp_path / "a" / "1.5mm_mask.png"
    np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), mask(1)[0])


def test_several_slices_become_a_folder_of_numbered_files(tmp_path: Path) -> None:
    path = write_png(tmp_path / "m", mask(3), 3)
    assert sorted(file.name for file in path.iterdir()) == ["000.png", "001.png", "002.png"]
    second = cv2.imread(str(path / "001.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(second, mask(3)[1])


def test_sixteen_bits_span_zero_to_one(tmp_path: Path) -> None:
    values = sixteen_bit(np.array([[0.0, 0.5, 1.0]], np.float32))
    assert values.tolist() == [[0, 32768, 65535]]  # 0.5 * 65535 = 32767.5, to the even neighbour
    stored = cv2.imread(str(write_png(tmp_path / "u", values[None], 1)), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert stored.tolist() == [[0, 32768, 65535]]


def test_colours_are_written_red_green_blue(tmp_path: Path) -> None:
    red = np.zeros((1, 2, 2, 3), np.uint8)
    red[..., 0] = 255
    stored = cv2.imread(str(write_png(tmp_path / "o", red, 1)))
    assert stored[0, 0].tolist() == [0, 0, 255]  # OpenCV reads blue, green, red


# --- NIfTI ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
def test_a_nifti_mask_lies_where_its_volume_lies(tmp_path: Path, suffix: str) -> None:
    source = write_volume(
        tmp_path / f"ct.{suffix}", ct(1, depth=3), spacing=(0.7, 0.8, 3.3),
        origin=(-120.5, 33.25, 900.75), direction=ODD,
    )  # fmt: skip
    scan = read_scan(source, SCALE)
    written = sitk.ReadImage(str(write_nifti(tmp_path / "ct_mask", mask(), scan)))
    image = sitk.ReadImage(str(source))
    assert written.GetSize() == image.GetSize()
    np.testing.assert_allclose(written.GetSpacing(), image.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(written.GetOrigin(), image.GetOrigin(), rtol=1e-6)
    np.testing.assert_allclose(written.GetDirection(), image.GetDirection(), atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), mask())


def test_a_float_map_keeps_its_values(tmp_path: Path) -> None:
    scan = read_scan(write_volume(tmp_path / "ct.mha", ct(1, depth=3)), SCALE)
    values = np.random.default_rng(1).random((3, 40, 40), np.float32)
    written = sitk.ReadImage(str(write_nifti(tmp_path / "u", values, scan)))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), values)


def test_a_scan_without_a_place_is_put_at_the_origin(tmp_path: Path) -> None:
    scan = Scan(np.zeros((1, 4, 6), np.float32), (5.0, 0.5, 0.75), None, None, "uint16")
    written = sitk.ReadImage(str(write_nifti(tmp_path / "m", np.zeros((1, 4, 6), np.uint8), scan)))
    assert written.GetOrigin() == (0.0, 0.0, 0.0)
    assert written.GetSpacing() == (0.75, 0.5, 5.0)


def test_a_place_that_cannot_be_written_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    scan = read_scan(write_volume(tmp_path / "ct.mha", ct(1, depth=3)), SCALE)
    flat = replace(scan, spacing_mm=(0.0, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"m.nii.gz: cannot be written as NIfTI .*--format png"):
        write_nifti(tmp_path / "m", mask(), flat)
    assert [path.name for path in tmp_path.iterdir()] == ["ct.mha"]


def test_a_full_disk_is_an_error_though_itk_says_nothing_and_leaves_no_file(tmp_path: Path) -> None:
    code = """
    import resource, signal, sys
    from pathlib import Path
    import numpy as np
    from src.data.volumes import Scan
    from src.data.writers import write_nifti
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    noise = np.random.default_rng(1).integers(0, 3, (30, 90, 90)).astype(np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        write_nifti(Path(sys.argv[1]) / "m", noise, Scan(noise, (1, 1, 1), None, None, "int16"))
    except OSError as error:
        print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "m.nii.gz: the file was cut off while it was written. Free some space" in done.stdout
    assert list(tmp_path.iterdir()) == []


# --- DICOM SEG ------------------------------------------------------------------------------------


def series(folder: Path, **options: Any) -> tuple[list[Any], list[Path]]:
    """A written series of three slices: its data sets and its files, both in order."""
    sets = write_series(folder, ct(1, depth=3), **options)
    return sets, sorted(folder.iterdir())


def segmented(stem: Path, labels: np.ndarray, files: list[Path]) -> Path:
    return write_dicom_seg(stem, labels, files, CLASSES, algorithm="unet", version="unet 12ab")


def test_a_dicom_seg_names_its_series_and_study_and_frame_of_reference(tmp_path: Path) -> None:
    sets, files = series(tmp_path / "ct")
    found = hd.seg.segread(segmented(tmp_path / "m", mask(), files))
    reference = found.ReferencedSeriesSequence[0]
    assert reference.SeriesInstanceUID == sets[0].SeriesInstanceUID
    named = {item.ReferencedSOPInstanceUID for item in reference.ReferencedInstanceSequence}
    assert named == {data.SOPInstanceUID for data in sets}
    assert found.StudyInstanceUID == sets[0].StudyInstanceUID
    assert found.FrameOfReferenceUID == sets[0].FrameOfReferenceUID
    assert found.PatientID == "made-up"


def test_a_dicom_seg_lies_where_its_series_lies(tmp_path: Path) -> None:
    _, files = series(tmp_path / "ct")
    found = hd.seg.segread(segmented(tmp_path / "m", mask(), files))
    volume = found.get_volume(combine_segments=True)
    source = hd.get_volume_from_series([pydicom.dcmread(file) for file in files])
    np.testing.assert_allclose(volume.affine, source.affine)
    assert volume.spatial_shape == source.spatial_shape


def test_the_readers_get_back_the_class_indices(tmp_path: Path) -> None:
    sets, files = series(tmp_path / "ct")
    found = read_segmentation(segmented(tmp_path / "m", mask(), files), "m")
    for place, data in enumerate(sets):
        np.testing.assert_array_equal(found.at(data.SOPInstanceUID), mask()[place])


def test_segments_carry_the_names_of_the_classes_and_of_the_network(tmp_path: Path) -> None:
    _, files = series(tmp_path / "ct")
    found = hd.seg.segread(segmented(tmp_path / "m", mask(), files))
    described = [found.get_segment_description(number) for number in found.segment_numbers]
    assert [item.segment_label for item in described] == ["organ", "lesion"]
    assert described[0].algorithm_type == hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
    assert described[0].algorithm_identification.version == "unet 12ab"


@pytest.mark.parametrize("value", [0, 1, 2])
def test_a_mask_of_one_class_or_none_comes_back_too(
    tmp_path: Path, value: int, caplog: pytest.LogCaptureFixture
) -> None:
    sets, files = series(tmp_path / "ct")
    labels = np.where(mask() == 1, value, 0).astype(np.uint8)
    found = read_segmentation(segmented(tmp_path / "m", labels, files), "m")
    for place, data in enumerate(sets):
        np.testing.assert_array_equal(found.at(data.SOPInstanceUID), labels[place])
    assert caplog.records == []  # highdicom warns of empty masks; here they are no mistake


def test_a_file_of_several_frames_is_segmented_frame_by_frame(tmp_path: Path) -> None:
    sets, _ = series(tmp_path / "ct")
    for data in sets:
        data.ImageType, data.KVP, data.PatientPosition = ["ORIGINAL", "PRIMARY", "AXIAL"], 120, ""
        data.PositionReferenceIndicator, data.AcquisitionNumber = "", 1
        data.SoftwareVersions = data.DeviceSerialNumber = "1"
    enhanced = hd.legacy.LegacyConvertedEnhancedCTImage(sets, hd.UID(), 2, hd.UID(), 1)
    enhanced.save_as(tmp_path / "all.dcm")
    scan = read_scan(tmp_path / "all.dcm", SCALE)
    labels = np.zeros((3, 40, 40), np.uint8)
    labels[0, 4, 4] = 1
    found = hd.seg.segread(segmented(tmp_path / "m", labels, [tmp_path / "all.dcm"]))
    assert scan.origin is not None
    # The one frame that is not empty lies where the first slice of the scan lies.
    place = found.get_volume(combine_segments=True).affine[:3, 3]
    np.testing.assert_allclose(place, scan.origin)


def test_headers_without_the_names_that_may_be_empty_are_enough(tmp_path: Path) -> None:
    _, files = series(tmp_path / "ct")
    for file in files:
        data = pydicom.dcmread(file)
        del data.PatientBirthDate, data.PatientSex, data.StudyTime, data.AccessionNumber
        data.SpecificCharacterSet = ""
        data.save_as(file)
    found = hd.seg.segread(segmented(tmp_path / "m", mask(), files))
    assert found.PatientBirthDate == ""


def test_headers_without_positions_are_an_error_that_names_the_remedy(tmp_path: Path) -> None:
    _, files = series(tmp_path / "ct")
    for file in files:
        data = pydicom.dcmread(file)
        del data.ImagePositionPatient
        data.save_as(file)
    with pytest.raises(ValueError, match=r"m.dcm: found a series whose headers .*--format nifti"):
        segmented(tmp_path / "m", mask(), files)
    assert not (tmp_path / "m.dcm").exists()
