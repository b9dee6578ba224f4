from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from src.data.cases import read_cases, write_cases
from src.data.hashes import slice_hash
from tests.data.conftest import (
    add_patient,
    ct,
    organ,
    write_ct_picture,
    write_picture,
    write_series,
    write_volume,
)


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


def test_two_images_that_differ_in_suffix_alone_keep_different_ids(build, tmp_path):
    sets = write_series(tmp_path / "P1" / "CT", ct(1, depth=2))
    write_volume(tmp_path / "P1" / "mask.nii.gz", organ(depth=2),
                 spacing=(0.75, 0.5, 2.5), origin=(1.0, 2.0, 0.0))  # fmt: skip
    write_ct_picture(tmp_path / "P1" / "CT" / "00.png", 2)
    write_picture(tmp_path / "P1" / "CT" / "00_mask.png", organ()[0])
    table, findings = build()
    assert findings == []
    assert table["case_id"].tolist() == ["P1/CT/00.dcm", "P1/CT/00.png", "P1/CT/01"]
    series = sets[0].SeriesInstanceUID
    assert table["series"].tolist() == [series, "", series]


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
