from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from src.data.images import find_images, one_scan_each
from src.data.patients import Rules
from src.data.roles import Roles
from src.stages.scans import scans_of
from tests.data.conftest import (
    IMAGE_WORDS,
    MASK_WORDS,
    Build,
    ct,
    organ,
    write_ct_picture,
    write_picture,
    write_segmentation,
    write_series,
    write_volume,
)


def test_images_at_any_depth_are_found_and_masks_left_out_and_counted(tmp_path: Path) -> None:
    write_ct_picture(tmp_path / "a" / "b" / "c" / "1.png", 1)
    write_volume(tmp_path / "a" / "scan.nii.gz", ct(2, depth=3))
    write_series(tmp_path / "d" / "series", ct(3, depth=2))
    write_picture(tmp_path / "a" / "masks" / "1.png", organ()[0])
    write_volume(tmp_path / "a" / "scan_mask.nii.gz", organ(depth=3))
    found = find_images([tmp_path], MASK_WORDS)
    assert [scan.path for scan in found.scans] == ["a/b/c/1.png", "a/scan.nii.gz", "d/series"]
    assert found.stems == ["a/b/c/1", "a/scan", "d/series"]
    assert len(found.masks) == 2
    assert found.root == tmp_path


def test_a_dicom_seg_is_left_out_whatever_its_name(tmp_path: Path) -> None:
    sets = write_series(tmp_path / "ct", ct(1, depth=2))
    write_segmentation(tmp_path / "liver.dcm", sets, organ(depth=2)[..., np.newaxis])
    found = find_images([tmp_path], ())
    assert [scan.path for scan in found.scans] == ["ct"]
    assert len(found.masks) == 1


def test_masks_that_share_a_series_with_images_are_taken_out_of_it(tmp_path: Path) -> None:
    names = ["0.dcm", "0_mask.dcm", "1.dcm"]
    write_series(tmp_path / "ct", ct(1, depth=3), names=names)
    found = find_images([tmp_path], MASK_WORDS)
    assert found.scans[0].files == ("ct/0.dcm", "ct/1.dcm")
    assert len(found.masks) == 1


def test_an_image_that_shares_a_series_with_masks_alone_goes_by_its_own_name(
    tmp_path: Path,
) -> None:
    write_series(tmp_path / "ct", ct(1, depth=3), names=["1.dcm", "1_mask.dcm", "2_mask.dcm"])
    found = find_images([tmp_path], MASK_WORDS)
    assert [(scan.path, scan.files) for scan in found.scans] == [("ct/1.dcm", ("ct/1.dcm",))]
    assert (found.stems, len(found.masks)) == (["ct/1"], 2)


def test_files_of_one_name_and_two_formats_get_outputs_of_their_own(tmp_path: Path) -> None:
    write_ct_picture(tmp_path / "a.png", 1)
    write_ct_picture(tmp_path / "a.tif", 2)
    write_ct_picture(tmp_path / "b.png", 3)
    assert find_images([tmp_path], MASK_WORDS).stems == ["a.png", "a.tif", "b"]


def test_two_series_in_one_folder_get_outputs_of_their_own(tmp_path: Path) -> None:
    first = write_series(tmp_path / "study", ct(1, depth=2), name="a", names=["1", "2"])
    second = write_series(tmp_path / "study", ct(2, depth=2), name="b", names=["3", "4"])
    wanted = [f"study_{sets[0].SeriesInstanceUID}" for sets in (first, second)]
    assert sorted(find_images([tmp_path], MASK_WORDS).stems) == sorted(wanted)


def test_a_series_that_is_the_input_itself_goes_by_the_name_of_its_folder(tmp_path: Path) -> None:
    write_series(tmp_path / "thorax", ct(1, depth=2))
    assert find_images([tmp_path / "thorax"], MASK_WORDS).stems == ["thorax"]


def test_a_file_that_is_named_is_an_image_whatever_its_name(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "mask.nii.gz", ct(1, depth=2))
    found = find_images([path], MASK_WORDS)
    assert [scan.path for scan in found.scans] == ["mask.nii.gz"]
    assert found.stems == ["mask"]
    assert found.masks == []


def test_of_several_files_masks_are_left_out_and_slices_of_a_series_stay_together(
    tmp_path: Path,
) -> None:
    write_series(tmp_path / "in" / "ct", ct(1, depth=3), names=["0.dcm", "1.dcm", "2.dcm"])
    write_volume(tmp_path / "in" / "a.nii.gz", ct(2, depth=2))
    write_volume(tmp_path / "in" / "a_mask.nii.gz", organ(depth=2))
    write_volume(tmp_path / "in" / "unnamed.nii.gz", ct(3, depth=2))
    names = ("ct/0.dcm", "ct/1.dcm", "a.nii.gz", "a_mask.nii.gz", "a.nii.gz")
    found = find_images([tmp_path / "in" / name for name in names], MASK_WORDS)
    assert [scan.files for scan in found.scans] == [("a.nii.gz",), ("ct/0.dcm", "ct/1.dcm")]
    assert (found.root, len(found.masks), found.stems) == (tmp_path / "in", 1, ["a", "ct"])


def test_several_folders_keep_their_names_in_the_outputs(tmp_path: Path, monkeypatch) -> None:
    for folder in ("a", "b", "c"):
        write_ct_picture(tmp_path / folder / "1.png", 1)
    monkeypatch.chdir(tmp_path)
    found = find_images([Path("a"), Path("b"), Path("b/1.png")], MASK_WORDS)
    assert (found.root, found.stems) == (tmp_path, ["a/1", "b/1"])


def test_no_name_of_an_output_leads_upwards_whatever_the_inputs_are_called(
    tmp_path: Path, monkeypatch
) -> None:
    for folder in ("here/a", "there", "here"):
        write_ct_picture(tmp_path / folder / "1.png", 1)
    monkeypatch.chdir(tmp_path / "here")
    for sources in (["../there", "a"], ["a/../../there", tmp_path / "here/a"], ["..", "a/1.png"]):
        found = find_images([Path(source) for source in sources], MASK_WORDS)
        assert found.root == tmp_path
        assert {"there/1", "here/a/1"} <= set(found.stems)
        assert len(found.stems) == len(set(found.stems)) <= 3


def test_an_input_that_is_a_link_keeps_its_name(tmp_path: Path) -> None:
    kept = write_ct_picture(tmp_path / "cache" / "3f9c.png", 1)
    (tmp_path / "in").mkdir()
    for name in ("1.png", "2.png"):
        (tmp_path / "in" / name).symlink_to(kept)
    found = find_images([tmp_path / "in" / "1.png", tmp_path / "in" / "2.png"], MASK_WORDS)
    assert (found.root, found.stems) == (tmp_path / "in", ["1", "2"])


def test_a_folder_of_masks_alone_is_an_error_that_names_the_words(tmp_path: Path) -> None:
    write_picture(tmp_path / "masks" / "1.png", organ()[0])
    with pytest.raises(ValueError, match=r"found 1 mask and no image.*data.mask_words"):
        find_images([tmp_path], MASK_WORDS)


def test_a_path_where_nothing_is_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        find_images([tmp_path / "nowhere"], MASK_WORDS)


# --- Which images are one scan --------------------------------------------------------------------


def write_pages(path: Path, array: np.ndarray) -> None:
    """A picture, of several pages where that is a TIFF: labels, or HU."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = array if array.dtype == np.uint8 else (array + 1024).astype(np.uint16)
    assert cv2.imwritemulti(str(path), [*values])


def write_mixture(root: Path) -> None:
    """Single slices of every kind, in folders of their own and beside what has several slices."""

    def both(folder: str, name: str, write: Callable[[Path, np.ndarray], Any], depth: int) -> None:
        seed = sum(f"{folder}/{name}".encode())
        write(root / "images" / folder / name, ct(seed, depth=depth))
        write(root / "masks" / folder / name, organ(depth=depth))

    for place in (10, 9, 1, 2):
        both("P1", f"{place}.png", write_pages, 1)
        both("P1/later", f"{place}.nii.gz", write_volume, 1)
        both("P2", f"b_{place}.tif", write_pages, 1)
    for name in ("a.tif", "z.tif"):
        both("P2", name, write_pages, 3)
    for name in ("3.mha", "5.nrrd"):
        both("P3", name, write_volume, 2)
    for name in ("4.mha", "1.nrrd"):
        both("P3", name, write_volume, 1)
    for name in ("a", "b"):
        files = [f"{name}{number}.dcm" for number in (3, 1, 2)]
        sets = write_series(root / "images" / "P4", ct(sum(name.encode()), depth=3), name=name,
                            names=files)  # fmt: skip
        write_segmentation(root / "masks" / f"{name}.dcm", sets, organ(depth=3)[..., np.newaxis])


# The last one tells files of a folder apart: 1.png and 10.png are of patient 1, 2.png is of 2.
@pytest.mark.parametrize(
    "rule", [None, "^images/(?P<patient>P[0-9])/", "(?P<patient>[0-9a-z])[0-9_]*[.][a-z.]+$"]
)
def test_images_are_one_scan_where_they_are_in_the_case_table(
    tmp_path: Path, build: Build, rule: str | None
) -> None:
    write_mixture(tmp_path)
    table, _ = build(patient=rule)
    # A file of several slices stands in a row for each.
    scored = [list(dict.fromkeys(row.image_path for row in scan)) for scan in scans_of(table)]
    found = find_images([tmp_path / "images"], MASK_WORDS)
    rules = Rules(rule, None, Roles(IMAGE_WORDS, MASK_WORDS))
    stacks, _ = one_scan_each(found, rules, tmp_path)
    assert sorted(number for stack in stacks for number in stack) == [*range(len(found.scans))]
    predicted = [
        [f"images/{file}" for number in stack for file in found.scans[number].files]
        for stack in stacks
    ]
    assert sorted(predicted) == sorted(scored)


def test_pictures_that_no_folder_names_are_one_scan_and_several_pages_one_each(
    tmp_path: Path,
) -> None:
    for place in (10, 9, 1):
        write_ct_picture(tmp_path / f"{place}.png", place)
    write_pages(tmp_path / "2.tif", ct(2, depth=3))
    found = find_images([tmp_path], MASK_WORDS)
    stacks, unnamed = one_scan_each(found, Rules(None, None, Roles((), ())), tmp_path / "data")
    paths = [[found.scans[number].path for number in stack] for stack in stacks]
    assert paths == [["1.png", "9.png", "10.png"], ["2.tif"]]
    assert unnamed == []


def test_a_file_that_cannot_be_opened_is_a_slice_of_its_folder(tmp_path: Path) -> None:
    write_ct_picture(tmp_path / "1.png", 1)
    for name in ("2.png", "3.tif", "4.nii.gz"):
        (tmp_path / name).symlink_to("nowhere")
    (tmp_path / "5.tif").write_bytes(b"II*\0")
    (tmp_path / "6.mha").write_bytes(b"")
    found = find_images([tmp_path], MASK_WORDS)
    stacks, _ = one_scan_each(found, Rules(None, None, Roles((), ())), tmp_path / "data")
    assert stacks == [[0, 1, 2, 3, 4, 5]]
