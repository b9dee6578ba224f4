from dataclasses import asdict, replace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.pipeline import Augmentation, batches

PAD = -3.0
OFF = Augmentation(
    flip_horizontal=0,
    flip_vertical=0,
    rotation_degrees=0,
    scale=0,
    translation=0,
    brightness=0,
    contrast=0,
    gamma=0,
    noise=0,
)
ALL = Augmentation(
    flip_horizontal=0.5,
    flip_vertical=0.5,
    rotation_degrees=20,
    scale=0.2,
    translation=0.1,
    brightness=0.2,
    contrast=0.2,
    gamma=0.3,
    noise=0.05,
)


class Store:
    """Slices of random pixels, laid out one after the other as `prepare` writes them."""

    def __init__(self, sizes, seed=0):
        rng = np.random.default_rng(seed)
        self.pictures = [rng.uniform(-1, 1, size).astype(np.float16) for size in sizes]
        self.truths = [rng.integers(0, 3, size).astype(np.uint8) for size in sizes]
        self.sizes = sizes

    def batches(self, indices=None, **changes):
        heights, widths = np.array(self.sizes).T
        ends = np.cumsum(heights * widths)
        arguments = {
            "batch_size": 1,
            "multiple": 1,
            "pad_value": PAD,
            "shuffle": False,
            "seed": 0,
            "epoch": 0,
            **changes,
        }
        return batches(
            np.concatenate([picture.ravel() for picture in self.pictures]),
            np.concatenate([truth.ravel() for truth in self.truths]),
            ends - heights * widths,
            heights,
            widths,
            np.arange(len(self.sizes)) if indices is None else np.array(indices),
            **arguments,
        )

    def single(self, **changes):
        """The only slice of the store, (H, W), as the pipeline gives it."""
        [(picture, truth)] = self.batches(**changes).as_numpy_iterator()
        return picture[0, ..., 0], truth[0]


def slices(dataset):
    return [
        (picture[..., 0], truth)
        for pictures, truths in dataset.as_numpy_iterator()
        for picture, truth in zip(pictures, truths, strict=True)
    ]


def test_slices_come_in_order_with_the_pixels_that_were_stored():
    store = Store([(3, 5)] * 5)
    dataset = store.batches(batch_size=2)
    assert len(dataset) == 3
    assert [pictures.shape for pictures, _ in dataset] == [(2, 3, 5, 1), (2, 3, 5, 1), (1, 3, 5, 1)]
    for (picture, truth), stored, mask in zip(
        slices(dataset), store.pictures, store.truths, strict=True
    ):
        assert (picture.dtype, truth.dtype) == (np.float32, np.uint8)
        np.testing.assert_array_equal(picture, stored)
        np.testing.assert_array_equal(truth, mask)


def test_slices_of_a_memory_map_are_read_from_the_file(tmp_path):
    np.save(tmp_path / "images.npy", np.arange(8, dtype=np.float16))
    np.save(tmp_path / "masks.npy", np.arange(8, dtype=np.uint8))
    images, masks = (
        np.load(tmp_path / name, mmap_mode="r") for name in ("images.npy", "masks.npy")
    )
    [(picture, truth)] = batches(
        images,
        masks,
        *(np.array([0, 2]), np.array([1, 2]), np.array([2, 3]), np.array([1])),
        batch_size=1,
        multiple=1,
        pad_value=PAD,
        shuffle=False,
        seed=0,
        epoch=0,
    ).as_numpy_iterator()
    np.testing.assert_array_equal(picture[0, ..., 0], [[2, 3, 4], [5, 6, 7]])
    np.testing.assert_array_equal(truth[0], [[2, 3, 4], [5, 6, 7]])


def test_a_batch_is_padded_to_its_largest_slice_rounded_up():
    store = Store([(3, 5), (6, 2)])
    [(pictures, truths)] = store.batches(batch_size=2, multiple=4).as_numpy_iterator()
    assert pictures.shape == (2, 8, 8, 1)  # 6 and 5, rounded up to multiples of 4
    for index, (height, width) in enumerate(store.sizes):
        inside = np.zeros((8, 8), bool)
        inside[:height, :width] = True
        np.testing.assert_array_equal(pictures[index, ~inside, 0], PAD)
        np.testing.assert_array_equal(truths[index, ~inside], 0)
        np.testing.assert_array_equal(pictures[index, inside, 0], store.pictures[index].ravel())
        np.testing.assert_array_equal(truths[index, inside], store.truths[index].ravel())


def test_the_size_is_known_beforehand_where_all_slices_share_it():
    assert Store([(3, 5), (4, 7)]).batches(multiple=4).element_spec[0].shape == (None, 4, 8, 1)
    assert Store([(3, 5), (9, 7)]).batches(multiple=4).element_spec[0].shape == (None, None, 8, 1)


def test_shuffling_keeps_every_slice_once_and_depends_on_seed_and_epoch_alone():
    store = Store([(1, 2)] * 20)

    def order(**changes):
        return [picture.tobytes() for picture, _ in slices(store.batches(shuffle=True, **changes))]

    first = order(seed=1, epoch=2)
    assert sorted(first) == sorted(picture.tobytes() for picture, _ in slices(store.batches()))
    assert first == order(seed=1, epoch=2, batch_size=7)
    assert len({tuple(first), tuple(order(seed=1, epoch=3)), tuple(order(seed=2, epoch=2))}) == 3


def test_a_slice_looks_the_same_in_any_order_batch_and_number_of_threads():
    store = Store([(33, 47), (40, 29), (64, 64), (16, 50), (33, 47), (21, 21)])
    alone = slices(store.batches(augmentation=ALL, seed=5, epoch=7))

    options = tf.data.Options()
    options.threading.private_threadpool_size = 7
    options.threading.max_intra_op_parallelism = 1
    order = [4, 2, 0, 5, 3, 1]
    together = slices(
        store.batches(
            order, augmentation=ALL, seed=5, epoch=7, batch_size=3, multiple=16
        ).with_options(options)
    )
    for index, (picture, truth) in zip(order, together, strict=True):
        height, width = store.sizes[index]
        np.testing.assert_array_equal(picture[:height, :width], alone[index][0])
        np.testing.assert_array_equal(truth[:height, :width], alone[index][1])
        assert (picture[height:] == PAD).all()
        assert (picture[:, width:] == PAD).all()


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}])
def test_another_seed_or_epoch_shows_a_slice_in_another_way(change):
    store = Store([(16, 16)])
    assert not np.array_equal(
        store.single(augmentation=ALL)[0], store.single(augmentation=ALL, **change)[0]
    )


def test_equal_slices_of_different_index_are_augmented_differently():
    store = Store([(16, 16)] * 2)
    store.pictures[1] = store.pictures[0]
    (one, _), (other, _) = slices(store.batches(augmentation=ALL))
    assert not np.array_equal(one, other)


def test_augmentation_with_everything_off_changes_nothing():
    store = Store([(5, 8)])
    picture, truth = store.single(augmentation=OFF)
    np.testing.assert_array_equal(picture, store.pictures[0])
    np.testing.assert_array_equal(truth, store.truths[0])


@pytest.mark.parametrize(("name", "axis"), [("flip_horizontal", 1), ("flip_vertical", 0)])
def test_a_flip_is_exact(name, axis):
    store = Store([(5, 8)])
    picture, truth = store.single(augmentation=replace(OFF, **{name: 1}))
    np.testing.assert_array_equal(picture, np.flip(store.pictures[0], axis))
    np.testing.assert_array_equal(truth, np.flip(store.truths[0], axis))


def test_a_flip_of_probability_one_half_happens_to_half_of_the_slices():
    store = Store([(1, 2)] * 400)
    shown = slices(store.batches(augmentation=replace(OFF, flip_horizontal=0.5)))
    flipped = sum(
        not np.array_equal(picture, stored)
        for (picture, _), stored in zip(shown, store.pictures, strict=True)
    )
    assert abs(flipped - 200) < 4 * 10  # standard deviation sqrt(400 / 4) = 10


@settings(max_examples=5, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.tuples(st.integers(1, 48), st.integers(1, 48)), min_size=10, max_size=20),
)
def test_truth_moves_with_the_picture(seed, sizes):
    # The picture shows the mask itself. Bilinear interpolation gives the pixel that the mask
    # took, the nearest, a weight of at least 1/2 x 1/2: never further from it than 3/4.
    store = Store(sizes, seed)
    store.truths = [np.minimum(truth, 1) for truth in store.truths]
    store.pictures = [truth.astype(np.float16) for truth in store.truths]
    moving = replace(ALL, brightness=0, contrast=0, gamma=0, noise=0)
    for picture, truth in slices(store.batches(augmentation=moving, seed=seed, pad_value=0.0)):
        assert set(np.unique(truth)) <= {0, 1}
        assert np.abs(picture - truth).max() <= 0.75 + 1e-4


def test_a_rotation_turns_about_the_centre_and_fills_with_air_and_background():
    store = Store([(31, 31)] * 10)
    store.pictures = [np.ones_like(picture) for picture in store.pictures]
    store.truths = [np.full_like(truth, 2) for truth in store.truths]
    shown = slices(store.batches(augmentation=replace(OFF, rotation_degrees=180)))
    for picture, truth in shown:
        assert picture[15, 15] == 1
        assert truth[15, 15] == 2
        assert picture.min() >= PAD
        assert set(np.unique(truth)) <= {0, 2}
    assert any(picture[0, 0] == PAD and truth[0, 0] == 0 for picture, truth in shown)


def test_a_translation_stays_within_its_fraction():
    store = Store([(20, 40)] * 50)
    for truth in store.truths:
        truth[:] = 0
        truth[10, 20] = 1
    for _, truth in slices(store.batches(augmentation=replace(OFF, translation=0.1))):
        [[row, column]] = np.argwhere(truth)
        assert abs(row - 10) <= 2  # 0.1 of 20
        assert abs(column - 20) <= 4  # 0.1 of 40


def test_a_scale_of_a_fifth_changes_an_area_by_at_most_its_square():
    store = Store([(64, 64)] * 20)
    for truth in store.truths:
        truth[:] = 0
        truth[22:42, 22:42] = 1  # 400 pixels
    shown = slices(store.batches(augmentation=replace(OFF, scale=0.2)))
    areas = [truth.sum() for _, truth in shown]
    assert min(areas) >= 15**2  # 0.8 x 20 = 16, less a row of pixels by rounding
    assert max(areas) <= 25**2  # 1.2 x 20 = 24, and one more
    assert min(areas) < 400 < max(areas)


def test_brightness_adds_one_number_to_the_picture_and_none_to_the_mask():
    store = Store([(6, 6)])
    picture, truth = store.single(augmentation=replace(OFF, brightness=0.5))
    added = picture - store.pictures[0].astype(np.float32)
    np.testing.assert_allclose(added, added[0, 0], atol=1e-6)
    assert 0 < abs(added[0, 0]) <= 0.5
    np.testing.assert_array_equal(truth, store.truths[0])


def test_contrast_stretches_about_the_mean_of_the_slice():
    store = Store([(6, 6)])
    picture, _ = store.single(augmentation=replace(OFF, contrast=0.3))
    stored = store.pictures[0].astype(np.float32)
    factors = (picture - stored.mean()) / (stored - stored.mean())
    np.testing.assert_allclose(factors, factors[0, 0], rtol=1e-3)
    assert 0.7 <= factors[0, 0] <= 1.3
    assert factors[0, 0] != 1


def test_gamma_keeps_the_order_and_range_of_the_values():
    store = Store([(6, 6)])
    picture, _ = store.single(augmentation=replace(OFF, gamma=0.5), pad_value=-1.0)
    stored = store.pictures[0].astype(np.float32)
    unit = (picture + 1) / (stored.max() + 1)  # from [pad_value, maximum] to [0, 1]
    inner = stored < stored.max()
    powers = np.log(unit[inner]) / np.log((stored[inner] + 1) / (stored.max() + 1))
    np.testing.assert_allclose(powers, powers[0], rtol=1e-3)
    assert 1 / 1.5 <= powers[0] <= 1.5
    assert powers[0] != 1


def test_gamma_of_a_constant_slice_changes_nothing():
    store = Store([(6, 6)])
    store.pictures[0][:] = 0.25
    picture, _ = store.single(augmentation=replace(OFF, gamma=0.5), pad_value=0.25)
    np.testing.assert_array_equal(picture, 0.25)


def test_noise_has_the_deviation_asked_for():
    store = Store([(100, 100)])
    picture, _ = store.single(augmentation=replace(OFF, noise=0.1))
    noise = picture - store.pictures[0].astype(np.float32)
    assert noise.std() == pytest.approx(0.1, rel=0.05)  # of 10,000 values: 0.7 %
    assert abs(noise.mean()) < 0.005


def test_switching_one_change_off_leaves_the_others_as_they_were():
    store = Store([(12, 12)])
    with_noise = store.single(augmentation=ALL)[1]
    without = store.single(augmentation=replace(ALL, noise=0, brightness=0))[1]
    np.testing.assert_array_equal(with_noise, without)


@pytest.mark.parametrize("name", asdict(OFF))
def test_a_negative_augmentation_is_refused(name):
    with pytest.raises(ValueError, match=rf"augmentation {name} must be from 0 \(off\) .*got -0.1"):
        replace(OFF, **{name: -0.1})


@pytest.mark.parametrize(
    ("name", "value"),
    [("flip_vertical", 1.1), ("rotation_degrees", 181), ("scale", 1), ("noise", float("nan"))],
)
def test_an_augmentation_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"augmentation {name} must be from 0"):
        replace(OFF, **{name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"multiple": 0}, "multiple must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"epoch": -1}, "epoch must be at least 0, got -1"),
        ({"indices": []}, "indices must name at least one slice, got none"),
        ({"indices": [0, 2]}, "indices must be from 0 to 1, got 0 to 2"),
    ],
)
def test_a_wrong_argument_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Store([(2, 2)] * 2).batches(**change)


PIXELS = np.zeros(8, np.float16)
LABELS = np.zeros(8, np.uint8)


@pytest.mark.parametrize(
    ("images", "masks", "offsets", "heights", "message"),
    [
        (PIXELS, LABELS[:7], [0], [2], r"of one length, got shapes \(8,\) and \(7,\)"),
        (PIXELS, LABELS, [0, 4], [2], "of one length, got 2, 1 and 1"),
        (PIXELS, LABELS, [4], [4], "within the 8 pixels of the arrays, got one that ends at 12"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(images, masks, offsets, heights, message):
    with pytest.raises(ValueError, match=message):
        batches(
            images,
            masks,
            np.array(offsets),
            np.array(heights),
            np.array([2]),
            np.array([0]),
            batch_size=1,
            multiple=1,
            pad_value=PAD,
            shuffle=False,
            seed=0,
            epoch=0,
        )
