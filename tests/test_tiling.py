import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.tiling import Tiling, importance, mean_over_flips, sliding_window, starts

AIR = -1.0


def pointwise(batch):
    """Two classes that depend on a pixel alone."""
    share = 1 / (1 + np.exp(-batch[..., :1]))
    return np.concatenate([share, 1 - share], axis=-1).astype(np.float32)


def run(forward, picture, patch_size, overlap=0.5, batch_size=3):
    return sliding_window(
        forward, picture, Tiling(patch_size, overlap), batch_size=batch_size, pad_value=AIR
    )


@pytest.mark.parametrize(
    ("length", "side", "overlap", "expected"),
    [
        (4, 4, 0.5, [0]),
        (10, 4, 0.5, [0, 2, 4, 6]),  # 6 pixels to go in steps of 2
        (9, 4, 0.5, [0, 2, 3, 5]),  # 5 to go: three steps of 5/3, rounded
        (10, 4, 0.0, [0, 3, 6]),  # two steps of at most 4
        (6, 4, 0.9, [0, 1, 2]),  # a step is never less than a pixel
        # 9 to go; steps of 4.8 would be 0, 4.5, 9, rounded 4 and 5: an overlap of 11/16 < 0.7.
        (25, 16, 0.7, [0, 3, 6, 9]),
        (96, 80, 0.9, [0, 8, 16]),  # 80 * (1 - 0.9) is 7.999… in floating point
    ],
)
def test_patches_are_spread_evenly_from_end_to_end(length, side, overlap, expected):
    assert starts(length, side, overlap) == expected


@given(
    length=st.integers(1, 2000),
    side=st.integers(1, 512),
    overlap=st.integers(0, 99).map(lambda percent: percent / 100),
)
def test_neighbours_share_at_least_the_overlap_with_no_patch_too_many(length, side, overlap):
    length = max(length, side)
    found = starts(length, side, overlap)
    assert (found[0], found[-1]) == (0, length - side)
    # In hundredths, as whole numbers: a step leaves 100 - overlap percent of the side, or a pixel.
    longest = max(side * (100 - round(100 * overlap)) // 100, 1)
    steps = np.diff(found)
    assert ((steps >= 1) & (steps <= longest)).all()
    assert (len(found) - 2) * longest < length - side or len(found) == 1


@given(
    length=st.integers(16, 4000),
    side=st.integers(1, 32).map(lambda count: 16 * count),
    overlap=st.sampled_from([0, 0.25, 0.5, 0.75]),
)
def test_steps_that_are_whole_by_themselves_are_spread_over_the_least_number(length, side, overlap):
    length = max(length, side)
    number = -(-(length - side) // int(side * (1 - overlap))) + 1
    expected = np.linspace(0, length - side, number).round()
    assert starts(length, side, overlap) == expected.tolist()


def test_the_weights_are_a_gaussian_of_an_eighth_of_the_sides():
    weights = importance((9, 17))
    assert weights.shape == (9, 17)
    assert weights[4, 8] == 1
    # One deviation, 9/8 rows, is exp(-1/2); the corner is 4 / (9/8) and 8 / (17/8) deviations off.
    assert weights[5, 8] == pytest.approx(np.exp(-0.5 * (8 / 9) ** 2))
    assert weights[0, 0] == pytest.approx(np.exp(-0.5 * ((32 / 9) ** 2 + (64 / 17) ** 2)))
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])


@pytest.mark.parametrize("size", [(20, 30), (8, 8), (5, 30), (3, 4)])
def test_a_constant_network_gives_its_constant(size):
    def constant(batch):
        return np.broadcast_to(np.float32([0.25, 0.75]), (*batch.shape[:3], 2))

    found = run(constant, np.zeros((*size, 1), np.float32), (8, 8))
    assert found.dtype == np.float32
    assert found.shape == (*size, 2)
    np.testing.assert_allclose(found, np.broadcast_to([0.25, 0.75], found.shape), atol=1e-6)


@pytest.mark.parametrize("patch_size", [(8, 8), (32, 6), (64, 64)])
@pytest.mark.parametrize("overlap", [0, 0.5, 0.75])
def test_patches_of_a_network_that_looks_at_a_pixel_alone_give_the_whole(patch_size, overlap):
    picture = np.random.default_rng(0).normal(size=(21, 34, 3)).astype(np.float32)
    found = run(pointwise, picture, patch_size, overlap)
    np.testing.assert_allclose(found, pointwise(picture[None])[0], atol=1e-6)


def test_where_patches_meet_they_are_averaged_by_their_weights():
    # Each patch says its own first value everywhere: 1 for the first, 3 for the second.
    def first_value(batch):
        return np.broadcast_to(batch[:, :1, :1], batch.shape)

    picture = np.array([1, 0, 3, 0, 0, 0], np.float32).reshape(1, 6, 1)
    [found] = run(first_value, picture, (1, 4))[..., 0]
    # Pixel 2 is the third of the first patch, 1/2 off its middle, and the first of the second,
    # 3/2 off; the deviation is 4/8.
    inner, outer = np.exp(-0.5 * 1**2), np.exp(-0.5 * 3**2)
    middle = (inner * 1 + outer * 3) / (inner + outer)
    np.testing.assert_allclose(found, [1, 1, middle, 4 - middle, 3, 3], rtol=1e-6)


def test_a_network_sees_patches_of_its_size_padded_with_air_and_no_more_than_a_batch():
    seen = []

    def watching(batch):
        seen.append(batch.copy())
        return pointwise(batch)

    run(watching, np.zeros((5, 20, 1), np.float32), (8, 8), batch_size=3)
    assert [batch.shape for batch in seen] == [(3, 8, 8, 1), (1, 8, 8, 1)]
    for batch in seen:
        assert (batch[:, 1:6] == 0).all()  # 3 rows too few: 1 above, 2 below
        assert (batch[:, [0, 6, 7]] == AIR).all()


def test_the_mean_over_flips_is_that_of_four_views_mirrored_back():
    batch = np.array([[1, 2], [3, 4]], np.float32).reshape(1, 2, 2, 1)

    def first_doubled(pictures):
        result = pictures.copy()
        result[:, 0, 0] *= 2
        return result

    # Each of the four pixels is the first in one of the views, and doubled there: (3 x + 2 x) / 4.
    np.testing.assert_allclose(mean_over_flips(first_doubled)(batch), batch * 1.25)


@pytest.mark.parametrize(("patch_size", "overlap"), [((0, 8), 0.5), ((8, 8), 1.0), ((8, 8), -0.1)])
def test_a_tiling_out_of_range_is_refused(patch_size, overlap):
    with pytest.raises(ValueError, match=rf"overlap by 0 to below 1, got .* and {overlap}\. Mend"):
        Tiling(patch_size, overlap)
