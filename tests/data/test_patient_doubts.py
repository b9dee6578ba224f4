"""One patient under two names could stand on two sides of the split."""

from __future__ import annotations

import re

import pytest

from tests.data.conftest import (
    ct,
    organ,
    write_ct_picture,
    write_picture,
    write_series,
    write_volume,
)


def add_study(root, path, seed, patient="made-up"):
    """A series in images/PATH, and its mask in masks/PATH."""
    write_series(root / "images" / path, ct(seed, depth=2), name=path, patient=patient)
    write_volume(root / "masks" / f"{path}.nii.gz", organ(depth=2),
                 spacing=(0.75, 0.5, 2.5), origin=(1.0, 2.0, 0.0))  # fmt: skip


def add_slice(root, path, seed):
    write_ct_picture(root / "images" / f"{path}.png", seed)
    write_picture(root / "masks" / f"{path}.png", organ()[0])


def told(findings):
    return [(finding.kind, finding.severity) for finding in findings]


def test_two_studies_of_one_patient_id_are_an_error_without_a_rule(build, tmp_path):
    add_study(tmp_path, "2020", 1, patient="A")
    add_study(tmp_path, "2021", 2, patient="A")
    add_study(tmp_path, "2022", 3, patient="B")
    _, findings = build()
    assert told(findings) == [("patient-split", "error")]
    assert findings[0].found == "one PatientID in the headers of 2 patients (2020, 2021)"
    assert "data.patient in params.yaml to dicom" in findings[0].remedy
    assert build(patient="dicom")[1] == []


def test_a_rule_of_the_users_own_may_differ_from_the_patient_ids(build, tmp_path):
    for number, patient in enumerate("AAB", start=1):
        add_study(tmp_path, f"p{number}", number, patient=patient)
    _, findings = build(patient="images/(?P<patient>[^/]+)/")
    assert told(findings) == [("patient-split", "warning")]


def test_one_patient_id_for_all_was_written_by_a_program_and_says_nothing(build, tmp_path):
    for number in (1, 2, 3):
        add_study(tmp_path, f"p{number}", number, patient="anonymous")
    assert build()[1] == []


def test_folders_of_studies_below_those_of_patients_are_an_error(build, tmp_path):
    for seed, path in enumerate(("P1/2020-01-03/a", "P1/2021-07-01/a", "P2/2020-05-05/a")):
        add_slice(tmp_path, path, seed)
    _, findings = build()
    assert told(findings) == [("patient-folders", "error")]
    assert "P1 with 2020-01-03, 2021-07-01" in findings[0].found
    assert "if P1, data.patient: '(?P<patient>[^/]+)/[^/]+/[^/]+$'; if 2020" in findings[0].remedy
    # Either of the two, as the remedy has them.
    table, findings = build(patient="(?P<patient>[^/]+)/[^/]+/[^/]+$")
    assert table["patient"].unique().tolist() == ["P1", "P2"]
    assert findings == []
    table, findings = build(patient="(?P<patient>[^/]+)/[^/]+$")
    assert table["patient"].unique().tolist() == ["2020-01-03", "2021-07-01", "2020-05-05"]
    assert findings == []


def test_folders_of_scanners_or_sites_are_no_doubt(build, tmp_path):
    for seed, path in enumerate(("a/P1/1", "a/P2/1", "b/P3/1", "b/P4/1")):
        add_slice(tmp_path, path, seed)
    assert told(build()[1]) == [("patient-folders", "error")]
    assert build(source="^[^/]+/(?P<source>[^/]+)/")[1] == []


def test_a_patient_in_several_folders_with_a_name_is_an_error(build, tmp_path):
    for seed, path in enumerate(("P1/first/a", "P2/first/a")):
        add_slice(tmp_path, path, seed)
    table, findings = build()
    assert table["patient"].unique().tolist() == ["first"]
    assert told(findings) == [("patient-folders", "error")]
    assert "first in P1, P2" in findings[0].found


@pytest.mark.parametrize("paths", [("P1/a", "P2/a"), ("cohort/P1/a", "cohort/P2/a")])
def test_folders_of_patients_alone_or_in_one_folder_are_no_doubt(build, tmp_path, paths):
    for seed, path in enumerate(paths):
        add_slice(tmp_path, path, seed)
    table, findings = build()
    assert table["patient"].unique().tolist() == ["P1", "P2"]
    assert findings == []


def test_a_volume_of_one_slice_does_not_name_a_patient_by_its_stem(build, tmp_path):
    for name in ("P1_001", "P1_002"):
        write_volume(tmp_path / "images" / f"{name}.nii.gz", ct(1))
        write_volume(tmp_path / "masks" / f"{name}.nii.gz", organ())
    table, findings = build()
    assert table.empty
    assert told(findings) == [("patient-unknown", "error")] * 2
    assert "'(?P<patient>[^/_]+)_[0-9]+[.]nii[.]gz$'" in findings[0].remedy
    table, findings = build(patient="(?P<patient>[^/_]+)_[0-9]+[.]nii[.]gz$")
    assert table["patient"].tolist() == ["P1", "P1"]


def add_volume(root, name, seed):
    write_volume(root / "images" / f"{name}.nii.gz", ct(seed, depth=2))
    write_volume(root / "masks" / f"{name}.nii.gz", organ(depth=2))


@pytest.mark.parametrize(
    ("paths", "patients"),
    [
        (["P00_pre", "P00_post", "P01_pre", "P02"], ["P00", "P01", "P02"]),
        (["P00_2019/", "P00_2021/", "P01_2019/", "P02/"], ["P00", "P01", "P02"]),
        ([f"P{n // 2:02d}_2019010{n % 9 + 1}/" for n in range(18)], [f"P0{n}" for n in range(9)]),
    ],
)
def test_names_of_several_occasions_are_a_warning_and_the_rule_that_it_gives_makes_them_one(
    build, tmp_path, paths, patients
):
    for seed, path in enumerate(paths):
        add = add_slice if path.endswith("/") else add_volume
        add(tmp_path, f"{path}{seed}" if path.endswith("/") else path, seed)
    table, findings = build()
    assert table["patient"].nunique() == len(paths)
    assert set(told(findings)) == {("patient-names", "warning")}
    assert findings[0].found.startswith("2 patients who may be one: P00_")
    rules = re.search(r"params.yaml to '(.+?)'\. If.+ to '(.+?)': with", findings[0].remedy)
    mended, silent = build(patient=rules[1])
    assert sorted(mended["patient"].unique()) == patients
    assert silent == []
    same, silent = build(patient=rules[2])  # the other answer: they are different people
    assert same["patient"].tolist() == table["patient"].tolist()
    assert silent == []


def test_where_no_rule_was_found_the_warning_gives_none(build, tmp_path):
    for seed, name in enumerate(("P00_pre", "p00_post", "P01_pre")):
        add_volume(tmp_path, name, seed)
    (finding,) = build()[1]
    assert "to a regular expression on the path that names both alike. If" in finding.remedy


def test_names_that_differ_in_upper_case_alone_are_an_error(build, tmp_path):
    for seed, path in enumerate(("P00/a", "p00/b", "P01/c")):
        add_slice(tmp_path, path, seed)
    _, (finding,) = build()
    assert told([finding]) == [("patient-spelling", "error")]
    assert finding.found.endswith("upper and lower case or blanks alone: 'P00', 'p00'")
    assert told(build(patient="(?P<patient>[^/]+)/[^/]+$")[1]) == [("patient-spelling", "warning")]


def test_patient_ids_that_differ_in_upper_case_or_blanks_are_an_error(build, tmp_path):
    for number, patient in enumerate(("ID 0", "id  0", "ID1"), start=1):
        add_study(tmp_path, f"p{number}", number, patient=patient)
    assert told(build(patient="dicom")[1]) == [("patient-spelling", "error")]
