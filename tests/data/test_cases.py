from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import numpy as np
import pytest

from src.data import matching
from src.data.cases import mask_hash, read_cases, slice_hash, write_cases
from src.data.patients import pseudonyms
from src.data.scans import ScanFile
from tests.data.conftest import (
    IMAGE_WORDS,
    MASK_WORDS,
    SCALE,
    add_patient,
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


def test_an_empty_folder_is_one_finding(build):
    _, (finding,) = build()
    assert (finding.kind, finding.found) == ("no-images", "no file that can be read")


def test_the_table_holds_a_row_per_slice(build, tmp_path):
    add_patient(tmp_path, "007", 1)
    write_volume(tmp_path / "P1" / "scan.nii.gz", ct(5, depth=2))
    write_volume(tmp_path / "P1" / "mask.nii.gz", organ(depth=2))
    table, findings = build(source="^(?P<source>[^/]+)/")
    assert findings == []
    assert table["case_id"].tolist() == [
        "P1/scan#000", "P1/scan#001", "images/007/0", "images/007/1",
    ]  # fmt: skip
    assert table["patient"].tolist() == ["P1", "P1", "007", "007"]
    assert table["source"].tolist() == ["P1", "P1", "images", "images"]
    row = table.iloc[1]
    assert (row["image_path"], row["mask_path"]) == ("P1/scan.nii.gz", "P1/mask.nii.gz")
    assert (row["slice"], row["height"], row["width"]) == (1, 40, 40)
    assert (row["spacing_y_mm"], row["spacing_x_mm"], row["thickness_mm"]) == (0.75, 0.5, 3.0)
    assert (row["pixels_background"], row["pixels_organ"]) == (1500, 100)  # 40 * 40 - 10 * 10
    assert row["case_pseudonym"] == row["pseudonym"] + "/001"
    assert row["sha256_image"] == slice_hash(ct(5, depth=2)[1].astype(np.float32))
    row = table.iloc[2]
    assert (row["spacing_y_mm"], row["spacing_x_mm"], row["thickness_mm"]) == (0.5, 0.75, 5.0)
    assert row["hu_min"] == -1000.0


def test_two_images_of_one_name_and_one_mask_are_ambiguous(build, tmp_path):
    for name in ("1.png", "1.tif"):
        write_ct_picture(tmp_path / "P1" / name, 1)
    write_picture(tmp_path / "P1" / "1_mask.png", organ()[0])
    table, (finding,) = build()
    assert table.empty
    assert finding.kind == "ambiguous"
    assert finding.paths == ("P1/1.png", "P1/1.tif", "P1/1_mask.png")


def test_two_images_that_differ_in_suffix_alone_keep_different_ids(build, tmp_path):
    write_series(tmp_path / "P1" / "CT", ct(1, depth=2))
    write_volume(tmp_path / "P1" / "mask.nii.gz", organ(depth=2),
                 spacing=(0.75, 0.5, 2.5), origin=(1.0, 2.0, 0.0))  # fmt: skip
    write_ct_picture(tmp_path / "P1" / "CT" / "00.png", 2)
    write_picture(tmp_path / "P1" / "CT" / "00_mask.png", organ()[0])
    table, findings = build()
    assert findings == []
    assert table["case_id"].tolist() == ["P1/CT/00.dcm", "P1/CT/00.png", "P1/CT/01"]


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


def test_a_volume_without_a_folder_is_a_patient_by_its_stem(build, tmp_path):
    for name in ("a", "b"):
        write_volume(tmp_path / "images" / f"{name}.nii.gz", ct(1, depth=2))
        write_volume(tmp_path / "masks" / f"{name}.nii.gz", organ(depth=2))
    assert build()[0]["patient"].tolist() == ["a", "a", "b", "b"]


def test_a_picture_without_a_patients_folder_is_an_error(build, tmp_path):
    write_ct_picture(tmp_path / "images" / "1.png", 1)
    write_picture(tmp_path / "masks" / "1.png", organ()[0])
    table, (finding,) = build()
    assert table.empty
    assert (finding.kind, finding.severity) == ("patient-unknown", "error")
    assert "data.patient" in finding.remedy


def test_a_rule_tells_the_patient_and_a_path_it_does_not_fit_is_an_error(build, tmp_path):
    for name in ("p1_7", "p2_7", "odd"):
        write_ct_picture(tmp_path / "images" / f"{name}.png", 1)
        write_picture(tmp_path / "masks" / f"{name}.png", organ()[0])
    table, (finding,) = build(patient=r"images/(?P<patient>p\d+)_")
    assert table["patient"].tolist() == ["p1", "p2"]
    assert (finding.kind, finding.severity) == ("patient-unknown", "error")
    assert finding.paths == ("images/odd.png",)


def test_a_source_that_the_rule_does_not_tell_is_an_error(build, tmp_path):
    add_patient(tmp_path, "P1", 1)
    _, findings = build(source="(?P<source>scanner_[a-z])/")
    assert {(f.kind, f.severity) for f in findings} == {("source-unknown", "error")}
    _, findings = build(source="dicom")
    assert findings[0].found == "nothing about it in a DICOM header"


def test_a_rule_without_its_group_is_refused(build):
    with pytest.raises(ValueError, match=r"data\.patient: found '\^a', expected a group named"):
        build(patient="^a")


def test_several_volumes_in_a_patients_folder_are_a_warning(build, tmp_path):
    for name in ("a", "b"):
        write_volume(tmp_path / "site" / "images" / f"{name}.nii.gz", ct(1, depth=2))
        write_volume(tmp_path / "site" / "masks" / f"{name}.nii.gz", organ(depth=2))
    table, (finding,) = build()
    assert table["patient"].unique().tolist() == ["site"]
    assert (finding.kind, finding.severity) == ("many-scans", "warning")


def test_the_table_is_the_same_for_any_number_of_workers(build, tmp_path):
    for seed in range(1, 5):
        add_patient(tmp_path, f"P{seed}", seed)
    one, many = build(workers=1), build(workers=4)
    assert one[0].equals(many[0])
    assert one[1] == many[1]


def test_writing_and_reading_the_table_changes_nothing(build, tmp_path):
    for seed, name in enumerate(("001", "NA", "1e5"), start=1):
        add_patient(tmp_path, name, seed)
    nan = np.full((2, 40, 40), np.nan, np.float32)
    write_volume(tmp_path / "null" / "scan.nii", nan)
    write_volume(tmp_path / "null" / "mask.nii", organ(depth=2))
    table, _ = build()
    write_cases(table, tmp_path / "prepared" / "cases.csv")
    again = read_cases(tmp_path / "prepared" / "cases.csv")
    assert again.equals(table.drop(columns="signature"))
    assert set(again["patient"]) == {"001", "NA", "1e5", "null"}
    assert again["source"].tolist() == [""] * 8
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == ["cases.csv"]


def test_a_missing_table_names_the_command_that_makes_it():
    with pytest.raises(FileNotFoundError, match="dvc repro audit"):
        read_cases(Path("none.csv"))


def test_a_pseudonym_stays_when_patients_are_added_and_needs_the_images(build, tmp_path):
    add_patient(tmp_path, "P1", 1)
    add_patient(tmp_path, "P2", 2)
    before = dict(zip(*(build()[0][name] for name in ("patient", "pseudonym")), strict=True))
    add_patient(tmp_path, "P3", 3)
    after = dict(zip(*(build()[0][name] for name in ("patient", "pseudonym")), strict=True))
    assert {name: after[name] for name in before} == before
    assert len(set(after.values())) == 3
    write_ct_picture(tmp_path / "images" / "P1" / "0.png", 99)
    assert build()[0]["pseudonym"][0] != before["P1"]


def test_a_pseudonym_does_not_depend_on_the_scale_of_pictures(build, tmp_path):
    add_patient(tmp_path, "P1", 1)
    other = type(SCALE)(2.0, 0.0, SCALE.spacing_mm, SCALE.thickness_mm)
    assert build()[0]["pseudonym"].equals(build(pictures=other)[0]["pseudonym"])


def test_the_pseudonym_is_the_written_formula():
    rows = [{"patient": "P1", "sha256_image": key} for key in ("bb", "aa")]
    key = hashlib.sha256(b"aabb").digest()
    expected = "P-" + hmac.new(key, b"P1", "sha256").hexdigest()[:8]
    assert pseudonyms(rows) == {"P1": expected}


@pytest.mark.parametrize("stored", ["uint8", "int32"])
def test_a_mask_has_one_hash_in_whatever_type_a_file_stores_it(stored):
    values = np.array([[0, 1, 2], [3, 200, 255]])
    expected = hashlib.sha256(b"(2, 3) |u1 " + bytes([0, 1, 2, 3, 200, 255])).hexdigest()
    assert mask_hash(values.astype(stored)) == expected


@pytest.mark.parametrize("beyond", [-1, 256])
def test_a_label_beyond_a_byte_has_a_hash_of_its_own(beyond):
    values = np.array([[0, beyond]], np.int32)
    wrapped = values.astype(np.uint8).astype(np.int32)
    assert mask_hash(values) == slice_hash(values) != mask_hash(wrapped)


def test_other_values_or_another_shape_have_another_hash():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    other = values.copy()
    other[1, 2] = -5
    assert len({slice_hash(array) for array in (values, other, -values, values.T)}) == 4
