from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.data.arrays import open_arrays, write_arrays
from src.data.preprocessing import Preprocessing, Spacing, preprocess, sized_mask


def cases(subsets: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "case_id": [f"c{n}" for n in range(len(subsets))],
            "patient": [f"{n}" for n in range(len(subsets))],
            "image_path": [f"{n}/1.png" for n in range(len(subsets))],
            "mask_path": [f"{n}/1_mask.png" for n in range(len(subsets))],
            "series": "",
            "slice": 0,
            "case_pseudonym": [f"P-{n}/000" for n in range(len(subsets))],
            "pseudonym": [f"P-{n}" for n in range(len(subsets))],
            "source": "",
            "subset": subsets,
            "height": 8,
            "width": 8,
            "spacing_y_mm": 1.0,
            "spacing_x_mm": 1.0,
        }
    )


def write(
    folder: Path,
    table: pd.DataFrame,
    images: list[np.ndarray],
    spacing_mm: Spacing | None = None,
) -> Preprocessing:
    folder.mkdir()
    return write_arrays(
        folder,
        table,
        lambda rows: ((images[row], np.ones((8, 8), np.uint8)) for row in rows),
        plain=Preprocessing(0.0, 100.0, 0.0, 1.0, "native", (16, 16), 8, spacing_mm),
        normalise="zscore",
        classes=("background", "lesion"),
    )


def test_mean_and_deviation_come_from_the_training_slices_alone(tmp_path: Path) -> None:
    training = np.tile([0.0, 100.0], (8, 4))  # mean 0.5, deviation 0.5 after the window
    others = [np.full((8, 8), 90.0), np.full((8, 8), 100.0)]
    found = write(
        tmp_path / "a", cases(["validation", "train", "test"]), [others[0], training, others[1]]
    )
    assert (found.mean, found.deviation) == pytest.approx((0.5, 0.5))


def test_what_was_written_is_what_preprocess_gives(tmp_path: Path) -> None:
    images = list(np.random.default_rng(0).uniform(-20, 120, (3, 8, 8)))
    found = write(tmp_path / "a", cases(["train", "train", "test"]), images)
    arrays = open_arrays(tmp_path / "a")
    for row, image in enumerate(images):
        np.testing.assert_array_equal(arrays.slice(row)[0], preprocess(image, found))
        assert arrays.slice(row)[1].all()
    assert arrays.rows("train").tolist() == [0, 1]


def test_slices_of_every_spacing_are_written_with_one(tmp_path: Path) -> None:
    table = cases(["train", "train", "test"]).assign(
        spacing_y_mm=[1.0, 2.0, 3.0], spacing_x_mm=[1.0, 1.0, 0.9]
    )
    images = list(np.random.default_rng(0).uniform(-20, 120, (3, 8, 8)))
    found = write(tmp_path / "a", table, images, spacing_mm=(2.0, 1.0))
    arrays = open_arrays(tmp_path / "a")
    assert arrays.settings == found
    # 8 x 8 pixels become 4 x 8, 8 x 8 and 12 x 7, in the middle of multiples of 8.
    assert arrays.sizes.tolist() == [[8, 8], [8, 8], [16, 8]]
    assert [int(arrays.slice(row)[1].sum()) for row in range(3)] == [4 * 8, 8 * 8, 12 * 7]
    assert arrays.index["spacing_y_mm"].tolist() == [2.0, 2.0, 2.0]
    assert arrays.index["spacing_x_mm"].tolist() == pytest.approx([1.0, 1.0, 0.9 * 8 / 7])
    for row, image in enumerate(images):
        spacing = tuple(table[["spacing_y_mm", "spacing_x_mm"]].iloc[row])
        np.testing.assert_array_equal(arrays.slice(row)[0], preprocess(image, found, spacing))
        truth = sized_mask(np.ones((8, 8), np.uint8), found, spacing)
        np.testing.assert_array_equal(arrays.slice(row)[1], truth)


def test_slices_of_a_scan_know_their_scan_and_their_place_in_it(tmp_path: Path) -> None:
    table = cases(["train"] * 4).assign(
        patient="a", image_path=["x/1.png", "x/10.png", "x/2.png", "y/1.png"]
    )
    write(tmp_path / "a", table, list(np.random.default_rng(0).uniform(0, 100, (4, 8, 8))))
    arrays = open_arrays(tmp_path / "a")
    assert arrays.index["volume"].tolist() == [0, 0, 0, 1]
    assert arrays.index["position"].tolist() == [0, 2, 1, 0]
    assert arrays.neighbours(1).tolist() == [[0, 0, 2], [2, 1, 1], [0, 2, 1], [3, 3, 3]]
    assert [rows.tolist() for rows in arrays.scans(np.array([3, 1, 2]))] == [[2, 1], [3]]
    stack = arrays.stack(0, 1)
    assert stack.shape == (8, 8, 3)
    for channel, row in enumerate((0, 0, 2)):
        np.testing.assert_array_equal(stack[..., channel], arrays.slice(row)[0])


def test_arrays_of_another_version_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", cases(["train"]), [np.eye(8)])
    path = tmp_path / "a" / "index.csv"
    pd.read_csv(path).drop(columns="volume").to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"lacks the columns \['volume'\].*dvc repro prepare"):
        open_arrays(tmp_path / "a")


def test_arrays_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", cases(["train"]), [np.eye(8)])
    np.save(tmp_path / "a" / "masks.npy", np.zeros(63, np.uint8))
    with pytest.raises(ValueError, match=r"must hold the 64 pixels of .* got 64 and 63"):
        open_arrays(tmp_path / "a")


def test_missing_arrays_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dvc repro prepare"):
        open_arrays(tmp_path)
