import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from src.data.preprocessing import Preprocessing
from src.inference import Segmenter, load_segmenter, most_probable
from src.model_files import load_card
from tests.tiny_models import CLASSES, NATIVE, expected_mask, save_threshold_model, save_unet

RESIZED = Preprocessing(-100.0, 100.0, 0.5, 0.25, "resize", (16, 24), 4)


def slices(*sizes: tuple[int, int]) -> list[np.ndarray]:
    """Slices of whole HU that keep clear of the thresholds at 0 and 50 HU."""
    generator = np.random.default_rng(3)
    return [generator.choice([-80.0, -20.0, 20.0, 80.0], size).astype(np.float32) for size in sizes]


@pytest.fixture(scope="module")
def threshold(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return load_segmenter(save_threshold_model(tmp_path_factory.mktemp("models") / "threshold"))


@pytest.fixture(scope="module")
def unet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_unet(tmp_path_factory.mktemp("models") / "unet", RESIZED)


@pytest.fixture(scope="module")
def unet(unet_folder: Path) -> Segmenter:
    return load_segmenter(unet_folder)


def test_probabilities_sum_to_one_at_the_size_of_each_slice(unet: Segmenter) -> None:
    images = slices((20, 30), (16, 24), (20, 30), (7, 50))
    found = unet.probabilities(images)
    assert [p.shape for p in found] == [(20, 30, 3), (16, 24, 3), (20, 30, 3), (7, 50, 3)]
    for probability in found:
        assert probability.dtype == np.float32
        np.testing.assert_allclose(probability.sum(axis=-1), 1, atol=1e-5)


def test_each_slice_gets_its_own_mask_whatever_its_neighbours_in_the_batch(
    threshold: Segmenter,
) -> None:
    images = slices((9, 5), (4, 4), (9, 5), (4, 4), (9, 5))
    for mask, image in zip(threshold.masks(images, batch_size=2), images, strict=True):
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, expected_mask(image))


def test_padded_slices_come_back_without_their_margins(tmp_path: Path) -> None:
    padded = replace(NATIVE, size_mode="pad", size=(16, 16), multiple=8)
    segmenter = load_segmenter(save_threshold_model(tmp_path / "m", padded))
    images = slices((5, 11), (20, 17))  # become 16 x 16 and 24 x 24
    for mask, image in zip(segmenter.masks(images), images, strict=True):
        np.testing.assert_array_equal(mask, expected_mask(image))


@pytest.fixture
def common(tmp_path: Path) -> Segmenter:
    """The thresholds, on pixels of 2 x 1 mm."""
    settings = replace(NATIVE, spacing_mm=(2.0, 1.0))
    return load_segmenter(save_threshold_model(tmp_path / "common", settings))


def test_a_scan_of_another_spacing_is_segmented_at_the_scale_of_training(
    common: Segmenter,
) -> None:
    # Columns of 20 mm at 20 and 80 HU, of two scans: pixels of 1 x 2 mm, and of 4 x 0.5 mm.
    for columns, spacing in ((20, (1.0, 2.0)), (80, (4.0, 0.5))):
        image = np.where(np.arange(columns) < columns // 2, 20.0, 80.0)[None].repeat(8, axis=0)
        [mask] = common.masks([image], spacing)
        np.testing.assert_array_equal(mask, expected_mask(image))
    seen: list[tuple[int, ...]] = []
    forward = common._network
    common._network = lambda batch: (seen.append(batch.shape), forward(batch))[1]  # type: ignore[func-returns-value]
    common.masks([np.zeros((8, 20)), np.zeros((8, 20))], [(1.0, 2.0), (4.0, 0.5)])
    assert seen == [(1, 4, 40, 1), (1, 16, 10, 1)]


def test_spacings_that_are_missing_or_not_one_of_each_slice_are_errors(common: Segmenter) -> None:
    images = [np.zeros((8, 8))] * 3
    assert common.needs_spacing
    with pytest.raises(ValueError, match="must be known: give spacing_mm"):
        common.masks(images)
    with pytest.raises(ValueError, match=r"one of each of the 3 slices, got shape \(2, 2\)"):
        common.masks(images, [(1.0, 1.0), (1.0, 1.0)])


def test_masks_are_the_most_probable_classes(unet: Segmenter) -> None:
    images = slices((20, 30), (16, 24))
    for mask, p in zip(unet.masks(images), unet.probabilities(images), strict=True):
        np.testing.assert_array_equal(mask, p.argmax(axis=-1))


def test_of_classes_that_are_equally_probable_the_first_is_taken() -> None:
    row = np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0.3, 0.3, 0.4], [1.0, 0.0, 0.0]], np.float32)
    found = most_probable(row[None])
    assert found.dtype == np.uint8
    assert found.tolist() == [[0, 1, 2, 0]]


def test_a_stack_and_a_list_of_its_slices_are_the_same(unet: Segmenter) -> None:
    stack = np.stack(slices((20, 30), (20, 30), (20, 30)))
    np.testing.assert_array_equal(unet.probabilities(stack), unet.probabilities(list(stack)))


def test_the_size_of_the_batch_does_not_change_a_mask(threshold: Segmenter) -> None:
    stack = np.stack(slices(*[(6, 6)] * 5))
    np.testing.assert_array_equal(
        threshold.masks(stack, batch_size=1), threshold.masks(stack, batch_size=5)
    )


def test_no_slices_give_an_empty_list(unet: Segmenter) -> None:
    assert unet.probabilities([]) == []
    assert unet.masks(np.empty((0, 8, 8), np.float32)) == []


@pytest.mark.parametrize("wrong", [np.zeros(5), np.zeros((2, 3, 4)), np.zeros((0, 4))])
def test_a_slice_that_is_no_picture_is_an_error(unet: Segmenter, wrong: np.ndarray) -> None:
    shape = str(wrong.shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=f"slice 1 must be a 2-D picture in HU, got.*{shape}"):
        unet.probabilities([np.zeros((4, 4)), wrong])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_an_error(unet: Segmenter, value: float) -> None:
    image = np.zeros((4, 4))
    image[1, 2] = value
    with pytest.raises(ValueError, match="slice 0 holds values that are not finite"):
        unet.masks([image])


def test_a_saved_model_gives_the_same_probabilities_after_loading(
    unet: Segmenter, unet_folder: Path
) -> None:
    images = slices((20, 30))
    again = load_segmenter(unet_folder)
    np.testing.assert_array_equal(again.probabilities(images)[0], unet.probabilities(images)[0])
    assert again.settings == RESIZED
    assert again.class_names == CLASSES
    assert again.num_classes == 3


def test_a_folder_without_a_model_is_named_with_the_command_that_trains_one(
    tmp_path: Path,
) -> None:
    with pytest.raises(FileNotFoundError, match=r"unet: no model there .*`dvc repro train`"):
        load_segmenter(tmp_path / "unet")


def test_the_card_of_a_folder_is_read_as_it_was_saved(unet_folder: Path) -> None:
    card = load_card(unet_folder)
    assert card.classes == CLASSES
    assert card.spacing_mm == (0.75, 0.5)
    content = json.loads((unet_folder / "model.json").read_text(encoding="utf-8"))
    assert content["architecture"] == card.architecture == "unet"


def test_a_model_and_a_card_of_different_runs_are_refused(tmp_path: Path) -> None:
    save_unet(tmp_path, NATIVE)
    path = tmp_path / "model.json"
    path.write_text(path.read_text().replace('"unet"', '"unetpp"'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"model\.json describes a unetpp .* holds a unet"):
        load_segmenter(tmp_path)
