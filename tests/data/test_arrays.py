from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.data.arrays import (
    Preprocessing,
    open_arrays,
    preprocess,
    restore,
    sized_mask,
    window_limits,
    write_arrays,
)


def settings(mode: str, **changes: object) -> Preprocessing:
    fields = {
        "window_low": -160.0,
        "window_high": 240.0,
        "mean": 0.0,
        "deviation": 1.0,
        "size_mode": mode,
        "size": (32, 48),
        "multiple": 16,
    }
    return Preprocessing(**(fields | changes))  # type: ignore[arg-type]


def test_the_window_maps_its_ends_to_0_and_1_and_clips_beyond() -> None:
    image = np.array([[-1000.0, -160.0, 40.0, 240.0, 3000.0]])
    # (40 + 160) / 400 = 0.5
    shown = preprocess(image, settings("native", multiple=1))
    assert shown.tolist() == [[0.0, 0.0, 0.5, 1.0, 1.0]]


def test_normalisation_subtracts_the_mean_and_divides_by_the_deviation() -> None:
    image = np.full((1, 1), 40.0)
    # (0.5 - 0.25) / 0.5 = 0.5
    result = preprocess(image, settings("native", multiple=1, mean=0.25, deviation=0.5))
    assert result.item() == 0.5


@pytest.mark.parametrize(
    ("mode", "size", "expected"),
    [
        ("resize", (50, 70), (32, 48)),
        ("pad", (20, 20), (32, 48)),
        ("pad", (50, 20), (64, 48)),
        ("native", (17, 32), (32, 32)),
    ],
)
def test_sizes(mode: str, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert settings(mode).output_size(*size) == expected
    assert preprocess(np.zeros(size), settings(mode)).shape == expected


@pytest.mark.parametrize("mode", ["pad", "native"])
def test_padding_is_undone_exactly(mode: str) -> None:
    mask = np.random.default_rng(0).integers(0, 3, (21, 30)).astype(np.uint8)
    padded = sized_mask(mask, settings(mode))
    probabilities = np.eye(3, dtype=np.float32)[padded]
    restored = restore(probabilities, 21, 30, settings(mode)).argmax(-1)
    np.testing.assert_array_equal(restored, mask)


def test_a_resized_mask_holds_no_new_label_and_comes_back_close() -> None:
    mask = np.zeros((64, 96), np.uint8)
    mask[16:48, 20:60] = 2
    sized = sized_mask(mask, settings("resize"))
    assert set(np.unique(sized)) == {0, 2}
    back = restore(np.eye(3, dtype=np.float32)[sized], 64, 96, settings("resize")).argmax(-1)
    assert (back == mask).mean() > 0.99


def test_percentiles_are_taken_from_all_slices_together() -> None:
    slices = [np.arange(0, 500), np.arange(500, 1001)]
    low, high = window_limits({"kind": "percentiles", "lower": 1, "upper": 99}, lambda: slices)
    assert (low, high) == pytest.approx((10, 990), abs=1.0)


def test_slices_of_one_value_leave_no_window() -> None:
    with pytest.raises(ValueError, match="leave no window: all values lie at 7"):
        window_limits({"kind": "none"}, lambda: [np.full((2, 2), 7.0)])


def cases(subsets: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "case_id": [f"c{n}" for n in range(len(subsets))],
            "patient": [f"{n}" for n in range(len(subsets))],
            "image_path": [f"{n}/1.png" for n in range(len(subsets))],
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


def write(folder: Path, table: pd.DataFrame, images: list[np.ndarray]) -> Preprocessing:
    folder.mkdir()
    return write_arrays(
        folder,
        table,
        ((image, np.ones((8, 8), np.uint8)) for image in images),
        window=(0.0, 100.0),
        size_mode="native",
        size=(16, 16),
        multiple=8,
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
