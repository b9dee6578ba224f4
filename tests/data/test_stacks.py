import numpy as np
import pandas as pd
import pytest

from src.data.stacks import neighbours, volumes_and_positions


def cases(*rows):
    """A case table of (patient, image path, slice), with a series where that is DICOM."""
    rows = [row if len(row) == 4 else (*row, "") for row in rows]
    return pd.DataFrame(rows, columns=["patient", "image_path", "slice", "series"])


def placed(*rows):
    volumes, positions = volumes_and_positions(cases(*rows))
    return list(zip(volumes.tolist(), positions.tolist(), strict=True))


def test_the_slices_of_a_file_are_a_scan_in_their_order():
    found = placed(
        ("a", "x/1.nii", 0), ("a", "x/1.nii", 1), ("a", "x/2.nii", 1), ("a", "x/2.nii", 0)
    )
    assert found == [(0, 0), (0, 1), (1, 1), (1, 0)]


def test_files_of_one_slice_in_a_folder_are_a_scan_in_the_order_of_their_numbers():
    found = placed(("a", "x/1.png", 0), ("a", "x/10.png", 0), ("a", "x/2.png", 0))
    assert found == [(0, 0), (0, 2), (0, 1)]


def test_folders_and_patients_are_different_scans():
    found = placed(("a", "x/1.png", 0), ("b", "x/2.png", 0), ("a", "y/3.png", 0))
    assert found == [(0, 0), (1, 0), (2, 0)]


def test_a_volume_beside_single_slices_is_a_scan_of_its_own():
    found = placed(
        ("a", "x/1.png", 0), ("a", "x/2.png", 0), ("a", "x/v.nii", 0), ("a", "x/v.nii", 1)
    )
    assert found == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_dicom_files_go_by_their_place_in_the_series_not_by_their_names():
    found = placed(("a", "x/a.dcm", 2), ("a", "x/b.dcm", 0), ("a", "x/c.dcm", 1))
    assert found == [(0, 2), (0, 0), (0, 1)]


def test_two_series_in_a_folder_are_two_scans_whatever_their_files_are_called():
    found = placed(
        ("a", "x/1.dcm", 0, "A"), ("a", "x/2.dcm", 0, "B"), ("a", "x/3.dcm", 1, "B"),
        ("a", "x/4.dcm", 1, "A"), ("a", "x/5.dcm", 2, "A"), ("a", "x/6.dcm", 2, "B"),
    )  # fmt: skip
    assert found == [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2), (1, 2)]


def table(context, volumes, positions, sizes=None):
    sizes = sizes or [(8, 8)] * len(volumes)
    return neighbours(np.array(volumes), np.array(positions), np.array(sizes), context).tolist()


def test_without_context_a_slice_is_alone():
    assert table(0, [0, 0, 1], [0, 1, 0]) == [[0], [1], [2]]


def test_the_last_slice_stands_in_for_those_beyond_the_ends_of_a_scan():
    assert table(2, [0, 0, 0, 1], [0, 1, 2, 0]) == [
        [0, 0, 0, 1, 2],
        [0, 0, 1, 2, 2],
        [0, 1, 2, 2, 2],
        [3, 3, 3, 3, 3],
    ]


def test_neighbours_follow_the_position_not_the_row():
    assert table(1, [0, 0, 0], [2, 0, 1]) == [[2, 0, 0], [1, 1, 2], [1, 2, 0]]


def test_a_neighbour_of_another_size_is_not_taken():
    sizes = [(8, 8), (8, 8), (8, 9), (8, 8)]
    assert table(1, [0] * 4, range(4), sizes) == [[0, 0, 1], [0, 1, 1], [2, 2, 2], [3, 3, 3]]


def test_no_slices_have_no_neighbours():
    found = neighbours(np.empty(0, int), np.empty(0, int), np.empty((0, 2), int), 1)
    assert found.shape == (0, 3)


def test_a_negative_context_is_refused():
    with pytest.raises(ValueError, match="context must be at least 0, got -1"):
        table(-1, [0], [0])
