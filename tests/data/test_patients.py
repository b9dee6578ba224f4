from __future__ import annotations

import hashlib
import hmac

import pytest

from src.data.patients import pseudonyms
from tests.data.conftest import (
    SCALE,
    add_patient,
    ct,
    organ,
    write_ct_picture,
    write_picture,
    write_volume,
)


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
