import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.augmentation import (
    Augmentation,
    View,
    augment,
    cut,
    inverse_matrix,
    numbers_of,
    random_stream,
    sampled,
    source_of,
    whole,
)

PAD = -3.0
KEY = (5, 7, 11)
OFF = Augmentation(
    flip_horizontal=0,
    flip_vertical=0,
    rotation_degrees=0,
    scale=0,
    shear_degrees=0,
    translation=0,
    elastic=0,
    probability=1,
    blur=0,
    low_resolution=0,
    gamma=0,
    contrast=0,
    brightness=0,
    noise=0,
)
MOVES = replace(
    OFF,
    flip_horizontal=0.5,
    flip_vertical=0.5,
    rotation_degrees=180,
    scale=0.3,
    shear_degrees=20,
    translation=0.1,
    elastic=0.1,
)
ALL = replace(
    MOVES,
    blur=1,
    low_resolution=1,
    gamma=0.3,
    contrast=0.2,
    brightness=0.2,
    noise=0.05,
)


def slice_of(height, width, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.uniform(-1, 1, (height, width)).astype(np.float16)
    return image, rng.integers(0, 3, (height, width)).astype(np.uint8)


def changed(image, mask, augmentation, key=KEY, view=None, pad_value=PAD):
    """Image (h, w) and mask (h, w) of a slice of one channel."""
    view = view or whole(*mask.shape)
    picture, truth = augment([image], mask, view, augmentation, pad_value=pad_value, key=key)
    assert (picture.dtype, truth.dtype) == (np.float32, np.uint8)
    assert picture.shape == (*truth.shape, 1)
    return picture[..., 0], truth


def keys(number):
    return [(0, 0, position) for position in range(number)]


def test_with_everything_off_nothing_changes():
    image, mask = slice_of(5, 8)
    picture, truth = changed(image, mask, OFF)
    np.testing.assert_array_equal(picture, image)
    np.testing.assert_array_equal(truth, mask)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("flip_horizontal", [[3, 2, 1], [6, 5, 4]]),
        ("flip_vertical", [[4, 5, 6], [1, 2, 3]]),
    ],
)
def test_a_flip_is_exact(name, expected):
    image = np.array([[1, 2, 3], [4, 5, 6]], np.float16)
    picture, truth = changed(image, image.astype(np.uint8), replace(OFF, **{name: 1}))
    assert picture.tolist() == expected
    assert truth.tolist() == expected


def test_a_flip_of_probability_one_half_happens_to_half_of_the_cases():
    image = np.array([[1, 2]], np.float16)
    half = replace(OFF, flip_horizontal=0.5)
    flipped = sum(
        changed(image, image.astype(np.uint8), half, key)[0][0, 0] == 2 for key in keys(400)
    )
    assert abs(flipped - 200) < 4 * 10  # standard deviation sqrt(400 / 4) = 10


def test_a_turn_by_90_degrees_is_exact_and_clockwise():
    image = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.float16)
    view = whole(3, 3)
    # 1 - 2 x 0.5 = 0 switches all else off; 1 is the largest angle, of 90 degrees here.
    numbers = dict.fromkeys(numbers_of(KEY), 0.5) | {"angle": 1.0}
    rows, columns = source_of(view, replace(OFF, rotation_degrees=90), numbers, KEY)
    picture, truth = sampled([image], image.astype(np.uint8), rows, columns, PAD)
    assert picture[0].tolist() == [[7, 4, 1], [8, 5, 2], [9, 6, 3]]
    assert truth.tolist() == [[7, 4, 1], [8, 5, 2], [9, 6, 3]]


def test_the_map_turns_leans_and_grows_as_computed_by_hand():
    # A growth by 2 looks at half the distance.
    assert inverse_matrix(angle=0, factor=2, shear=0) == ((0.5, 0), (0, 0.5))
    # Leaning by 45 degrees takes (x, y) to (x + y, y): back, x = x - y.
    assert inverse_matrix(angle=0, factor=1, shear=math.pi / 4) == (
        (1, 0),
        pytest.approx((-1, 1)),
    )
    # A quarter turn clockwise takes right (x) to below (y): back, x = y and y = -x.
    y, x = inverse_matrix(angle=math.pi / 2, factor=1, shear=0)
    assert y == pytest.approx((0, -1))
    assert x == pytest.approx((1, 0))


@pytest.mark.parametrize("key", keys(20))
def test_the_mask_holds_the_class_of_the_pixel_nearest_to_where_the_image_looks(key):
    # A picture of its own coordinates shows where each pixel comes from.
    rows, columns = np.mgrid[:40, :60].astype(np.float32)
    mask = np.random.default_rng(0).integers(0, 256, rows.shape).astype(np.uint8)
    picture, truth = augment(
        [rows, columns], mask, whole(40, 60), MOVES, pad_value=math.nan, key=key
    )
    inside = np.isfinite(picture).all(axis=-1)
    # OpenCV 4 rounds places to 1/32 of a pixel; halfway between two pixels either is right.
    clear = (np.abs(picture % 1 - 0.5) > 1 / 16).all(axis=-1)
    places = np.rint(picture[inside & clear]).astype(int)
    assert len(places) > 100
    np.testing.assert_array_equal(truth[inside & clear], mask[places[:, 0], places[:, 1]])


@settings(max_examples=30, deadline=None)
@given(
    key=st.tuples(st.integers(0, 2**31), st.integers(0, 2**31), st.integers(0, 2**31)),
    size=st.tuples(st.integers(1, 48), st.integers(1, 48)),
)
def test_truth_moves_with_the_picture(key, size):
    # The picture shows the mask itself. Linear interpolation gives the pixel that the mask took,
    # the nearest, a weight of at least 1/2 x 1/2: never further from it than 3/4.
    mask = np.random.default_rng(key).integers(0, 2, size).astype(np.uint8)
    picture, truth = changed(mask.astype(np.float16), mask, MOVES, key, pad_value=0.0)
    assert np.abs(picture - truth).max() <= 0.75 + 1e-4


def test_the_mask_holds_no_class_that_was_not_in_the_slice():
    image, mask = slice_of(64, 64)
    mask[mask == 1] = 200
    for key in keys(20):
        assert set(np.unique(changed(image, mask, ALL, key)[1])) <= {0, 2, 200}


def test_the_same_key_gives_the_same_case_and_another_key_another():
    image, mask = slice_of(32, 32)
    first = changed(image, mask, ALL)
    again = changed(image, mask, ALL)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    for other in [(6, 7, 11), (5, 8, 11), (5, 7, 12)]:
        assert not np.array_equal(first[0], changed(image, mask, ALL, other)[0])


def test_streams_and_keys_share_no_numbers():
    drawn = [
        random_stream(key, stream).random() for key in [(1, 2, 3), (1, 3, 2)] for stream in (0, 1)
    ]
    assert len(set(drawn)) == 4


@pytest.mark.parametrize("name", ["blur", "low_resolution", "gamma", "brightness", "noise"])
def test_switching_a_change_of_intensity_on_moves_the_mask_no_other_way(name):
    image, mask = slice_of(32, 32)
    changes = replace(MOVES, **{name: 0.5})
    np.testing.assert_array_equal(changed(image, mask, changes)[1], changed(image, mask, MOVES)[1])


@pytest.mark.parametrize("name", ["flip_horizontal", "scale", "elastic", "blur", "gamma"])
def test_switching_another_change_on_adds_the_same_brightness(name):
    image, mask = np.zeros((8, 8), np.float16), np.zeros((8, 8), np.uint8)
    bright = replace(OFF, brightness=0.5)
    # Of an empty picture, brightness is all there is to see.
    both = changed(image, mask, replace(bright, **{name: 0.1}), pad_value=0.0)[0]
    np.testing.assert_array_equal(both, changed(image, mask, bright, pad_value=0.0)[0])


def test_all_channels_are_moved_and_changed_alike_but_for_the_noise():
    image, mask = slice_of(32, 32)
    silent = replace(ALL, noise=0)
    picture, _ = augment([image, image], mask, whole(32, 32), silent, pad_value=PAD, key=KEY)
    np.testing.assert_array_equal(picture[..., 0], picture[..., 1])
    picture, _ = augment([image, image], mask, whole(32, 32), ALL, pad_value=PAD, key=KEY)
    assert not np.array_equal(picture[..., 0], picture[..., 1])


def test_a_view_inside_a_body_has_no_empty_corner():
    body, mask = np.ones((120, 120), np.float16), np.full((120, 120), 2, np.uint8)
    view = View(top=48, left=40, height=24, width=24, anchor=(11.5, 11.5))
    for key in keys(50):
        picture, truth = changed(body, mask, MOVES, key, view)
        assert (picture == 1).all()
        assert (truth == 2).all()


def test_what_lies_outside_the_slice_is_air_and_background():
    image, mask = np.ones((31, 31), np.float16), np.full((31, 31), 2, np.uint8)
    shown = [changed(image, mask, replace(OFF, rotation_degrees=180), key) for key in keys(10)]
    for picture, truth in shown:
        assert picture[15, 15] == 1  # the centre stays
        assert truth[15, 15] == 2
        assert picture.min() >= PAD
        assert set(np.unique(truth)) <= {0, 2}
    assert any(picture[0, 0] == PAD and truth[0, 0] == 0 for picture, truth in shown)


@pytest.mark.parametrize("corner", [(-3, 2), (4, 5), (-2, -2), (50, 0), (-20, -20)])
def test_a_view_that_reaches_beyond_the_slice_is_padded(corner):
    image, mask = slice_of(10, 12)
    view = View(*corner, height=8, width=16, anchor=(3.5, 7.5))
    around = np.full((110, 112), PAD, np.float32)
    around[50:60, 50:62] = image
    labels = np.zeros((110, 112), np.uint8)
    labels[50:60, 50:62] = mask
    part = np.s_[50 + corner[0] : 58 + corner[0], 50 + corner[1] : 66 + corner[1]]
    picture, truth = cut([image], mask, view, PAD)
    np.testing.assert_array_equal(picture[..., 0], around[part])
    np.testing.assert_array_equal(truth, labels[part])
    picture, truth = changed(image, mask, OFF, view=view)
    np.testing.assert_array_equal(picture, around[part])
    np.testing.assert_array_equal(truth, labels[part])


@pytest.mark.parametrize("anchor", [(3, 4), (0, 15), (12, 9)])
def test_the_pixel_at_the_anchor_stays_in_view(anchor):
    mask = np.zeros((64, 64), np.uint8)
    mask[20 + anchor[0], 30 + anchor[1]] = 1
    view = View(20, 30, 16, 16, anchor)
    turned = replace(MOVES, translation=0, elastic=0)
    for key in keys(50):
        assert changed(mask.astype(np.float16), mask, turned, key, view)[1].any()


def test_a_translation_stays_within_its_fraction():
    mask = np.zeros((20, 40), np.uint8)
    mask[10, 20] = 1
    for key in keys(50):
        _, truth = changed(mask.astype(np.float16), mask, replace(OFF, translation=0.1), key)
        [[row, column]] = np.argwhere(truth)
        assert abs(row - 10) <= 2  # 0.1 of 20
        assert abs(column - 20) <= 4  # 0.1 of 40


def test_a_scale_of_a_fifth_changes_an_area_by_at_most_its_square():
    mask = np.zeros((64, 64), np.uint8)
    mask[22:42, 22:42] = 1  # 400 pixels
    bigger = replace(OFF, scale=0.2)
    areas = [changed(mask.astype(np.float16), mask, bigger, key)[1].sum() for key in keys(20)]
    assert min(areas) >= 15**2  # 0.8 x 20 = 16, less a row of pixels by rounding
    assert max(areas) <= 25**2  # 1.2 x 20 = 24, and one more
    assert min(areas) < 400 < max(areas)


def test_a_lean_keeps_rows_in_their_place_and_areas_as_they_are():
    mask = np.zeros((64, 64), np.uint8)
    mask[22:42, 22:42] = 1
    for key in keys(10):
        _, truth = changed(mask.astype(np.float16), mask, replace(OFF, shear_degrees=30), key)
        # Each row is moved along itself.
        np.testing.assert_array_equal(truth.sum(axis=1), mask.sum(axis=1))


def test_the_strongest_elastic_change_does_not_fold_the_picture():
    most = dict.fromkeys(numbers_of(KEY), 0.5) | {"elastic": 1.0}
    smallest = []
    for key in keys(100):
        rows, columns = source_of(whole(64, 96), replace(OFF, elastic=0.1), most, key)
        (dyy, dyx), (dxy, dxx) = np.gradient(rows), np.gradient(columns)
        smallest.append((dyy * dxx - dyx * dxy).min())
    assert min(smallest) > 0  # the factor by which an area grows: turned over where negative
    assert min(smallest) < 0.8  # and something is changed


def test_brightness_adds_one_number_to_the_image_and_none_to_the_mask():
    image, mask = slice_of(6, 6)
    picture, truth = changed(image, mask, replace(OFF, brightness=0.5))
    added = picture - image.astype(np.float32)
    np.testing.assert_allclose(added, added[0, 0], atol=1e-6)
    assert 0 < abs(added[0, 0]) <= 0.5
    np.testing.assert_array_equal(truth, mask)


def test_contrast_stretches_about_the_mean_of_the_case():
    image, mask = slice_of(6, 6)
    picture, _ = changed(image, mask, replace(OFF, contrast=0.3))
    stored = image.astype(np.float32)
    factors = (picture - stored.mean()) / (stored - stored.mean())
    np.testing.assert_allclose(factors, factors[0, 0], rtol=1e-3)
    assert 0.7 <= factors[0, 0] <= 1.3
    assert factors[0, 0] != 1


def test_gamma_keeps_the_order_and_range_of_the_values():
    image, mask = slice_of(6, 6)
    picture, _ = changed(image, mask, replace(OFF, gamma=0.5), pad_value=-1.0)
    stored = image.astype(np.float32)
    unit = (picture + 1) / (stored.max() + 1)  # from [pad_value, maximum] to [0, 1]
    inner = stored < stored.max()
    powers = np.log(unit[inner]) / np.log((stored[inner] + 1) / (stored.max() + 1))
    np.testing.assert_allclose(powers, powers[0], rtol=1e-3)
    assert 1 / 1.5 <= powers[0] <= 1.5
    assert powers[0] != 1


def test_gamma_of_a_constant_slice_changes_nothing():
    image = np.full((6, 6), 0.25, np.float16)
    mask = np.zeros((6, 6), np.uint8)
    picture, _ = changed(image, mask, replace(OFF, gamma=0.5), pad_value=0.25)
    np.testing.assert_array_equal(picture, 0.25)


def test_noise_has_at_most_the_deviation_asked_for():
    image, mask = np.zeros((100, 100), np.float16), np.zeros((100, 100), np.uint8)
    deviations = []
    for key in keys(20):
        noise, _ = changed(image, mask, replace(OFF, noise=0.1), key)
        deviations.append(noise.std())
        assert abs(noise.mean()) < 0.005
    assert max(deviations) <= 0.103  # of 10,000 values: 0.7 %
    assert max(deviations) > 0.07
    assert min(deviations) < 0.03


def test_blur_spreads_a_point_without_losing_any_of_it():
    image, mask = np.zeros((41, 41), np.float16), np.zeros((41, 41), np.uint8)
    image[20, 20] = 1
    picture, _ = changed(image, mask, replace(OFF, blur=2), pad_value=0.0)
    assert picture.sum() == pytest.approx(1, abs=1e-3)
    assert picture.max() < 1
    np.testing.assert_allclose(picture, picture.T, atol=1e-6)


def test_low_resolution_averages_over_neighbours_and_keeps_what_is_even():
    image, mask = np.full((32, 32), 0.5, np.float16), np.zeros((32, 32), np.uint8)
    coarse = replace(OFF, low_resolution=3)
    np.testing.assert_allclose(changed(image, mask, coarse)[0], 0.5)
    image[:] = np.indices((32, 32)).sum(axis=0) % 2  # a chequerboard of mean 1/2
    for key in keys(5):
        picture, _ = changed(image, mask, coarse, key)
        assert picture.mean() == pytest.approx(0.5, abs=0.02)
        assert picture.std() < 0.5


@pytest.mark.parametrize("probability", [0, 0.25, 1])
def test_changes_of_intensity_happen_with_their_probability(probability):
    image, mask = np.zeros((2, 2), np.float16), np.zeros((2, 2), np.uint8)
    some = replace(OFF, brightness=1, probability=probability)
    happened = sum(changed(image, mask, some, key)[0].any() for key in keys(400))
    # standard deviation sqrt(400 x 1/4 x 3/4) = 8.7
    assert abs(happened - 400 * probability) <= 4 * 8.7 * (probability == 0.25)


@pytest.mark.parametrize("name", asdict(OFF))
def test_a_negative_value_is_refused(name):
    with pytest.raises(ValueError, match=rf"augmentation {name} must be from 0 \(off\) .*got -0.1"):
        replace(OFF, **{name: -0.1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flip_vertical", 1.1),
        ("rotation_degrees", 181),
        ("scale", 1),
        ("shear_degrees", 46),
        ("elastic", 0.11),
        ("probability", 2),
        ("noise", float("nan")),
    ],
)
def test_a_value_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"augmentation {name} must be from 0"):
        replace(OFF, **{name: value})
