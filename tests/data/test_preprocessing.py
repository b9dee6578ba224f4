import json
from pathlib import Path

import numpy as np
import pytest

from src.data.preprocessing import (
    Preprocessing,
    Spacing,
    preprocess,
    restore,
    single,
    sized_image,
    sized_mask,
    window_limits,
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


# --- One spacing for all --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "spacing", "sampled", "padded"),
    [
        ("native", (2.0, 1.5), (40, 60), (48, 64)),  # 40 x 2 / 2 and 80 x 1.5 / 2
        ("native", (1.0, 1.0), (20, 40), (32, 48)),
        ("native", (0.01, 0.01), (1, 1), (16, 16)),  # never less than a pixel
        ("pad", (0.5, 0.5), (10, 20), (32, 48)),
    ],
)
def test_a_slice_gets_as_many_pixels_as_its_size_in_mm_needs(
    mode: str, spacing: Spacing, sampled: tuple[int, int], padded: tuple[int, int]
) -> None:
    common = settings(mode, spacing_mm=(2.0, 2.0))
    assert common.sampled_size(40, 80, spacing) == sampled
    assert common.output_size(40, 80, spacing) == padded
    assert preprocess(np.zeros((40, 80)), common, spacing).shape == padded


def disc(size: int, spacing: float) -> np.ndarray:
    """A disc of 30 mm across in the middle of a slice of so many pixels."""
    at = (np.arange(size) - (size - 1) / 2) * spacing
    return (np.hypot(at[:, None], at[None]) < 15).astype(np.uint8)


def test_a_structure_has_the_same_size_whatever_the_spacing_of_its_scan() -> None:
    common = settings("native", spacing_mm=(1.5, 1.5), multiple=1)
    for size, spacing in ((40, 1.5), (60, 1.0), (24, 2.5)):  # 60 mm each
        sized = sized_mask(disc(size, spacing), common, (spacing, spacing))
        assert sized.shape == (40, 40)
        # Of pi 15^2 = 707 mm2 each pixel takes 2.25.
        assert sized.sum() == pytest.approx(707 / 2.25, rel=0.05)


def centre(weights: np.ndarray) -> np.ndarray:
    """Of mass, in shares of the height and width."""
    at = (np.indices(weights.shape) + 0.5) / np.reshape(weights.shape, (2, 1, 1))
    return (at * weights).sum(axis=(1, 2)) / weights.sum()


@pytest.mark.parametrize("size", [256, 128, 100, 64, 43, 32])
def test_a_mask_stays_where_its_image_is_at_half_the_size_too(size: int) -> None:
    half = settings("resize", size=(size, size))
    y, x = np.mgrid[:128, :128]
    apart, areas = [], []
    for seed in range(60):
        middle = np.random.default_rng(seed).uniform(40, 88, 2)
        mask = (np.hypot(y - middle[0], x - middle[1]) < 16).astype(np.uint8)
        sized = sized_mask(mask, half)
        image = sized_image(mask.astype(np.float32), half).astype(np.float64)
        apart.append(128 * (centre(sized) - centre(image)))
        areas.append(sized.mean() / mask.mean())
    assert np.abs(np.mean(apart, axis=0)).max() < 0.06  # of a pixel of the scan
    assert np.mean(areas) == pytest.approx(1, abs=0.04)


def test_of_classes_with_equal_shares_the_last_stands_and_none_is_made_up() -> None:
    half = settings("resize", size=(1, 2))
    mask = np.array([[0, 0, 4, 9], [2, 2, 4, 9]], np.uint8)
    np.testing.assert_array_equal(sized_mask(mask, half), [[2, 9]])


@pytest.mark.parametrize("spacing", [0.7, 1.0, 1.9])
def test_image_and_mask_are_moved_alike_and_come_back_to_their_place(spacing: float) -> None:
    common = settings("pad", spacing_mm=(1.5, 1.5))
    mask = np.zeros((57, 83), np.uint8)
    mask[12:31, 40:66] = 1
    pair = (spacing, spacing)
    truth = sized_mask(mask, common, pair)
    image = preprocess(np.where(mask, 240.0, -160.0), common, pair)
    assert (truth != (image > 0.5)).sum() <= 4  # corners, of which about half is covered
    probabilities = np.stack([1 - image, image], axis=-1).astype(np.float32)
    back = restore(probabilities, 57, 83, common, pair)
    assert back.shape == (57, 83, 2)
    rows, columns = np.nonzero(back.argmax(axis=-1))
    ends = np.array([rows.min(), rows.max() + 1, columns.min(), columns.max() + 1])
    # An edge is where it was to within half a pixel of the coarser grid.
    assert np.abs(ends - [12, 31, 40, 66]).max() <= max(1.5 / spacing / 2, 1)


def test_at_its_own_spacing_a_slice_is_as_it_would_be_without_a_common_one() -> None:
    image = np.random.default_rng(0).uniform(-200, 300, (21, 30))
    mask = np.random.default_rng(1).integers(0, 3, (21, 30)).astype(np.uint8)
    own, common = settings("native"), settings("native", spacing_mm=(0.8, 0.7))
    np.testing.assert_array_equal(preprocess(image, own), preprocess(image, common, (0.8, 0.7)))
    padded = sized_mask(mask, common, (0.8, 0.7))
    restored = restore(np.eye(3, dtype=np.float32)[padded], 21, 30, common, (0.8, 0.7))
    np.testing.assert_array_equal(restored.argmax(-1), mask)


@pytest.mark.parametrize("spacing", [None, (0.0, 1.0)])
def test_a_spacing_that_is_needed_and_not_known_is_asked_for(spacing: Spacing | None) -> None:
    common = settings("native", spacing_mm=(1.5, 2.0))
    with pytest.raises(ValueError, match=r"to 1\.5 x 2 mm.*give spacing_mm.*got (None|\(0)"):
        preprocess(np.zeros((4, 4)), common, spacing)


@pytest.mark.parametrize("spacing", [None, (1.5, 2.0)])
def test_the_settings_are_read_as_they_were_saved(tmp_path: Path, spacing: Spacing | None) -> None:
    saved = settings("native", spacing_mm=spacing)
    saved.save(tmp_path / "preprocessing.json")
    assert Preprocessing.load(tmp_path / "preprocessing.json") == saved


def test_settings_that_know_of_no_common_spacing_are_still_read(tmp_path: Path) -> None:
    path = tmp_path / "preprocessing.json"
    settings("native").save(path)
    content = json.loads(path.read_text())
    del content["spacing_mm"]
    path.write_text(json.dumps(content))
    assert Preprocessing.load(path) == settings("native")


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (4,), (5,), (2, 3, 600, 2)])
def test_halves_become_float32_as_by_numpy(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(0, 100, shape).astype(np.float16)
    found = single(values)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values.astype(np.float32))


def test_a_sized_slice_is_rounded_as_numpy_rounds() -> None:
    image = np.geomspace(1e-9, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    image[0, :3] = (0.0, 1.0, 1 - 2**-12)  # the last lies halfway between two numbers
    np.testing.assert_array_equal(sized_image(image, settings("native")), image.astype(np.float16))
