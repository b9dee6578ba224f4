from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from src.data.audit import (
    audit_cases,
    duplicate_groups,
    findings_list,
    near_duplicates,
    public_names,
    public_report,
)
from src.data.findings import MEANINGS, Finding
from src.data.pictures import PictureScale
from tests.data.conftest import (
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

CLASSES = ("background", "organ")
REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data beside the project")


def audit(build, root, *, near=False, window=None, **changes):
    """Everything a stage does: the table with its groups, and all findings."""
    table, signatures, findings = build(signed=True, **changes)
    scale = changes.get("pictures", SCALE)
    pairs = (
        near_duplicates(table, signatures, root=root, pictures=scale, correlation=0.85, workers=2)
        if near
        else []
    )
    table["group"] = table["patient"].map(duplicate_groups(table, pairs))
    classes = changes.get("classes", CLASSES)
    return table, findings + audit_cases(
        table, classes=classes, pictures=scale, window=window, near=pairs
    )


@pytest.fixture
def healthy(tmp_path):
    """A folder of three patients with two slices each, in which nothing is wrong."""
    for seed in (1, 2, 3):
        add_patient(tmp_path, f"P{seed}", seed)
    return tmp_path


def test_healthy_data_yield_no_finding(build, healthy):
    table, findings = audit(build, healthy, near=True, window=(-160, 240))
    assert findings == []
    assert len(table) == 6
    assert table["group"].tolist() == table["pseudonym"].tolist()


def test_every_problem_is_told_at_once(build, healthy):
    (healthy / "images" / "P1" / "0.png").write_bytes(b"")
    write_picture(healthy / "masks" / "P2" / "0.png", organ(size=30)[0])
    (healthy / "masks" / "P3" / "1.png").unlink()
    _, findings = audit(build, healthy)
    assert {"unreadable", "size-mismatch", "orphan-image", "single-slice"} == set(kinds(findings))


def test_an_image_and_a_mask_without_a_partner_are_errors(build, healthy):
    write_ct_picture(healthy / "images" / "P1" / "8.png", 8)
    write_picture(healthy / "masks" / "P1" / "9.png", organ()[0])
    _, findings = audit(build, healthy)
    assert [(f.kind, f.severity, f.paths) for f in findings] == [
        ("orphan-image", "error", ("images/P1/8.png",)),
        ("orphan-mask", "error", ("masks/P1/9.png",)),
    ]


def test_a_truncated_file_is_an_error_with_what_was_found_and_what_to_do(build, healthy):
    path = healthy / "masks" / "P1" / "1.png"
    path.write_bytes(path.read_bytes()[:-4])
    table, findings = audit(build, healthy)
    assert len(table) == 5
    assert (findings[0].kind, findings[0].severity) == ("unreadable", "error")
    assert findings[0].paths == ("masks/P1/1.png",)
    assert findings[0].found.startswith("a PNG without its end marker")
    assert findings[0].expected == "a whole picture"
    assert findings[0].remedy == "Copy or export the file again."


def test_a_dicom_seg_of_a_series_that_lost_slices_is_an_error(build, healthy):
    sets = write_series(healthy / "P4" / "CT", ct(4, depth=3))
    write_segmentation(healthy / "P4" / "drawn.dcm", sets, np.ones((3, 40, 40, 1), bool))
    (healthy / "P4" / "CT" / "02.dcm").unlink()
    (finding,) = audit(build, healthy)[1]
    assert (finding.kind, finding.paths) == ("unreadable", ("P4/drawn.dcm",))
    assert finding.found == "segments on 1 slice that the series lacks"
    assert finding.expected == "a DICOM SEG of this series"
    assert finding.remedy.startswith("Export the segmentation again for this series")


def test_a_file_that_may_not_be_read_is_an_error(build, healthy):
    (healthy / "images" / "P1" / "0.png").unlink()
    (healthy / "images" / "P1" / "0.png").symlink_to(healthy / "gone.png")
    _, findings = audit(build, healthy)
    assert (findings[0].kind, findings[0].paths) == ("unreadable", ("images/P1/0.png",))
    assert findings[0].found == "no such file or directory"
    assert findings[0].remedy == "Check that the file is whole and that you may read it."


def test_a_mask_of_another_size_is_an_error(build, healthy):
    write_picture(healthy / "masks" / "P1" / "1.png", organ(size=30)[0])
    finding = audit(build, healthy)[1][0]
    assert (finding.kind, finding.severity) == ("size-mismatch", "error")
    assert (finding.found, finding.expected) == (
        "a mask of 1 × 30 × 30",
        "1 × 40 × 40 as the image has",
    )


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"spacing": (0.5, 0.75, 2.0)}, "spacing 2, 0.75, 0.5"),
        ({"origin": (10.0, 20.0, 33.0)}, "origin 10, 20, 33"),
        ({"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}, "direction -1, 0, 0, 0, -1, 0, 0, 0, 1"),
    ],
)
def test_a_mask_elsewhere_in_space_is_an_error(build, healthy, change, found):
    write_volume(healthy / "P4" / "scan.nii.gz", ct(4, depth=3))
    write_volume(healthy / "P4" / "mask.nii.gz", organ(depth=3), **change)
    (finding,) = audit(build, healthy)[1]
    assert (finding.kind, finding.severity) == ("geometry-mismatch", "error")
    assert finding.found == f"a mask with {found}"


def test_a_difference_below_half_a_voxel_is_none(build, healthy):
    write_volume(healthy / "P4" / "scan.nii.gz", ct(4, depth=3))
    write_volume(healthy / "P4" / "mask.nii.gz", organ(depth=3), origin=(10.2, 20.0, 30.0))
    assert audit(build, healthy)[1] == []


def test_a_mask_without_geometry_is_a_warning(build, healthy):
    write_volume(healthy / "P4" / "scan.nii.gz", ct(4, depth=3))
    write_volume(healthy / "P4" / "mask.nrrd", organ(depth=3), spacing=(1, 1, 1), origin=(0, 0, 0))
    (finding,) = audit(build, healthy)[1]
    assert (finding.kind, finding.severity) == ("geometry-missing", "warning")


def test_black_and_white_masks_are_told_with_the_labels_to_set(build, tmp_path):
    for seed in (1, 2, 3):
        add_patient(tmp_path, f"P{seed}", seed)
        write_picture(tmp_path / "masks" / f"P{seed}" / "1.png", organ(value=255)[0])
    _, findings = audit(build, tmp_path, labels={0: "background", 7: "organ"})
    unknown = [finding for finding in findings if finding.kind == "unknown-label"]
    assert [finding.severity for finding in unknown] == ["error"] * 6
    assert unknown[1].found == "the values 255"
    assert unknown[1].expected == "one of 0, 7"


def test_the_suggested_labels_mend_black_and_white_masks(build, healthy):
    for path in (healthy / "masks").rglob("*.png"):
        write_picture(path, organ(value=255)[0])
    finding = audit(build, healthy)[1][0]
    assert "`labels: {0: background, 255: organ}`" in finding.remedy
    table, findings = audit(build, healthy, labels={0: "background", 255: "organ"})
    assert findings == []
    assert set(table["pixels_organ"]) == {100}


@pytest.mark.parametrize(
    ("blue_green_red", "key"), [((0, 128, 255), "#ff8000"), ((255, 0, 0), "#0000ff")]
)
def test_the_suggested_labels_mend_colour_masks(build, healthy, blue_green_red, key):
    colour = np.zeros((40, 40, 3), np.uint8)
    colour[15:25, 15:25] = blue_green_red
    for path in (healthy / "masks").rglob("*.png"):
        write_picture(path, colour)
    finding = audit(build, healthy)[1][0]
    assert finding.found == f"the values {key}"
    assert f'`labels: {{0: background, "{key}": organ}}`' in finding.remedy
    assert audit(build, healthy, labels={0: "background", key: "organ"})[1] == []


def test_lossy_masks_are_recognised(build, healthy):
    (healthy / "masks" / "P1" / "1.png").unlink()
    noise = np.random.default_rng(0).integers(0, 2, (40, 40), dtype=np.uint8) * 255
    write_picture(healthy / "masks" / "P1" / "1.jpg", noise, cv2.IMWRITE_JPEG_QUALITY, 50)
    finding = next(f for f in audit(build, healthy)[1] if f.kind == "unknown-label")
    assert "lossy compression (JPEG)" in finding.remedy
    assert "an image in place of a mask" in finding.remedy
    assert "export it again as PNG" in finding.remedy


def test_overflowed_label_values_are_told_with_the_labels_to_set(build, healthy):
    odd = np.where(organ(depth=2) > 0, 32767, -32768).astype(np.int16)
    for seed in (1, 2, 3):
        for path in (healthy / "masks" / f"P{seed}").iterdir():
            path.unlink()
        for path in (healthy / "images" / f"P{seed}").iterdir():
            path.unlink()
        write_volume(healthy / "images" / f"P{seed}.nii.gz", ct(seed, depth=2))
        write_volume(healthy / "masks" / f"P{seed}.nii.gz", odd)
    finding = audit(build, healthy)[1][0]
    assert finding.found == "the values -32768, 32767"
    assert "`labels: {-32768: background, 32767: organ}`" in finding.remedy


def test_more_values_than_classes_are_not_guessed(build, healthy):
    write_picture(healthy / "masks" / "P1" / "1.png", organ(value=2)[0])
    finding = audit(build, healthy)[1][0]
    assert "name a class for each" in finding.remedy


def test_a_patient_with_empty_masks_is_a_warning(build, healthy):
    for name in ("0", "1"):
        write_picture(healthy / "masks" / "P2" / f"{name}.png", np.zeros((40, 40), np.uint8))
    (finding,) = audit(build, healthy)[1]
    assert (finding.kind, finding.severity) == ("empty-masks", "warning")
    assert finding.paths == ("images/P2/0.png", "images/P2/1.png")


def test_masks_that_are_all_empty_are_an_error(build, healthy):
    for path in (healthy / "masks").rglob("*.png"):
        write_picture(path, np.zeros((40, 40), np.uint8))
    (finding,) = audit(build, healthy)[1]
    assert (finding.kind, finding.severity) == ("all-masks-empty", "error")


def test_a_class_without_a_pixel_is_a_warning(build, healthy):
    classes = ("background", "organ", "lesion")
    labels = dict(enumerate(classes))
    (finding,) = audit(build, healthy, classes=classes, labels=labels)[1]
    assert (finding.kind, finding.severity) == ("class-unseen", "warning")
    assert finding.found == "no pixel of lesion"


def test_a_class_that_fills_the_pictures_is_a_warning_with_the_share(build, healthy):
    swapped = {0: "organ", 1: "background"}
    found = audit(build, healthy, labels=swapped)[1]
    finding = next(f for f in found if f.kind == "mostly-foreground")
    assert (finding.severity, finding.paths) == ("warning", ())
    assert finding.found == "organ in 94% of all pixels"
    assert "may be swapped" in finding.remedy


def test_the_same_picture_under_two_patients_is_an_error(build, healthy):
    add_patient(healthy, "P4", 4)
    write_ct_picture(healthy / "images" / "P4" / "1.png", 100)  # the seed of P1/0.png
    table, (finding,) = audit(build, healthy, near=True)
    assert (finding.kind, finding.severity) == ("shared-picture", "error")
    assert finding.paths == ("images/P1/0.png", "images/P4/1.png")
    groups = table.groupby("patient")["group"].first()
    assert groups["P1"] == groups["P4"]
    assert groups.nunique() == 3


def test_the_same_padding_under_two_patients_is_no_copy(build, healthy):
    for name in ("P1", "P2"):
        write_picture(healthy / "images" / name / "1.png", np.full((40, 40), 24, np.uint16))
    _, findings = audit(build, healthy, near=True)
    assert kinds(findings) == ["constant-image", "constant-image"]


@pytest.mark.parametrize("change", ["8 bit", "jpeg", "half", "noise"])
def test_an_altered_copy_under_another_patient_is_found_and_grouped(build, tmp_path, change):
    for seed in (1, 2, 3, 4):
        write_volume(tmp_path / f"P{seed}" / "scan.nii.gz", ct(seed, size=128, depth=3))
        write_volume(tmp_path / f"P{seed}" / "mask.nii.gz", organ(size=128, depth=3))
    # As in real CT, nothing is finer than a few pixels: half the size shows the same.
    smooth = cv2.GaussianBlur(ct(9, size=128)[0].astype(np.float32), (0, 0), 2.0)
    write_volume(tmp_path / "P5" / "scan.nii.gz", np.stack([smooth, smooth * 0.5]))
    write_volume(tmp_path / "P5" / "mask.nii.gz", organ(size=128, depth=2))
    copy, drawn = np.clip((smooth + 1024) / 8, 0, 255).astype(np.uint8), organ(size=128)[0]
    if change == "half":
        copy = cv2.resize(copy, (64, 64), interpolation=cv2.INTER_AREA)
        drawn = organ(size=64)[0]
    if change == "noise":
        copy = (copy + np.random.default_rng(0).integers(0, 5, copy.shape)).astype(np.uint8)
    suffix = "jpg" if change == "jpeg" else "png"
    write_picture(tmp_path / "P6" / f"copy.{suffix}", copy)
    write_picture(tmp_path / "P6" / "copy_mask.png", drawn)
    scale = PictureScale(8.0, -1024.0, (1.0, 1.0), 1.0)
    table, findings = audit(build, tmp_path, near=True, pictures=scale)
    (finding,) = (f for f in findings if f.kind == "near-duplicate")
    assert finding.severity == "warning"
    assert finding.paths == ("P5/scan.nii.gz", f"P6/copy.{suffix}")
    assert "each counts as a patient of its own, so that intervals are too narrow" in finding.remedy
    assert "Take a copy out, or set data.patient so that they are one" in finding.remedy
    groups = table.groupby("patient")["group"].first()
    assert groups["P5"] == groups["P6"]
    assert groups.nunique() == 5


def test_bodies_with_the_same_padding_and_table_are_no_copies(build, tmp_path):
    y, x = np.mgrid[:128, :128] - 63.5
    for seed in (1, 2, 3):
        body = (x / (36 + 4 * seed)) ** 2 + (y / (40 - 4 * seed)) ** 2 < 1
        hu = np.where(body, np.random.default_rng(seed).normal(40, 60, body.shape), -1000)
        hu[110:114, 30:98] = -300  # the same table
        hu[x**2 + y**2 > 63**2] = -3024  # the same round field of view
        write_volume(tmp_path / f"P{seed}" / "scan.nii.gz", np.stack([hu, hu + 1]))
        write_volume(tmp_path / f"P{seed}" / "mask.nii.gz", organ(size=128, depth=2))
    assert audit(build, tmp_path, near=True)[1] == []


def test_alike_slices_of_one_patient_are_no_finding(build, healthy):
    write_ct_picture(healthy / "images" / "P1" / "1.png", 100)  # the seed of P1/0.png
    assert audit(build, healthy, near=True)[1] == []


def test_an_image_of_one_value_is_a_warning(build, healthy):
    write_picture(healthy / "images" / "P1" / "1.png", np.full((40, 40), 1000, np.uint16))
    (finding,) = audit(build, healthy)[1]
    assert (finding.kind, finding.severity) == ("constant-image", "warning")


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd", ".tif"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_with_a_value_that_is_not_finite_is_an_error(build, tmp_path, suffix, value):
    for seed in (1, 2, 3, 4):
        hu = ct(seed, depth=2).astype(np.float32)
        hu[1, 0, 0] = value if seed == 4 else -1000
        scan = tmp_path / f"P{seed}" / f"scan{suffix}"
        scan.parent.mkdir()
        if suffix == ".tif":
            assert cv2.imwritemulti(str(scan), list(hu))
            assert cv2.imwritemulti(str(scan.with_name("mask.tif")), list(organ(depth=2)))
        else:
            write_volume(scan, hu)
            write_volume(scan.with_name("mask.nii.gz"), organ(depth=2))
    plain = replace(SCALE, intercept=0.0)
    table, (finding,) = audit(build, tmp_path, near=True, pictures=plain, window=(-160, 240))
    assert (finding.kind, finding.severity) == ("nan-image", "error")
    assert finding.paths == (f"P4/scan{suffix}",)
    assert finding.found == "1 slice with values that are infinite or no numbers"
    report = public_report(table, [finding], classes=CLASSES)
    json.dumps(report, allow_nan=False)


def test_a_slice_of_infinite_values_is_told_once(build, healthy):
    write_volume(healthy / "P4" / "scan.mha", np.full((2, 40, 40), -np.inf, np.float32))
    write_volume(healthy / "P4" / "mask.mha", organ(depth=2))
    (finding,) = audit(build, healthy, near=True)[1]
    assert finding.kind == "nan-image"


def test_pictures_of_8_and_16_bits_are_an_error(build, healthy):
    gentle = np.clip((ct(1)[0] + 1000) / 8, 0, 255).astype(np.uint8)
    write_picture(healthy / "images" / "P1" / "1.png", gentle)
    findings = audit(build, healthy)[1]
    assert [(f.kind, f.severity, f.paths) for f in findings] == [
        ("mixed-bit-depth", "error", ("images/P1/1.png",))
    ]
    assert findings[0].found == "5 slices of uint16, 1 slice of uint8"


def test_volumes_of_8_and_16_bits_are_a_warning(build, tmp_path):
    for seed in (1, 2, 3):
        hu = ct(seed, depth=2)
        hu = np.clip(hu, -100, 100).astype(np.int8) if seed == 3 else hu
        write_volume(tmp_path / f"P{seed}" / "scan.nii.gz", hu)
        write_volume(tmp_path / f"P{seed}" / "mask.nii.gz", organ(depth=2))
    (finding,) = audit(build, tmp_path)[1]
    assert (finding.kind, finding.severity) == ("mixed-bit-depth", "warning")
    assert finding.paths == ("P3/scan.nii.gz",)


def test_a_patient_with_one_slice_is_a_warning(build, healthy):
    add_patient(healthy, "P4", 4, slices=1)
    (finding,) = audit(build, healthy)[1]
    assert (finding.kind, finding.severity, finding.paths) == (
        "single-slice", "warning", ("images/P4/0.png",),
    )  # fmt: skip


def test_pictures_that_are_no_hu_name_the_parameter(build, healthy):
    plain = replace(SCALE, intercept=0.0)
    findings = audit(build, healthy, pictures=plain)[1]
    assert [(f.kind, f.severity) for f in findings] == [("not-hu", "warning")] * 3
    assert "data.pictures.intercept" in findings[0].remedy
    assert findings[0].found.startswith("values from 24 to ")  # -1000 + 1024


def test_volumes_that_are_no_hu_are_a_warning(build, healthy):
    write_volume(healthy / "P4" / "scan.nii.gz", ct(4, depth=2) + 1024)
    write_volume(healthy / "P4" / "mask.nii.gz", organ(depth=2))
    (finding,) = audit(build, healthy)[1]
    assert (finding.kind, finding.paths) == ("not-hu", ("P4/scan.nii.gz",))
    assert "slope and intercept applied" in finding.remedy


def test_slices_that_the_window_shows_as_one_grey_are_a_warning(build, healthy):
    findings = audit(build, healthy, window=(1000, 3000))[1]
    assert [(f.kind, f.severity) for f in findings] == [("outside-window", "warning")] * 3
    assert findings[0].found == "2 slices outside of 1000 to 3000 HU"


def test_fewer_than_three_patients_are_an_error(build, tmp_path):
    for seed in (1, 2):
        add_patient(tmp_path, f"P{seed}", seed)
    (finding,) = audit(build, tmp_path)[1]
    assert (finding.kind, finding.severity, finding.found) == (
        "few-patients",
        "error",
        "2 patients",
    )


def test_three_patients_of_whom_two_share_slices_are_too_few(build, healthy):
    write_ct_picture(healthy / "images" / "P2" / "1.png", 100)  # the seed of P1/0.png
    finding = audit(build, healthy)[1][0]
    assert finding.kind == "few-patients"
    assert finding.found == "3 patients, who share slices and make 2 groups"


def test_groups_reach_over_several_patients(build, tmp_path):
    for seed in (1, 2, 3, 4):
        add_patient(tmp_path, f"P{seed}", seed)
    write_ct_picture(tmp_path / "images" / "P2" / "1.png", 100)  # P1/0.png
    write_ct_picture(tmp_path / "images" / "P3" / "1.png", 200)  # P2/0.png
    groups = duplicate_groups(build()[0])
    assert groups["P1"] == groups["P2"] == groups["P3"] != groups["P4"]


def test_an_empty_table_adds_nothing(build, tmp_path):
    table, signatures, _ = build(signed=True)
    assert audit_cases(table, classes=CLASSES, pictures=SCALE) == []
    assert duplicate_groups(table) == {}
    options = {"root": tmp_path, "pictures": SCALE, "correlation": 0.85, "workers": 1}
    assert near_duplicates(table, signatures, **options) == []
    assert public_report(table, [], classes=CLASSES)["slices"] == 0


def test_the_terminal_shows_the_first_few_and_the_count():
    findings = [
        Finding("orphan-mask", "error", (f"{n}.png",), "no image", "one image", "Add [it].")
        for n in range(5)
    ] + [Finding("single-slice", "warning", ("a.png",), "one", "more", "Add.")]
    console = Console(width=30, record=True, file=io.StringIO(), soft_wrap=True)
    console.print(findings_list(findings, all_in="all.csv", shown=2))
    text = console.export_text()
    assert "5 × a mask without an image" in text
    assert "1.png" in text
    assert "2.png" not in text
    assert "and 3 more in all.csv" in text
    assert "Add [it]." in text
    assert text.index("error") < text.index("warning")


def test_a_finding_reads_as_a_sentence():
    finding = Finding("orphan-mask", "error", ("a.png",), "no image", "one image", "Add it.")
    assert str(finding) == "a.png: found no image, expected one image. Add it."
    assert finding.row()["paths"] == "a.png"


def test_the_public_form_holds_pseudonyms_and_no_free_text():
    finding = Finding("two-masks", "error", ("a.png", "b.png"), "secret", "secret", "secret")
    assert finding.public({"a.png": "P-1/000"}) == {
        "kind": "two-masks",
        "severity": "error",
        "meaning": MEANINGS["two-masks"],
        "cases": ["P-1/000", "not in the table"],
    }


def test_the_public_report_counts_and_names_nobody(build, tmp_path):
    for seed, name in enumerate(("Muster_Max", "Muster_Eva", "ID4711", "ID4712"), start=1):
        add_patient(tmp_path, name, seed)
    write_ct_picture(tmp_path / "images" / "ID4712" / "1.png", 100)
    write_ct_picture(tmp_path / "images" / "Muster_Max" / "orphan.png", 7)
    sets = write_series(tmp_path / "Meier" / "CT", ct(6, depth=2), patient="Meier^Ute")
    write_segmentation(tmp_path / "Meier" / "drawn.dcm", sets, np.ones((2, 40, 40, 1), bool))
    (tmp_path / "letter-to-Meier.docx").write_text("private")
    table, findings = audit(build, tmp_path, near=True)
    report = public_report(table, findings, classes=CLASSES)
    text = json.dumps(report)
    assert not re.search(r"Muster|ID47|Meier|orphan\.|drawn|letter|\.png|\.dcm", text)
    assert str(tmp_path) not in text
    assert (report["patients"], report["slices"], report["groups"]) == (5, 10, 4)
    assert (report["errors"], report["warnings"]) == (2, 1)
    # 8 slices of 100 organ pixels, 2 of 1600, of 10 * 1600
    assert report["share_of_pixels"]["organ"] == pytest.approx((8 * 100 + 2 * 1600) / 16_000)
    assert report["slices_with"] == {"background": 8, "organ": 10}
    assert report["sizes"] == [{"height": 40, "width": 40, "slices": 10}]
    assert report["stored_types"] == {"uint16": 10}
    shared = next(entry for entry in report["findings"] if entry["kind"] == "shared-picture")
    assert all(re.fullmatch(r"P-[0-9a-f]{8}/\d{3}", case) for case in shared["cases"])


def test_public_names_give_a_series_folder_the_pseudonym_of_its_patient(build, tmp_path):
    sets = write_series(tmp_path / "P1" / "CT", ct(1, depth=2))
    write_segmentation(tmp_path / "P1" / "drawn.dcm", sets, np.ones((2, 40, 40, 1), bool))
    table, _ = build()
    names, (code,) = public_names(table), table["pseudonym"].unique()
    assert names["P1/CT"] == names["P1/drawn.dcm"] == code
    assert names["P1/CT/01.dcm"] == f"{code}/001"


@needs_real
def test_real_ct_of_26_patients_has_no_error(build, tmp_path):
    (tmp_path / "sts-ct").symlink_to(REAL / "sts-ct", target_is_directory=True)
    plain = replace(SCALE, intercept=0.0)
    table, findings = audit(build, tmp_path, near=True, pictures=plain)
    assert table["patient"].nunique() == table["group"].nunique() == 26
    assert findings == []
    assert 0.02 < table["pixels_organ"].sum() / (table["height"] * table["width"]).sum() < 0.1


@needs_real
def test_the_real_dicom_seg_leaks_neither_id_nor_name(build, tmp_path):
    (tmp_path / "study").symlink_to(REAL / "dicom-seg", target_is_directory=True)
    table, findings = audit(build, tmp_path, patient="dicom", source="dicom")
    assert kinds(findings) == ["few-patients"]
    assert table["patient"].unique().tolist() == ["99000"]
    text = json.dumps(public_report(table, findings, classes=CLASSES))
    assert not re.search(r"99000|JANCT|liver|ct-3slice", text)
    assert table["pixels_organ"].tolist() == [35220, 35645, 36233]


def test_a_finding_of_a_kind_without_a_meaning_is_refused():
    with pytest.raises(ValueError, match="mishap is no kind of finding"):
        Finding("mishap", "error", (), "a", "b", "c")
