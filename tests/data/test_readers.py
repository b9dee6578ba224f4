from __future__ import annotations

import errno
import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from src.data import dicom, readers, volumes
from src.data.masks import class_indices
from src.data.scans import unreadable
from src.label_values import COLOUR
from tests.data.conftest import (
    SCALE,
    ct,
    organ,
    write_picture,
    write_segmentation,
    write_series,
    write_volume,
)

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data beside the project")


def image(root: Path, path: str, place: int = 0) -> np.ndarray:
    return readers.read_image_slice(root, path, place, SCALE)


def mask(root: Path, path: str, place: int = 0, of: str = "") -> np.ndarray:
    return readers.read_mask_slice(root, path, place, of)


def test_a_16_bit_picture_becomes_hu_by_slope_and_intercept(tmp_path):
    write_picture(tmp_path / "a.png", np.array([[0, 1024], [1064, 4095]], np.uint16))
    scale = readers.PictureScale(2.0, -1024.0, (1.0, 1.0), 1.0)
    # 2 * 1064 - 1024 = 1104; 2 * 4095 - 1024 = 7166
    expected = np.array([[-1024, 1024], [1104, 7166]], np.float32)
    found = readers.read_image_slice(tmp_path, "a.png", 0, scale)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg"])
def test_every_kind_of_picture_is_read(tmp_path, suffix):
    write_picture(tmp_path / f"a{suffix}", np.full((8, 8), 100, np.uint8))
    np.testing.assert_array_equal(image(tmp_path, f"a{suffix}"), np.full((8, 8), 100 - 1024))


def test_a_tiff_of_several_pages_is_a_stack(tmp_path):
    pages = [np.full((4, 5), 1024 + page, np.uint16) for page in range(3)]
    assert cv2.imwritemulti(str(tmp_path / "a.tif"), pages)
    scan = readers.read_scan(tmp_path / "a.tif", SCALE)
    assert scan.array.shape == (3, 4, 5)
    assert scan.spacing_mm == (5.0, 0.5, 0.75)
    assert image(tmp_path, "a.tif", 2)[0, 0] == 2.0


def test_a_tiff_whose_pages_differ_in_size_is_an_error(tmp_path):
    cv2.imwritemulti(
        str(tmp_path / "a.tif"), [np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8)]
    )
    with pytest.raises(ValueError, match=r"a\.tif: found pages of different sizes"):
        image(tmp_path, "a.tif")


def test_a_colour_picture_is_no_image(tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[0, 0] = (0, 0, 255)
    write_picture(tmp_path / "a.png", picture)
    with pytest.raises(ValueError, match=r"a\.png: found a colour image"):
        image(tmp_path, "a.png")


def test_a_colour_picture_of_equal_channels_is_grey(tmp_path):
    write_picture(tmp_path / "a.png", np.full((4, 4, 4), 7, np.uint8))
    assert image(tmp_path, "a.png")[0, 0] == 7 - 1024


def test_a_colour_mask_is_packed_red_green_blue(tmp_path):
    picture = np.zeros((2, 2, 4), np.uint8)
    picture[..., 3] = 255  # opaque
    picture[0, 1] = (3, 2, 1, 255)  # OpenCV writes blue, green, red
    picture[1, 1] = (9, 9, 9, 255)
    write_picture(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(mask(tmp_path, "a.png"), [[0, COLOUR + 0x010203], [0, 9]])


def test_an_empty_page_of_colour_masks_is_no_other_class(tmp_path):
    labels, classes = {"#ffffff": "background", "#0000ff": "organ"}, ("background", "organ")
    picture = np.full((2, 2, 3), 255, np.uint8)
    write_picture(tmp_path / "empty.png", picture)
    picture[0, 1] = (255, 0, 0)  # OpenCV writes blue, green, red
    write_picture(tmp_path / "drawn.png", picture)
    found = [class_indices(mask(tmp_path, name), labels, classes).tolist()
             for name in ("empty.png", "drawn.png")]  # fmt: skip
    assert found == [[[0, 0], [0, 0]], [[0, 1], [0, 0]]]


@pytest.mark.parametrize("value", [COLOUR + 255, -(2**31) - 1])
def test_a_label_value_that_is_no_grey_value_is_an_error(tmp_path, value):
    write_volume(tmp_path / "a.nrrd", np.full((1, 2, 2), value, np.int64))
    with pytest.raises(ValueError, match=r"a\.nrrd: found values from .*to 16777215\. Export"):
        mask(tmp_path, "a.nrrd")


def test_a_colour_mask_of_16_bits_is_an_error(tmp_path):
    picture = np.zeros((2, 2, 3), np.uint16)
    picture[0, 0] = (1, 2, 300)
    write_picture(tmp_path / "a.png", picture)
    with pytest.raises(ValueError, match=r"a\.png: found a colour mask of type uint16"):
        mask(tmp_path, "a.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.97])
def test_a_picture_that_is_cut_off_is_an_error_that_names_it(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    whole = write_picture(tmp_path / f"whole{suffix}", noise).read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=rf"a\{suffix}: found .*, expected a whole picture\. Copy"):
        image(tmp_path, f"a{suffix}")


def test_a_tiff_with_its_directory_in_front_is_found_cut_off(tmp_path):
    # Little-endian: 8 bytes of head, a directory of 9 entries, then 64 x 64 bytes in one strip.
    entries = [(256, 3, 64), (257, 3, 64), (258, 3, 8), (259, 3, 1), (262, 3, 1),
               (273, 4, 8 + 2 + 9 * 12 + 4), (277, 3, 1), (278, 3, 64), (279, 4, 4096)]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    head += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    whole = head + struct.pack("<I", 0) + bytes(range(64)) * 64
    (tmp_path / "a.tif").write_bytes(whole)
    assert image(tmp_path, "a.tif")[0, 63] == 63 - 1024
    (tmp_path / "b.tif").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"b\.tif: found a TIFF of 4217 bytes that needs 4218"):
        image(tmp_path, "b.tif")


def test_a_stack_that_lost_its_last_pages_is_an_error(tmp_path):
    noise = np.random.default_rng(0).integers(0, 60_000, (3, 32, 32), dtype=np.uint16)
    cv2.imwritemulti(str(tmp_path / "whole.tif"), list(noise))
    whole = (tmp_path / "whole.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: int(len(whole) * 0.6)])
    with pytest.raises(ValueError, match=r"a\.tif: found a file that ends early"):
        image(tmp_path, "a.tif")


def test_a_png_with_one_changed_byte_is_an_error(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    content = bytearray(write_picture(tmp_path / "a.png", noise).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png: found a PNG with a damaged IDAT block"):
        image(tmp_path, "a.png")


def test_a_text_file_named_png_is_an_error(tmp_path):
    (tmp_path / "a.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"a\.png: found the bytes of another format"):
        image(tmp_path, "a.png")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"])
def test_a_volume_keeps_depth_spacing_and_place(tmp_path, suffix):
    hu = ct(1, depth=3)[:, :20, :30]
    write_volume(tmp_path / f"a{suffix}", hu)
    scan = readers.read_scan(tmp_path / f"a{suffix}", SCALE)
    np.testing.assert_array_equal(scan.array, hu)
    assert scan.spacing_mm == pytest.approx((3.0, 0.75, 0.5))
    assert scan.origin == pytest.approx((10.0, 20.0, 30.0))
    assert scan.stored_dtype == "int16"
    np.testing.assert_array_equal(image(tmp_path, f"a{suffix}", 1), hu[1])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_a_volume_that_is_cut_off_is_an_error_that_names_it(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(-1000, 1000, (6, 40, 40)).astype(np.int16)
    whole = write_volume(tmp_path / f"whole{suffix}", noise).read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=rf"a\{suffix}: found .*, expected a whole volume"):
        image(tmp_path, f"a{suffix}")


def test_a_nifti_packed_in_two_parts_is_whole(tmp_path):
    plain = write_volume(tmp_path / "a.nii", ct(1, depth=2)).read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(plain[:1000]) + gzip.compress(plain[1000:]))
    np.testing.assert_array_equal(readers.read_scan(tmp_path / "b.nii.gz", SCALE).array[1],
                                  ct(1, depth=2)[1])  # fmt: skip


def test_a_volume_in_time_is_an_error(tmp_path):
    write_volume(tmp_path / "a.nii", np.zeros((2, 3, 4, 5), np.int16),
                 spacing=(1, 1, 1, 1), origin=(0, 0, 0, 0))  # fmt: skip
    with pytest.raises(ValueError, match=r"a\.nii: found size \(5, 4, 3, 2\)"):
        image(tmp_path, "a.nii")


def test_a_slice_that_the_file_lacks_is_an_error(tmp_path):
    write_volume(tmp_path / "a.nii", ct(1, depth=3))
    with pytest.raises(ValueError, match=r"a\.nii: found 3 slices, expected slice 3"):
        image(tmp_path, "a.nii", 3)


def test_a_mask_volume_of_whole_floats_becomes_integers(tmp_path):
    write_volume(tmp_path / "a.nii.gz", organ(depth=2, value=2).astype(np.float64))
    found = mask(tmp_path, "a.nii.gz", 1)
    assert found.dtype == np.int32
    assert np.bincount(found.ravel()).tolist() == [1500, 0, 100]


def test_a_mask_with_fractions_is_an_error(tmp_path):
    write_volume(tmp_path / "a.nii.gz", organ(depth=2).astype(np.float32) * 0.5)
    with pytest.raises(ValueError, match=r"a\.nii\.gz: found the value 0\.5 in a mask"):
        mask(tmp_path, "a.nii.gz")


def test_a_mask_beyond_32_bits_is_an_error(tmp_path):
    write_volume(tmp_path / "a.nii.gz", organ(depth=2).astype(np.float64) * 2.0**40)
    with pytest.raises(ValueError, match=r"a\.nii\.gz: found values from 0\.0 to 1099511627776\.0"):
        mask(tmp_path, "a.nii.gz")


def test_slices_in_order_open_a_volume_once(tmp_path, monkeypatch):
    write_volume(tmp_path / "a.nii.gz", ct(1, depth=5))
    write_volume(tmp_path / "a_mask.nii.gz", organ(depth=5))
    opened = []
    read = volumes.read_volume
    monkeypatch.setattr(
        volumes, "read_volume", lambda path, name: opened.append(name) or read(path, name)
    )
    for place in range(5):
        image(tmp_path, "a.nii.gz", place)
        mask(tmp_path, "a_mask.nii.gz", place)
    assert sorted(opened) == ["a.nii.gz", "a_mask.nii.gz"]


def test_a_file_that_was_replaced_is_read_again(tmp_path):
    write_volume(tmp_path / "a.nii", ct(1, depth=2))
    image(tmp_path, "a.nii")
    write_volume(tmp_path / "a.nii", ct(2, depth=3))
    np.testing.assert_array_equal(image(tmp_path, "a.nii", 1), ct(2, depth=3)[1])


def test_a_caller_cannot_change_what_the_next_one_gets(tmp_path):
    write_volume(tmp_path / "a.nii", organ(depth=2))
    mask(tmp_path, "a.nii", 0)[:] = 9
    assert mask(tmp_path, "a.nii", 0).max() == 1


def test_a_dicom_series_is_one_scan_in_the_order_of_the_normal(tmp_path):
    hu = ct(1, depth=3)
    write_series(tmp_path / "P1" / "CT", hu, names=["c", "a", "b"])  # no suffix, names shuffled
    (scan,), findings = readers.list_scans(tmp_path)
    assert findings == []
    assert (scan.path, scan.kind, scan.patient) == ("P1/CT", "dicom", "made-up")
    assert scan.files == ("P1/CT/c", "P1/CT/a", "P1/CT/b")
    order = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "P1" / "CT"))
    assert [Path(file).name for file in order] == ["c", "a", "b"]
    whole = readers.read_scan(scan, SCALE, root=tmp_path)
    np.testing.assert_array_equal(whole.array, hu)  # 1 * stored - 1024, of the file, not of SCALE
    assert whole.spacing_mm == pytest.approx((2.5, 0.5, 0.75))
    assert whole.stored_dtype == "uint16"
    np.testing.assert_array_equal(image(tmp_path, "P1/CT/a", 1), hu[1])
    np.testing.assert_array_equal(readers.read_scan(tmp_path / "P1" / "CT", SCALE).array, hu)


def test_two_series_in_a_folder_are_two_scans(tmp_path):
    write_series(tmp_path / "P1", ct(1, depth=2), name="a", names=["1.dcm", "2.dcm"])
    write_series(tmp_path / "P1", ct(2, depth=2), name="b", names=["3.dcm", "4.dcm"])
    scans, _ = readers.list_scans(tmp_path)
    assert [scan.files for scan in scans] == [("P1/1.dcm", "P1/2.dcm"), ("P1/3.dcm", "P1/4.dcm")]
    with pytest.raises(ValueError, match="found 2 DICOM series in the folder, expected one"):
        readers.read_scan(tmp_path / "P1", SCALE)


@pytest.mark.parametrize(
    ("places", "found"),
    [
        ([0.0, 2.5, 7.5, 10.0], "distances of neighbouring slices from 2.5 to 5 mm"),
        ([0.0, 2.5, 2.5, 5.0], "1 slice at the place of another one"),
    ],
)
def test_a_series_with_a_missing_or_doubled_slice_is_told(tmp_path, places, found):
    write_series(tmp_path / "P1", ct(1, depth=4), places=places)
    _, (finding,) = readers.list_scans(tmp_path)
    assert (finding.kind, finding.severity, finding.found) == ("slice-spacing", "warning", found)


def test_a_series_of_slices_of_two_sizes_is_an_error(tmp_path):
    write_series(tmp_path / "P1", ct(1, depth=2))
    write_series(tmp_path / "P1", ct(1, size=20), names=["9.dcm"], places=[9.0])
    (scan,), _ = readers.list_scans(tmp_path)
    with pytest.raises(ValueError, match=r"P1/9\.dcm: found a slice of \(20, 20\) in a series of"):
        readers.read_scan(scan, SCALE, root=tmp_path)


def test_a_dicom_file_that_is_cut_off_is_an_error_that_names_it(tmp_path):
    write_series(tmp_path, ct(1))
    whole = (tmp_path / "00.dcm").read_bytes()
    (tmp_path / "00.dcm").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"00\.dcm: found a damaged, cut off or foreign file"):
        image(tmp_path, "00.dcm")
    (tmp_path / "00.dcm").write_bytes(whole[:300])
    _, (finding,) = readers.list_scans(tmp_path)
    assert (finding.kind, finding.paths) == ("unreadable", ("00.dcm",))
    assert finding.found == "no complete DICOM header"


@pytest.mark.parametrize(
    ("path", "found"),
    [("P1/02.dcm", "input/output error"), ("P1", "input/output error at 02.dcm")],
    ids=["a file", "a series"],
)
def test_what_the_system_refuses_is_told_without_where_the_data_lie(path, found):
    error = OSError(errno.EIO, "Input/output error", "/home/anna/data/P1/02.dcm")
    finding = unreadable(path, error)
    assert (finding.paths, finding.found) == ((path,), found)
    assert "anna" not in str(finding)


@pytest.mark.parametrize("size", [142, 154])
def test_a_dicom_file_that_is_cut_off_within_an_element_is_an_error_that_names_it(tmp_path, size):
    # After 142 bytes of the first element's number of 4 bytes 2 are there; after 154, of the
    # second's length 2 of 4. pydicom has an error of its own for the one, struct for the other.
    write_series(tmp_path, ct(1))
    (tmp_path / "00.dcm").write_bytes((tmp_path / "00.dcm").read_bytes()[:size])
    _, (finding,) = readers.list_scans(tmp_path)
    assert (finding.kind, finding.paths) == ("unreadable", ("00.dcm",))
    assert finding.found.startswith("a damaged DICOM header")


def test_a_dicom_file_that_the_system_refuses_is_not_said_to_be_damaged(tmp_path):
    (tmp_path / "a.dcm").symlink_to("a.dcm")  # a link to itself
    with pytest.raises(OSError, match="symbolic links"):
        dicom.read_header(tmp_path / "a.dcm", "a.dcm")
    with pytest.raises(OSError, match="symbolic links"):
        dicom.read_segmentation(tmp_path / "a.dcm", "a.dcm")
    _, (finding,) = readers.list_scans(tmp_path)
    assert "symbolic links" in finding.found
    assert "that you may read it" in finding.remedy


def test_a_dicom_seg_is_laid_over_its_slices_and_zero_elsewhere(tmp_path):
    sets = write_series(tmp_path / "CT", ct(1, depth=3))
    segments = np.zeros((2, 40, 40, 2), bool)
    segments[0, :2, :5, 0] = True  # 10 pixels of segment 1 on the second slice
    segments[1, 5:8, :4, 1] = True  # 12 pixels of segment 2 on the third
    write_segmentation(tmp_path / "seg.dcm", sets[1:], segments)
    counts = [
        np.bincount(mask(tmp_path, "seg.dcm", 0, f"CT/0{place}.dcm").ravel(), minlength=3)
        for place in range(3)
    ]
    assert [count.tolist() for count in counts] == [[1600, 0, 0], [1590, 10, 0], [1588, 0, 12]]
    scans, _ = readers.list_scans(tmp_path)
    series, drawn = scans
    assert drawn.references == (series.series,)
    whole = readers.read_mask(drawn, SCALE, root=tmp_path, image=series)
    assert whole.array.sum(axis=(1, 2)).tolist() == [0, 10, 24]


def test_a_dicom_seg_drawn_on_slices_that_the_series_lacks_is_an_error(tmp_path):
    sets = write_series(tmp_path / "CT", ct(1, depth=3))
    segments = np.zeros((3, 40, 40, 1), bool)
    segments[1:, 5, 5] = True  # nothing on the first slice
    write_segmentation(tmp_path / "seg.dcm", sets, segments)
    (tmp_path / "CT" / "00.dcm").unlink()
    series, drawn = readers.list_scans(tmp_path)[0]
    whole = readers.read_mask(drawn, SCALE, root=tmp_path, image=series)
    assert whole.array.sum(axis=(1, 2)).tolist() == [1, 1]
    (tmp_path / "CT" / "02.dcm").unlink()
    series, drawn = readers.list_scans(tmp_path)[0]
    with pytest.raises(ValueError, match=r"seg\.dcm: found segments on 1 slice that the series la"):
        readers.read_mask(drawn, SCALE, root=tmp_path, image=series)


def test_overlapping_segments_are_an_error(tmp_path):
    sets = write_series(tmp_path / "CT", ct(1, depth=2))
    write_segmentation(tmp_path / "seg.dcm", sets, np.ones((2, 40, 40, 2), bool))
    with pytest.raises(ValueError, match=r"seg\.dcm: found overlapping segments"):
        mask(tmp_path, "seg.dcm", 0, "CT/00.dcm")


def drawn(root: Path, change: Callable[[Any], None]) -> Path:
    """A DICOM SEG of two slices whose header was changed."""
    sets = write_series(root / "CT", ct(1, depth=2))
    path = write_segmentation(root / "seg.dcm", sets, np.ones((2, 40, 40, 1), bool))
    segmentation = pydicom.dcmread(path)
    change(segmentation)
    segmentation.save_as(path)
    return path


def without_sources(segmentation: Any) -> None:
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        del frame.DerivationImageSequence


def test_a_segmentation_that_cannot_be_read_is_not_said_to_overlap(tmp_path):
    path = drawn(tmp_path, without_sources)
    with pytest.raises(ValueError, match=r"s: found a DICOM SEG that cannot be laid over its im"):
        dicom.read_segmentation(path, "s")
    rows = b"\x28\x00\x10\x00"  # the tag, before the type of its value
    path = drawn(tmp_path, lambda segmentation: None)
    path.write_bytes(path.read_bytes().replace(rows + b"US", rows + b"ZZ"))
    with pytest.raises(ValueError, match=r"s: found a DICOM SEG that cannot be laid over its im"):
        dicom.read_segmentation(path, "s")


def with_a_slice_that_is_not_listed(segmentation: Any) -> None:
    del segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence[1]


def with_a_frame_without_its_slice(segmentation: Any) -> None:
    del segmentation.PerFrameFunctionalGroupsSequence[1].DerivationImageSequence


@pytest.mark.parametrize(
    ("change", "listed"),
    [(with_a_slice_that_is_not_listed, 1), (with_a_frame_without_its_slice, 2)],
)
def test_a_segmentation_with_a_frame_of_an_unknown_slice_is_an_error(tmp_path, change, listed):
    path = drawn(tmp_path, change)
    found = rf"s: found 1 frame of a DICOM SEG whose slice is not among the {listed} that it lists"
    with pytest.raises(ValueError, match=found):
        dicom.read_segmentation(path, "s")


def test_a_segmentation_is_no_image(tmp_path):
    sets = write_series(tmp_path / "CT", ct(1, depth=2))
    write_segmentation(tmp_path / "seg.dcm", sets, np.ones((2, 40, 40, 1), bool))
    with pytest.raises(ValueError, match=r"seg\.dcm: found a DICOM SEG, expected an image"):
        readers.read_scan(tmp_path / "seg.dcm", SCALE)


def test_notes_and_hidden_files_are_passed_and_unknown_ones_reported(tmp_path):
    for name in ("notes.txt", "table.csv", ".hidden", "a.dvc", "LICENSE", "x.json", ".git/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "array.npy").write_bytes(b"\x93NUMPY")
    scans, (finding,) = readers.list_scans(tmp_path)
    assert scans == []
    assert (finding.kind, finding.severity) == ("unknown-file", "warning")
    assert finding.paths == ("array.npy",)


def test_detached_pixels_belong_to_their_head_and_are_reported_without_one(tmp_path):
    write_volume(tmp_path / "a.mhd", ct(1, depth=2))
    (tmp_path / "b.raw").write_bytes(b"pixels")
    (scan,), (finding,) = readers.list_scans(tmp_path)
    assert (scan.path, finding.paths) == ("a.mhd", ("b.raw",))


def test_a_dicom_file_without_pixels_is_reported(tmp_path):
    (data,) = write_series(tmp_path, ct(1))
    for tag in ("Rows", "Columns", "PixelData"):
        delattr(data, tag)
    data.Modality = "RTSTRUCT"
    data.save_as(tmp_path / "00.dcm", enforce_file_format=True)
    _, (finding,) = readers.list_scans(tmp_path)
    assert finding.found == "a DICOM file without pixels (RTSTRUCT)"


def test_links_in_a_circle_end(tmp_path):
    write_picture(tmp_path / "a" / "1.png", organ()[0])
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    scans, _ = readers.list_scans(tmp_path)
    assert [scan.path for scan in scans] == ["a/1.png"]


def test_a_missing_folder_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder.*python -m src\.ingest"):
        readers.list_scans(tmp_path / "none")


@pytest.mark.parametrize("name", ["none.png", "none.nii.gz"])
def test_a_missing_file_is_an_error(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        readers.read_scan(tmp_path / name, SCALE)


def test_an_unknown_format_is_an_error(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match=r"a\.npy: found a file of an unknown format"):
        readers.read_scan(tmp_path / "a.npy", SCALE)


@needs_real
def test_the_real_dicom_seg_lies_on_the_liver():
    root = REAL / "dicom-seg"
    found = [
        (image(root, f"ct-3slice/0{n}.dcm"), mask(root, "liver.dcm", 0, f"ct-3slice/0{n}.dcm"))
        for n in (1, 2, 3)
    ]
    assert [int(drawn.sum()) for _, drawn in found] == [35220, 35645, 36233]
    for hu, drawn in found:  # liver lies at about 40 HU; a mask on the wrong slice would not
        assert 20 < hu[drawn == 1].mean() < 60
