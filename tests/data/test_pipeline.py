import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.data.arrays import Arrays
from src.data.augmentation import Augmentation, cut, whole
from src.data.pipeline import TrainingCases, augmented_examples, whole_slices
from src.data.preprocessing import Preprocessing
from src.data.sampling import Sampling

PAD = -0.5  # (0 - mean) / deviation of SETTINGS
SETTINGS = Preprocessing(
    window_low=0,
    window_high=1,
    mean=1,
    deviation=2,
    size_mode="native",
    size=(16, 16),
    multiple=1,
)
ALL = Augmentation(
    flip_horizontal=0.5,
    flip_vertical=0.5,
    rotation_degrees=20,
    scale=0.2,
    shear_degrees=10,
    translation=0.1,
    elastic=0.05,
    probability=0.5,
    blur=1,
    low_resolution=1,
    gamma=0.3,
    contrast=0.2,
    brightness=0.2,
    noise=0.05,
)
EVERY_SLICE = Sampling(patch_size=None, foreground=0.0, cases_per_epoch=None)


def arrays(sizes, *, volumes=None, masks=None, seed=0):
    """Slices of random pixels, laid out one after the other as `prepare` writes them."""
    rng = np.random.default_rng(seed)
    heights, widths = np.array(sizes).T
    ends = np.cumsum(heights * widths)
    volumes = np.zeros(len(sizes), int) if volumes is None else np.array(volumes)
    index = pd.DataFrame(
        {
            "volume": volumes,
            "position": range(len(sizes)),
            "offset": ends - heights * widths,
            "height": heights,
            "width": widths,
        }
    )
    if masks is None:
        masks = [rng.integers(0, 3, size) for size in sizes]
    return Arrays(
        images=rng.uniform(-1, 1, ends[-1]).astype(np.float16),
        masks=np.concatenate([mask.ravel() for mask in masks]).astype(np.uint8),
        index=index,
        settings=SETTINGS,
        classes=("background", "organ", "lesion"),
    )


def training(stored, rows=None, **changes):
    arguments = {
        "sampling": EVERY_SLICE,
        "augmentation": ALL,
        "context": 0,
        "batch_size": 4,
        "multiple": 1,
        "seed": 1,
        **changes,
    }
    rows = np.arange(len(stored.index)) if rows is None else np.array(rows)
    return TrainingCases(stored, rows, **arguments)


def validation(stored, rows=None, **changes):
    rows = np.arange(len(stored.index)) if rows is None else np.array(rows)
    return whole_slices(stored, rows, **{"context": 0, "batch_size": 4, "multiple": 1, **changes})


def test_validation_shows_every_slice_once_as_it_was_stored():
    stored = arrays([(3, 5)] * 5)
    batches = validation(stored, batch_size=2)
    assert [images.shape for images, _ in batches] == [(2, 3, 5, 1), (2, 3, 5, 1), (1, 3, 5, 1)]
    images = np.concatenate([images for images, _ in batches])
    masks = np.concatenate([masks for _, masks in batches])
    assert (images.dtype, masks.dtype) == (np.float32, np.uint8)
    np.testing.assert_array_equal(images.ravel(), stored.images)
    np.testing.assert_array_equal(masks.ravel(), stored.masks)


def test_validation_puts_slices_of_one_padded_size_together():
    stored = arrays([(3, 5), (9, 5), (4, 4), (9, 8)])
    batches = validation(stored, multiple=4)
    # 3 x 5 and 4 x 4 become 4 x 8 and 4 x 4; 9 x 5 and 9 x 8 both 12 x 8.
    assert [images.shape for images, _ in batches] == [
        (1, 4, 4, 1),
        (1, 4, 8, 1),
        (2, 12, 8, 1),
    ]


def test_a_case_is_padded_at_the_bottom_and_on_the_right_to_the_size_of_its_batch():
    stored = arrays([(3, 5), (6, 2)])
    [(images, masks)] = training(stored, augmentation=None, multiple=4).epoch(0)
    assert images.shape == (2, 8, 8, 1)  # 6 and 5, rounded up to multiples of 4
    for image, mask in zip(images, masks, strict=True):
        row = 0 if image[5, 0, 0] == PAD else 1
        height, width = stored.sizes[row]
        inside = np.zeros((8, 8), bool)
        inside[:height, :width] = True
        np.testing.assert_array_equal(image[~inside, 0], PAD)
        np.testing.assert_array_equal(mask[~inside], 0)
        np.testing.assert_array_equal(image[inside, 0], stored.slice(row)[0].ravel())
        np.testing.assert_array_equal(mask[inside], stored.slice(row)[1].ravel())


def test_the_data_set_holds_the_same_batches_and_knows_its_length_and_what_sizes_share():
    stored = arrays([(3, 5), (4, 7), (4, 7), (4, 7), (4, 7)])
    batches = training(stored, multiple=4, batch_size=2).epoch(3)
    dataset = batches.dataset()
    assert len(dataset) == 3
    assert dataset.element_spec[0].shape == (None, 4, 8, 1)
    for (images, masks), (expected, truths) in zip(
        dataset.as_numpy_iterator(), batches, strict=True
    ):
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(masks, truths)
    mixed = training(arrays([(3, 5), (9, 7)]), multiple=4).epoch(0).dataset()
    assert mixed.element_spec[1].shape == (None, None, 8)


def test_an_epoch_without_sampling_shows_every_slice_once():
    stored = arrays([(1, 2)] * 20)
    cases = training(stored, augmentation=None)
    shown = {image.tobytes() for images, _ in cases.epoch(0) for image in images}
    assert shown == {image.tobytes() for images, _ in validation(stored) for image in images}
    assert cases.steps_per_epoch == 5


def test_a_case_looks_the_same_in_any_order_and_batch():
    stored = arrays([(33, 47), (40, 29), (16, 50), (21, 21), (33, 47)])
    one, other = (training(stored, batch_size=size).epoch(7) for size in (1, 3))
    backwards = [other[number] for number in reversed(range(len(other)))][::-1]
    together = [case for batch in backwards for case in zip(*batch, strict=True)]
    for (images, masks), (image, mask) in zip(one, together, strict=True):
        height, width = masks.shape[1:]
        np.testing.assert_array_equal(image[:height, :width], images[0])
        np.testing.assert_array_equal(mask[:height, :width], masks[0])
        assert (image[height:] == PAD).all()
        assert (image[:, width:] == PAD).all()


@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 1}])
def test_another_seed_or_epoch_shows_a_slice_in_another_way(change):
    stored = arrays([(16, 16)])
    [(image, _)] = training(stored).epoch(0)
    epoch = change.pop("epoch", 0)
    [(other, _)] = training(stored, **change).epoch(epoch)
    assert not np.array_equal(image, other)


def test_a_slice_that_comes_twice_in_an_epoch_looks_different():
    [(images, _)] = training(
        arrays([(16, 16)]), sampling=Sampling(None, 0.0, cases_per_epoch=2)
    ).epoch(0)
    assert not np.array_equal(images[0], images[1])


def digests():
    """Of all batches of an epoch with patches, foreground, context and augmentation."""
    cases = training(
        arrays([(40, 50)] * 12), sampling=Sampling((16, 24), 0.5, 20), context=1, batch_size=3
    )
    return [
        hashlib.sha256(part.tobytes()).hexdigest() for batch in cases.epoch(4) for part in batch
    ]


def test_another_process_makes_the_same_batches():
    code = "from tests.data.test_pipeline import digests; print(*digests())"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(digests()) == 14  # 7 batches of images and masks
    assert found.stdout.split() == digests()


def test_neighbouring_slices_come_as_channels_and_end_with_their_scan():
    stored = arrays([(4, 4)] * 4, volumes=[0, 0, 0, 1])
    [(images, masks)] = validation(stored, context=1)
    for row, before, after in [(0, 0, 1), (1, 0, 2), (2, 1, 2), (3, 3, 3)]:
        for channel, shown in enumerate((before, row, after)):
            np.testing.assert_array_equal(images[row, ..., channel], stored.slice(shown)[0])
        np.testing.assert_array_equal(masks[row], stored.slice(row)[1])


def test_channels_of_a_training_case_are_moved_together():
    stored = arrays([(24, 24)] * 3)
    stored.images[:] = np.tile(stored.images[: 24 * 24], 3)  # all slices alike
    moves = replace(ALL, probability=0)
    [(images, _)] = training(stored, [1], augmentation=moves, context=1).epoch(0)
    np.testing.assert_array_equal(images[..., 0], images[..., 1])
    np.testing.assert_array_equal(images[..., 2], images[..., 1])


def test_patches_are_cut_at_the_resolution_of_the_slices():
    stored = arrays([(40, 50), (64, 33)])
    cases = training(
        stored, augmentation=None, sampling=Sampling((16, 24), 0.0, 6), multiple=8, batch_size=6
    )
    batches = cases.epoch(0)
    assert batches.sides == (16, 24)
    [(images, masks)] = batches
    assert images.shape == (6, 16, 24, 1)
    wholes = [
        cut([stored.slice(r)[0]], stored.slice(r)[1], whole(*stored.sizes[r]), 0) for r in (0, 1)
    ]
    for image, mask in zip(images, masks, strict=True):
        found = [
            np.array_equal(picture[top : top + 16, left : left + 24], image)
            and np.array_equal(truth[top : top + 16, left : left + 24], mask)
            for picture, truth in wholes
            for top in range(truth.shape[0] - 15)
            for left in range(truth.shape[1] - 23)
        ]
        assert sum(found) == 1


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_the_share_of_patches_that_is_asked_for_holds_foreground(share):
    # A single pixel of each class, so that a patch placed anywhere hardly holds one.
    masks = [np.zeros((64, 64), np.uint8) for _ in range(6)]
    masks[0][0, 63] = masks[1][30, 20] = 1
    masks[5][40, 41] = 2
    turning = replace(ALL, elastic=0, rotation_degrees=180, scale=0.5)
    cases = training(
        arrays([(64, 64)] * 6, masks=masks),
        sampling=Sampling((8, 8), share, 80),
        augmentation=turning,
        batch_size=80,
    )
    [(_, truths)] = cases.epoch(0)
    held = truths.reshape(80, -1).max(axis=1)
    wanted = 80 * share
    by_chance = 80 * (1 - share) * 0.1
    assert wanted <= np.count_nonzero(held) <= wanted + by_chance
    assert np.count_nonzero(held == 2) >= wanted / 2  # the rare class, as often as the other


def test_whole_slices_can_be_drawn_for_their_foreground():
    masks = [np.zeros((4, 4), np.uint8) for _ in range(10)]
    masks[3][1, 1] = 2
    cases = training(
        arrays([(4, 4)] * 10, masks=masks),
        sampling=Sampling(None, 0.5, 10),
        augmentation=None,
        batch_size=10,
    )
    [(_, truths)] = cases.epoch(0)
    assert np.count_nonzero(truths.reshape(10, -1).any(axis=1)) >= 5


def test_a_patch_is_not_shifted_out_of_its_slice():
    stored = arrays([(8, 8)])
    shifted = Augmentation(**{**dict.fromkeys(vars(ALL), 0), "translation": 0.5})
    [(images, _)] = training(
        stored, augmentation=shifted, sampling=Sampling((8, 8), 0.0, None)
    ).epoch(0)
    np.testing.assert_array_equal(images[0, ..., 0], stored.slice(0)[0])


def test_examples_hold_the_slice_and_what_the_epochs_make_of_it():
    stored = arrays([(16, 16)] * 3)
    examples = augmented_examples(
        stored, np.array([2, 0]), sampling=EVERY_SLICE, augmentation=ALL, versions=3, seed=1
    )
    assert [example.row for example in examples] == [2, 0]
    for example in examples:
        np.testing.assert_array_equal(example.image, stored.slice(example.row)[0])
        np.testing.assert_array_equal(example.mask, stored.slice(example.row)[1])
        assert [image.shape for image, _ in example.changed] == [(16, 16)] * 3
        assert len({image.tobytes() for image, _ in example.changed}) == 3


def test_examples_of_patches_show_the_last_class_of_the_slice():
    mask = np.zeros((64, 64), np.uint8)
    mask[0:3, 0] = 1
    mask[50, 20] = 2
    [example] = augmented_examples(
        arrays([(64, 64)], masks=[mask]),
        np.array([0]),
        sampling=Sampling((8, 8), 0.0, None),
        augmentation=None,
        versions=5,
        seed=1,
    )
    assert all((truth == 2).any() for _, truth in example.changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"multiple": 0}, "multiple must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"context": -1}, "context must be at least 0, got -1"),
        ({"rows": []}, "rows must name at least one slice, got none"),
        ({"rows": [0, 2]}, "rows must be from 0 to 1, got 0 to 2"),
        (
            {"sampling": Sampling((12, 16), 0.0, None), "multiple": 8},
            r"patch_size must be divisible by 8, got \[12, 16\]",
        ),
    ],
)
def test_a_wrong_argument_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        training(arrays([(2, 2)] * 2), **change)


def test_a_negative_epoch_is_refused():
    with pytest.raises(ValueError, match=r"epoch must be from 0 .*, got -1"):
        training(arrays([(2, 2)])).epoch(-1)
