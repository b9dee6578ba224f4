from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from src.data.volumes import Scan
from src.evaluation.uncertainty import normalised_entropy
from src.figures import COLOURS
from src.inference import Segmenter, load_segmenter
from src.prediction import (
    Image,
    Wanted,
    contour_picture,
    measures,
    segment,
    unlike_training,
)
from tests.tiny_models import CLASSES, NATIVE, SPACING, expected_mask, save_threshold_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_threshold_model(tmp_path_factory.mktemp("models") / "threshold")


@pytest.fixture(scope="module")
def segmenter(folder: Path) -> Segmenter:
    return load_segmenter(folder)


def with_settings(segmenter: Segmenter, **changes: object) -> Segmenter:
    settings = replace(NATIVE, **changes)  # type: ignore[arg-type]
    return Segmenter(segmenter.model, settings, segmenter.card)


def image(array: np.ndarray, spacing: tuple[float, float] = SPACING, modality: str = "") -> Image:
    scan = Scan(array.astype(np.float32), (2.0, *spacing), None, None, "int16")
    return Image(scan, "volume", (), modality)


def body(size: int = 20) -> np.ndarray:
    """(1, size, size) of fat (-80 HU) and tissue (40 HU), half and half."""
    array = np.full((1, size, size), -80.0)
    array[:, : size // 2] = 40.0
    return array


# --- Measures -------------------------------------------------------------------------------------


def test_areas_are_summed_over_slices_and_volumes_are_areas_times_thickness() -> None:
    mask = np.zeros((2, 4, 4), np.uint8)
    mask[0, 0, :3] = 1
    mask[1, 0, :2] = 1
    mask[1, 3, 3] = 2
    # A pixel has 0.5 mm x 0.8 mm = 0.4 mm2; 5 and 1 of them have 2 and 0.4 mm2; slices of 10 mm.
    assert measures(mask, (*CLASSES, "cyst"), (10.0, 0.5, 0.8)) == {
        "area_mm2_organ": pytest.approx(2.0),
        "area_mm2_lesion": pytest.approx(0.4),
        "area_mm2_cyst": 0.0,
        "volume_ml_organ": pytest.approx(0.02),
        "volume_ml_lesion": pytest.approx(0.004),
        "volume_ml_cyst": 0.0,
    }


# --- Segmenting -----------------------------------------------------------------------------------


def stack(depth: int) -> np.ndarray:
    generator = np.random.default_rng(depth)
    return generator.choice([-80.0, 20.0, 80.0], (depth, 6, 9)).astype(np.float32)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_slices_are_in_place_whatever_the_size_of_the_batch(
    segmenter: Segmenter, batch_size: int
) -> None:
    found = segment(segmenter, stack(5), Wanted(batch_size=batch_size), spacing_mm=SPACING)
    np.testing.assert_array_equal(found.mask, expected_mask(stack(5)))
    assert found.uncertainty is None
    assert found.probabilities is None


def test_maps_have_the_size_of_the_stack_and_agree_with_the_mask(segmenter: Segmenter) -> None:
    wanted = Wanted(uncertainty=True, probabilities=True, batch_size=2)
    found = segment(segmenter, stack(3), wanted, spacing_mm=SPACING)
    assert found.probabilities is not None
    assert found.uncertainty is not None
    assert found.probabilities.shape == (3, 3, 6, 9)
    np.testing.assert_array_equal(found.probabilities.argmax(axis=0), found.mask)
    by_class_last = np.moveaxis(found.probabilities, 0, -1)
    np.testing.assert_array_equal(found.uncertainty, normalised_entropy(by_class_last))
    mean = found.uncertainty[found.mask > 0].mean()
    assert found.mean_uncertainty == pytest.approx(mean, rel=1e-5)


def test_without_foreground_there_is_no_mean_uncertainty(segmenter: Segmenter) -> None:
    found = segment(segmenter, np.full((2, 4, 4), -50, np.float32), Wanted(), spacing_mm=SPACING)
    assert found.mean_uncertainty is None


def test_the_slice_with_values_that_are_no_numbers_is_named(segmenter: Segmenter) -> None:
    array = stack(20)
    array[17, 2, 3] = np.nan
    with pytest.raises(ValueError, match="values that are not numbers in slice 17, expected HU"):
        segment(segmenter, array, Wanted(batch_size=4), spacing_mm=SPACING)


# --- What is unlike the training data -------------------------------------------------------------


def test_a_scan_like_those_of_training_raises_no_doubt(segmenter: Segmenter) -> None:
    assert unlike_training(image(body()), segmenter) == []
    assert unlike_training(image(body(), modality="CT"), segmenter) == []


@pytest.mark.parametrize(
    ("spacing", "doubtful"),
    [
        ((0.75 * 1.49, 0.5), False),
        ((0.75 * 1.51, 0.5), True),
        ((0.75, 0.5 / 1.49), False),
        ((0.75, 0.5 / 1.51), True),
    ],
)
def test_a_spacing_more_than_one_and_a_half_times_off_is_named(
    segmenter: Segmenter, spacing: tuple[float, float], doubtful: bool
) -> None:
    found = unlike_training(image(body(), spacing), segmenter)
    assert [text.endswith("0.75 x 0.5 mm in training") for text in found] == [True] * doubtful


def test_where_slices_are_resized_the_pixels_that_the_network_sees_count(
    segmenter: Segmenter,
) -> None:
    resizing = with_settings(segmenter, size_mode="resize", size=(10, 20))
    # 20 x 20 pixels of 0.375 x 0.5 mm become 10 x 20 of 0.75 x 0.5 mm, as in training.
    assert unlike_training(image(body(), (0.375, 0.5)), resizing) == []
    found = unlike_training(image(body(), (0.75, 0.5)), resizing)
    assert found == ["pixels of 1.5 x 0.5 mm after resizing, 0.75 x 0.5 mm in training"]


def test_a_slice_that_is_enlarged_more_than_twice_is_named(segmenter: Segmenter) -> None:
    resizing = with_settings(segmenter, size_mode="resize", size=(48, 24))
    found = unlike_training(image(body(20), (0.75 * 48 / 20, 0.5 * 24 / 20)), resizing)
    assert found == ["20 x 20 pixels, enlarged to 48 x 24"]


def test_where_slices_get_one_spacing_no_spacing_is_doubtful_but_a_coarse_one(
    segmenter: Segmenter,
) -> None:
    common = with_settings(segmenter, spacing_mm=SPACING)
    fine = image(body(40), (SPACING[0] / 4, SPACING[1] / 4))
    assert unlike_training(fine, common) == []
    # Pixels of 2.25 x 1.5 mm become nine of 0.75 x 0.5 mm.
    found = unlike_training(image(body(20), (3 * SPACING[0], 3 * SPACING[1])), common)
    assert found == ["20 x 20 pixels, enlarged to 60 x 60"]


def test_a_modality_other_than_ct_is_named(segmenter: Segmenter) -> None:
    assert unlike_training(image(body(), modality="PT"), segmenter) == ["modality PT, not CT"]


def test_values_without_air_or_fat_are_named(segmenter: Segmenter) -> None:
    found = unlike_training(image(np.where(body() > 0, 40, 0)), segmenter)
    assert found == ["values from 0 to 40: fat and air lie below 0 HU, tissue above"]


def test_values_that_ct_cannot_hold_are_named_but_not_what_fills_the_corners(
    segmenter: Segmenter,
) -> None:
    filled = body()
    filled[:, -2:] = -3024  # one value, the lowest
    assert unlike_training(image(filled), segmenter) == []
    filled[0, 0, :8] = 4000  # 8 of 400 pixels
    (found,) = unlike_training(image(filled), segmenter)
    assert found == "2% of the pixels outside what CT holds (-1024 to 3071 HU)"


def test_a_scan_that_lies_outside_the_window_is_named(segmenter: Segmenter) -> None:
    array = np.full((1, 20, 20), -900.0)
    array[0, 0, :16] = 50  # 4 % within -100 to 100 HU
    (found,) = unlike_training(image(array), segmenter)
    assert found == "96% of the pixels beyond the ends of the window (-100 to 100 HU)"


# --- The picture ----------------------------------------------------------------------------------


def test_a_picture_shows_the_slice_and_its_outlines_in_true_proportions() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 2
    grey = np.zeros((64, 64), np.float32)  # the middle of the window: grey 128
    picture = contour_picture(
        grey, mask, class_names=CLASSES, spacing_mm=(1.0, 0.5), window=(-100, 100)
    )
    # The width is 32 mm and becomes 512 pixels, the height of 64 mm 1024; the legend has 32.
    assert picture.shape == (32 + 1024, 2 * 512 + 2, 3)
    plain, outlined = picture[32:, :512], picture[32:, 514:]
    assert (plain == 128).all()
    lesion = COLOURS[2][:3]
    # Row 16 of the mask is row 256 of the picture, column 32 is column 256.
    np.testing.assert_array_equal(outlined[256, 256], lesion)
    np.testing.assert_array_equal(outlined[512, 256], (128, 128, 128))  # inside it
    np.testing.assert_array_equal(outlined[128, 256], (128, 128, 128))  # outside


def test_a_slice_is_never_drawn_smaller_than_it_is() -> None:
    mask = np.zeros((700, 900), np.uint8)
    picture = contour_picture(
        mask.astype(np.float32), mask, class_names=CLASSES, spacing_mm=(1, 1), window=(0, 1)
    )
    assert picture.shape == (32 + 700, 2 * 900 + 2, 3)
