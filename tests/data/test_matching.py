from __future__ import annotations

import numpy as np
import pytest

from src.data import matching
from src.data.scans import ScanFile
from tests.data.conftest import (
    IMAGE_WORDS,
    MASK_WORDS,
    ct,
    kinds,
    organ,
    write_ct_picture,
    write_picture,
    write_segmentation,
    write_series,
    write_volume,
)


def matched(*paths: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Pairs of paths and kinds of findings for files of these names."""
    scans = [ScanFile(path, (path,), "volume") for path in paths]
    pairs, findings = matching.match(scans, image_words=IMAGE_WORDS, mask_words=MASK_WORDS)
    return [(image.path, mask.path) for image, mask in pairs], kinds(findings)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/P1/01.png", "masks/P1/01.png"),
        ("P1/CT_image.nii.gz", "P1/CT_mask.nii.gz"),
        ("P1.nii.gz", "P1_mask.nii.gz"),
        ("P1.nii.gz", "P1-SEG.nrrd"),
        ("img001.png", "mask001.png"),
        ("site a/images/p.1.png", "site a/labels/p.1.tif"),
        ("imagesTr/case_7.nii.gz", "labelsTr/case_7.nii.gz"),
        ("P1/scan/01.png", "P1/seg/01_gt.png"),
        ("P1/01.png", "masks/P1_01.png"),
        ("image.nii", "mask.nii"),
        ("Bilder/ä1.png", "Bilder/Ä1_Mask.png"),
    ],
)
def test_names_that_agree_but_for_role_words_match(image, mask):
    assert matched(image, mask) == ([(image, mask)], [])


def test_one_never_matches_eleven():
    pairs, problems = matched("images/1.png", "images/2.png", "masks/11.png", "masks/2.png")
    assert pairs == [("images/2.png", "masks/2.png")]
    assert problems == ["orphan-image", "orphan-mask"]


def test_a_word_inside_a_longer_word_is_no_role_word():
    assert matched("unmasked.png", "unmasked_mask.png")[0] == [
        ("unmasked.png", "unmasked_mask.png")
    ]


def test_the_same_file_names_in_several_folders_match_by_folder():
    names = [f"{role}/{site}/1.png" for role in ("images", "masks") for site in ("a", "b")]
    pairs, problems = matched(*names)
    assert pairs == [("images/a/1.png", "masks/a/1.png"), ("images/b/1.png", "masks/b/1.png")]
    assert problems == []


def test_a_name_inside_the_other_matches_with_a_warning():
    pairs, problems = matched(
        "imagesTr/liver_001_0000.nii.gz", "imagesTr/liver_002_0000.nii.gz",
        "labelsTr/liver_001.nii.gz", "labelsTr/liver_002.nii.gz",
    )  # fmt: skip
    assert pairs == [
        ("imagesTr/liver_001_0000.nii.gz", "labelsTr/liver_001.nii.gz"),
        ("imagesTr/liver_002_0000.nii.gz", "labelsTr/liver_002.nii.gz"),
    ]
    assert problems == ["matched-in-part", "matched-in-part"]


def test_two_channels_of_one_mask_are_ambiguous_and_named():
    scans = [
        ScanFile(path, (path,), "volume")
        for path in ("imagesTr/a_0000.nii", "imagesTr/a_0001.nii", "labelsTr/a.nii")
    ]
    pairs, (finding,) = matching.match(scans, image_words=IMAGE_WORDS, mask_words=MASK_WORDS)
    assert pairs == []
    assert (finding.kind, finding.severity) == ("ambiguous", "error")
    assert finding.paths == ("imagesTr/a_0000.nii", "imagesTr/a_0001.nii", "labelsTr/a.nii")
    assert "imagesTr/a_0001.nii" in finding.found


def test_masks_of_two_structures_for_one_image_are_ambiguous():
    assert matched("P1.nii", "P1_liver_mask.nii", "P1_spleen_mask.nii") == ([], ["ambiguous"])


def test_of_many_rivals_some_are_named_and_the_rest_counted():
    names = [f"masks/P1_{letter}_mask.nii" for letter in "abcdefg"]
    scans = [ScanFile(path, (path,), "volume") for path in ("images/P1.nii", *names)]
    _, findings = matching.match(scans, image_words=IMAGE_WORDS, mask_words=MASK_WORDS)
    (finding,) = [one for one in findings if one.kind == "ambiguous"]
    assert "7 masks (masks/P1_a_mask.nii, " in finding.found
    assert "masks/P1_d_mask.nii and 3 more) that fit" in finding.found
    assert set(finding.paths) >= set(names)


def test_two_masks_of_one_name_are_an_error():
    assert matched("P1.png", "P1_mask.png", "P1_seg.png") == ([], ["two-masks"])


def test_a_bare_number_does_not_match_across_folders():
    pairs, problems = matched("images/a1.png", "images/2.png", "masks/a1.png", "masks/P3/2.png")
    assert pairs == [("images/a1.png", "masks/a1.png")]
    assert problems == ["orphan-image", "orphan-mask"]


def test_images_without_any_mask_are_one_finding_that_names_the_words(build, tmp_path):
    write_ct_picture(tmp_path / "P1" / "1.png", 1)
    table, (finding,) = build()
    assert table.empty
    assert (finding.kind, finding.severity) == ("no-masks", "error")
    assert "labelsTr" in finding.expected


def test_masks_without_any_image_are_one_finding(build, tmp_path):
    write_picture(tmp_path / "seg-project" / "P1" / "1.png", organ()[0])
    _, (finding,) = build()
    assert (finding.kind, finding.severity) == ("no-images", "error")
    assert "rename the folder" in finding.remedy


def test_two_images_of_one_name_and_one_mask_are_ambiguous(build, tmp_path):
    for name in ("1.png", "1.tif"):
        write_ct_picture(tmp_path / "P1" / name, 1)
    write_picture(tmp_path / "P1" / "1_mask.png", organ()[0])
    table, (finding,) = build()
    assert table.empty
    assert finding.kind == "ambiguous"
    assert finding.paths == ("P1/1.png", "P1/1.tif", "P1/1_mask.png")


def test_a_dicom_series_matches_a_volume_by_its_folder(build, tmp_path):
    write_series(tmp_path / "P1" / "CT", ct(1, depth=2))
    place = {"spacing": (0.75, 0.5, 2.5), "origin": (1.0, 2.0, 0.0)}
    write_volume(tmp_path / "P1" / "mask.nii.gz", organ(depth=2), **place)
    write_series(tmp_path / "images" / "P2", ct(2, depth=2), name="b")
    write_volume(tmp_path / "masks" / "P2.nii.gz", organ(depth=2), **place)
    table, findings = build(source="dicom")
    assert findings == []
    assert table["case_id"].tolist() == ["P1/CT/00", "P1/CT/01", "images/P2/00", "images/P2/01"]
    assert table["patient"].tolist() == ["P1", "P1", "P2", "P2"]
    assert table["slice"].tolist() == [0, 1, 0, 1]
    assert set(table["source"]) == {"Acme Ring 1"}
    assert set(table["thickness_mm"]) == {2.5}


def test_dicom_slices_match_pictures_named_after_each(build, tmp_path):
    write_series(tmp_path / "P1", ct(1, depth=2), names=["01.dcm", "02.dcm"])
    for name in ("01", "02"):
        write_picture(tmp_path / "P1" / f"{name}_mask.png", organ()[0])
    table, findings = build()
    assert findings == []
    assert table["mask_path"].tolist() == ["P1/01_mask.png", "P1/02_mask.png"]
    assert table["slice"].tolist() == [0, 1]


def test_images_and_masks_of_one_dicom_series_number_are_told_apart(build, tmp_path):
    names = ["01.dcm", "02.dcm", "01_mask.dcm", "02_mask.dcm"]
    hu = np.concatenate([ct(1, depth=2), organ(depth=2)])
    write_series(tmp_path / "P1", hu, names=names, places=[0.0, 2.5, 0.0, 2.5])
    table, findings = build()
    assert table["mask_path"].tolist() == ["P1/01_mask.dcm", "P1/02_mask.dcm"]
    assert table["pixels_organ"].tolist() == [100, 100]
    assert kinds(findings) == ["slice-spacing"]


def test_a_dicom_seg_goes_to_the_series_it_references(build, tmp_path):
    for name in ("a", "b"):
        sets = write_series(tmp_path / f"series {name}", ct(1, depth=2), name=name, patient=name)
    segments = np.zeros((2, 40, 40, 1), bool)
    segments[1, :3, :3] = True
    write_segmentation(tmp_path / "drawn.dcm", sets, segments)
    table, findings = build(patient="dicom")
    assert table["image_path"].tolist() == ["series b/00.dcm", "series b/01.dcm"]
    assert table["pixels_organ"].tolist() == [0, 9]
    assert table["patient"].tolist() == ["b", "b"]
    assert kinds(findings) == ["orphan-image"]


def test_a_mask_among_the_files_of_a_series_leaves_the_others_a_series(build, tmp_path):
    names = ["1.dcm", "2.dcm", "old_mask.dcm"]
    sets = write_series(tmp_path / "P1", ct(1, depth=3), names=names)
    write_segmentation(tmp_path / "P1" / "drawn.dcm", sets[:2], np.ones((2, 40, 40, 1), bool))
    table, findings = build()
    assert table["image_path"].tolist() == ["P1/1.dcm", "P1/2.dcm"]
    assert [(f.kind, f.paths) for f in findings] == [("orphan-mask", ("P1/old_mask.dcm",))]


def test_a_dicom_seg_of_an_absent_series_is_an_orphan(build, tmp_path):
    sets = write_series(tmp_path / "gone", ct(1, depth=2), name="a")
    write_segmentation(tmp_path / "drawn.dcm", sets, np.ones((2, 40, 40, 1), bool))
    for file in (tmp_path / "gone").iterdir():
        file.unlink()
    write_ct_picture(tmp_path / "P1" / "1.png", 1)
    assert kinds(build()[1]) == ["orphan-mask", "orphan-image"]


def test_two_dicom_segs_of_one_series_are_an_error(build, tmp_path):
    sets = write_series(tmp_path / "CT", ct(1, depth=2))
    for name in ("one", "two"):
        write_segmentation(tmp_path / f"{name}.dcm", sets, np.ones((2, 40, 40, 1), bool))
    table, (finding,) = build()
    assert table.empty
    assert finding.kind == "two-masks"


def test_two_dicom_series_in_a_folder_with_one_mask_are_ambiguous(build, tmp_path):
    write_series(tmp_path / "P1" / "CT", ct(1, depth=2), name="a", names=["1.dcm", "2.dcm"])
    write_series(tmp_path / "P1" / "CT", ct(2, depth=2), name="b", names=["3.dcm", "4.dcm"])
    write_volume(tmp_path / "P1" / "mask.nii.gz", organ(depth=2))
    _, (finding,) = build()
    assert finding.kind == "ambiguous"
    assert finding.paths == ("P1/CT/1.dcm", "P1/CT/3.dcm", "P1/mask.nii.gz")
