import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.spatial.distance import cdist

from src.evaluation.surface import assd_mm, hausdorff_mm, nsd, surface_distances

HALF = math.sqrt(0.5)  # the contour cuts off the corner of a pixel of 1 mm

masks = hnp.arrays(np.bool_, (6, 9))
volumes = hnp.arrays(np.bool_, (3, 4, 5))
spacings = st.floats(0.3, 6.0)


def disc(centre, radius, size=64):
    y, x = np.ogrid[:size, :size]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def of_pixels(shape, *pixels):
    mask = np.zeros(shape, bool)
    for pixel in pixels:
        mask[pixel] = True
    return mask


def boundary_pixels(mask):
    """Pixels of the mask with a neighbour by side that is not of it, one by one."""
    padded = np.pad(mask, 1)
    found = []
    for place in np.argwhere(padded):
        steps = [*np.eye(mask.ndim, dtype=int), *-np.eye(mask.ndim, dtype=int)]
        if not all(padded[tuple(place + step)] for step in steps):
            found.append(place)
    return np.array(found, float).reshape(-1, mask.ndim)


def contour(mask, spacing):
    """Cells of 2 x 2 pixels that the contour passes, and its length in each, one by one."""
    padded = np.pad(mask, 1)
    height, width = spacing
    places, lengths = [], []
    for y, x in np.ndindex(padded.shape[0] - 1, padded.shape[1] - 1):
        cell = padded[y : y + 2, x : x + 2]
        diagonal = math.hypot(height, width)
        if cell.sum() in (1, 3):
            length = diagonal / 2
        elif cell.sum() == 2 and cell[0, 0] == cell[1, 1]:
            length = diagonal
        elif cell.sum() == 2:
            length = width if cell[0, 0] == cell[0, 1] else height
        else:
            continue
        places.append((y, x))
        lengths.append(length)
    return np.array(places, float).reshape(-1, 2), np.array(lengths)


class TestGivenPairs:
    """Two pairs whose answers were worked out beforehand."""

    def test_a_second_lesion_missed_is_as_far_off_as_its_far_side(self):
        truth, prediction = disc((32, 32), 12) | disc((8, 8), 3), disc((32, 32), 12)
        distances = surface_distances(truth, prediction, (1.0, 1.0))

        # From the pixel (6, 6) to (24, 24), and the 95th percentile 18 down and 17 across.
        assert hausdorff_mm(distances, 100) == pytest.approx(18 * math.sqrt(2), abs=1e-4)
        assert hausdorff_mm(distances, 100) == pytest.approx(25.4558, abs=1e-4)
        assert hausdorff_mm(distances) == pytest.approx(math.hypot(18, 17))
        assert hausdorff_mm(distances) == pytest.approx(24.7588, abs=1e-4)

    def test_a_disc_moved_by_three_pixels_has_half_its_contour_within_a_millimetre(self):
        distances = surface_distances(disc((32, 32), 12), disc((32, 35), 12), (0.7, 0.7))

        assert nsd(distances, tolerance_mm=1.0) == pytest.approx(0.5)
        assert hausdorff_mm(distances, 100) == pytest.approx(3 * 0.7)


class TestDistances:
    def test_those_between_two_pixels_are_those_counted_by_hand(self):
        # Three pixels of 0.5 mm apart along x. Of the four corners of a pixel two are 3 steps from
        # the other pixel's, and two 2 steps; each holds the same length of contour.
        truth, prediction = of_pixels((3, 6), (1, 1)), of_pixels((3, 6), (1, 4))
        distances = surface_distances(truth, prediction, (2.0, 0.5))

        assert distances.from_truth.pixels_mm.tolist() == [1.5]
        assert distances.from_truth.elements_mm.tolist() == [1.5, 1.0, 1.5, 1.0]
        assert distances.from_prediction.elements_mm.tolist() == [1.0, 1.5, 1.0, 1.5]
        assert distances.from_truth.sizes.tolist() == pytest.approx([math.hypot(2, 0.5) / 2] * 4)
        assert hausdorff_mm(distances) == 1.5
        assert assd_mm(distances) == pytest.approx(1.25)
        assert nsd(distances, 0.9) == 0.0
        assert nsd(distances, 1.0) == 0.5
        assert nsd(distances, 1.5) == 1.0

    def test_the_contour_of_a_rectangle_has_its_corners_cut_off(self):
        truth = np.zeros((7, 9), bool)
        truth[2:5, 3:7] = True  # 3 by 4 pixels
        sizes = surface_distances(truth, truth, (1.0, 1.0)).from_truth.sizes

        # Between the centres of the outermost pixels the sides are 2 and 3 pixels long.
        assert sizes.sum() == pytest.approx(2 * (2 + 3) + 4 * HALF)

    def test_the_mean_is_weighted_by_the_length_of_the_contour(self):
        # The truth is two pixels by one. Cells along x hold 1 mm of contour, those at the corners
        # 0.7071 mm. The prediction has the right one of the two.
        truth, prediction = of_pixels((3, 4), (1, 1), (1, 2)), of_pixels((3, 4), (1, 2))
        distances = surface_distances(truth, prediction, (1.0, 1.0))

        # From the truth: two corners 1 mm away, all else 0. From the prediction: all 0.
        total = (2 + 4 * HALF) + 4 * HALF
        assert assd_mm(distances) == pytest.approx(2 * HALF * 1.0 / total)
        assert nsd(distances, 0.5) == pytest.approx(1 - 2 * HALF / total)

    def test_the_edge_of_the_image_bounds_a_mask(self):
        truth = np.ones((4, 5), bool)
        prediction = truth.copy()
        prediction[0] = False
        distances = surface_distances(truth, prediction, (3.0, 1.0))

        assert distances.from_truth.pixels_mm.size == 14  # 2 * (4 + 5) - 4
        assert hausdorff_mm(distances) == 3.0

    def test_a_pixel_whose_diagonal_neighbour_alone_is_outside_is_not_at_the_boundary(self):
        truth = np.zeros((7, 7), bool)
        truth[1:6, 1:6] = True
        truth[1, 1] = False
        pixels = surface_distances(truth, truth, (1.0, 1.0)).from_truth.pixels_mm

        # Of 5 by 5 pixels 16 are at the boundary. Without its corner 15 are: (2, 2) is not.
        assert pixels.size == 15

    def test_the_larger_of_the_two_directions_counts_for_the_hausdorff_distance(self):
        # Each pixel of the prediction lies on the truth, whose other pixel is 5 away.
        truth, prediction = of_pixels((3, 8), (1, 1), (1, 6)), of_pixels((3, 8), (1, 1))
        distances = surface_distances(truth, prediction, (1.0, 1.0))

        assert distances.from_prediction.pixels_mm.tolist() == [0.0]
        assert hausdorff_mm(distances, 100) == 5.0
        assert hausdorff_mm(distances, 95) == pytest.approx(0.95 * 5)  # between 0 and 5
        assert hausdorff_mm(distances, 0) == 0.0

    @pytest.mark.parametrize("steps", [6, 7, 8])
    def test_the_nearest_place_may_be_more_pixels_away_than_the_other(self, steps):
        # Five pixels along x are 5 mm, and so many along y steps * 0.6 mm.
        truth = of_pixels((16, 16), (2, 2))
        prediction = of_pixels((16, 16), (2, 7), (2 + steps, 2))
        distances = surface_distances(truth, prediction, (0.6, 1.0))

        assert distances.from_truth.pixels_mm.tolist() == pytest.approx([steps * 0.6])

    def test_rounding_does_not_decide_at_the_tolerance(self):
        # 3 * 0.1 is 0.30000000000000004.
        truth, prediction = of_pixels((3, 12), (1, 1)), of_pixels((3, 12), (1, 4))
        distances = surface_distances(truth, prediction, (0.1, 0.1))

        assert nsd(distances, tolerance_mm=0.3) == 1.0

    def test_a_prediction_equal_to_the_truth_is_perfect(self):
        distances = surface_distances(disc((30, 30), 9), disc((30, 30), 9), (0.7, 0.9))

        assert hausdorff_mm(distances, 100) == 0.0
        assert assd_mm(distances) == 0.0
        assert nsd(distances, tolerance_mm=0.0) == 1.0

    def test_a_volume_has_its_slices_as_far_apart_as_its_spacing_says(self):
        truth, prediction = of_pixels((4, 3, 3), (0, 1, 1)), of_pixels((4, 3, 3), (2, 1, 1))
        distances = surface_distances(truth, prediction, (5.0, 0.7, 0.7))

        assert hausdorff_mm(distances) == 10.0
        assert assd_mm(distances) == pytest.approx(7.5)  # half the cells 1, half 2 slices away
        assert nsd(distances, tolerance_mm=5.0) == pytest.approx(0.5)
        # Eight corners cut off: triangles from the midpoints of edges of 5, 0.7 and 0.7 mm.
        side, base = math.hypot(2.5, 0.35), math.hypot(0.35, 0.35)
        triangle = base / 2 * math.sqrt(side**2 - (base / 2) ** 2)
        assert distances.from_truth.sizes.tolist() == pytest.approx([triangle] * 8)

    def test_the_surface_of_a_box_has_its_edges_and_corners_cut_off(self):
        truth = np.zeros((5, 6, 7), bool)
        truth[1:3, 1:4, 1:5] = True  # 2 by 3 by 4 voxels: 1, 2 and 3 mm between the outermost
        sizes = surface_distances(truth, truth, (1.0, 1.0, 1.0)).from_truth.sizes

        faces = 2 * (1 * 2 + 1 * 3 + 2 * 3)
        edges = 4 * (1 + 2 + 3) * HALF
        corners = 8 * math.sqrt(3) / 8  # triangles with sides of HALF
        assert sizes.sum() == pytest.approx(faces + edges + corners)


class TestAgainstEveryPair:
    """Against the distances of all pairs, in masks so small that these can be listed."""

    @settings(max_examples=150, deadline=None)
    @given(masks, masks, st.tuples(spacings, spacings))
    def test_all_quantities_of_a_slice(self, truth, prediction, spacing):
        assume(truth.any() and prediction.any())
        distances = surface_distances(truth, prediction, spacing)

        pairs = cdist(boundary_pixels(truth) * spacing, boundary_pixels(prediction) * spacing)
        for percentile in (50, 95, 100):
            directed = [np.percentile(pairs.min(axis=axis), percentile) for axis in (0, 1)]
            assert hausdorff_mm(distances, percentile) == pytest.approx(max(directed))
        (places, lengths), (others, other_lengths) = (
            contour(mask, spacing) for mask in (truth, prediction)
        )
        pairs = cdist(places * spacing, others * spacing)
        nearest = np.concatenate([pairs.min(axis=1), pairs.min(axis=0)])
        weights = np.concatenate([lengths, other_lengths])
        assert assd_mm(distances) == pytest.approx(np.average(nearest, weights=weights))
        near = np.average(nearest <= 1.234567, weights=weights)
        assert nsd(distances, 1.234567) == pytest.approx(near)

    @settings(max_examples=50, deadline=None)
    @given(volumes, volumes, st.tuples(spacings, spacings, spacings))
    def test_the_hausdorff_distance_of_a_volume(self, truth, prediction, spacing):
        assume(truth.any() and prediction.any())
        pairs = cdist(boundary_pixels(truth) * spacing, boundary_pixels(prediction) * spacing)

        directed = [np.percentile(pairs.min(axis=axis), 95) for axis in (0, 1)]
        distances = surface_distances(truth, prediction, spacing)
        assert hausdorff_mm(distances) == pytest.approx(max(directed))

    @pytest.mark.parametrize(
        ("truth", "prediction"),
        [
            # Boundaries of some 400 pixels far from each other.
            (disc((90, 80), 70, 400), disc((300, 310), 60, 400)),
            # Far more places than are looked at together.
            tuple(np.random.default_rng(0).random((2, 400, 400)) < 0.5),
        ],
        ids=["far", "noise"],
    )
    def test_large_boundaries_against_maps_of_distances(self, truth, prediction):
        spacing = (0.7, 1.1)
        edges = [mask & ~binary_erosion(mask) for mask in (truth, prediction)]
        maps = [distance_transform_edt(~edge, sampling=spacing) for edge in edges]
        distances = surface_distances(truth, prediction, spacing)

        np.testing.assert_allclose(distances.from_truth.pixels_mm, maps[1][edges[0]], atol=1e-9)
        np.testing.assert_allclose(
            distances.from_prediction.pixels_mm, maps[0][edges[1]], atol=1e-9
        )


class TestLaws:
    @settings(max_examples=50, deadline=None)
    @given(masks, masks)
    def test_truth_and_prediction_can_be_swapped(self, truth, prediction):
        one = surface_distances(truth, prediction, (0.8, 1.5))
        two = surface_distances(prediction, truth, (0.8, 1.5))

        for quantity in (hausdorff_mm, assd_mm, lambda found: nsd(found, 1.0)):
            assert quantity(one) == pytest.approx(quantity(two), nan_ok=True)

    @settings(max_examples=50, deadline=None)
    @given(masks, masks, st.floats(0.1, 10.0))
    def test_distances_grow_with_the_spacing(self, truth, prediction, factor):
        one = surface_distances(truth, prediction, (0.8, 1.5))
        two = surface_distances(truth, prediction, (0.8 * factor, 1.5 * factor))

        assert hausdorff_mm(two) == pytest.approx(factor * hausdorff_mm(one), nan_ok=True)
        assert assd_mm(two) == pytest.approx(factor * assd_mm(one), nan_ok=True)
        # 1.5 mm is a distance of neighbours: also there rounding must not decide.
        assert nsd(two, 1.5 * factor) == pytest.approx(nsd(one, 1.5), nan_ok=True)

    @settings(max_examples=50, deadline=None)
    @given(masks, masks)
    def test_axes_can_be_swapped_with_their_spacing_and_the_image_be_larger(
        self, truth, prediction
    ):
        assume(truth.any() and prediction.any())
        one = surface_distances(truth, prediction, (0.8, 1.5))
        turned = [np.pad(mask.T, ((4, 1), (0, 7))) for mask in (truth, prediction)]
        two = surface_distances(*turned, (1.5, 0.8))

        assert hausdorff_mm(two) == pytest.approx(hausdorff_mm(one))
        assert assd_mm(two) == pytest.approx(assd_mm(one))
        assert nsd(two, 1.0) == pytest.approx(nsd(one, 1.0))

    @settings(max_examples=50, deadline=None)
    @given(masks, masks)
    def test_nsd_grows_with_the_tolerance_from_0_to_1(self, truth, prediction):
        assume(truth.any() and prediction.any())
        distances = surface_distances(truth, prediction, (0.8, 1.5))
        shares = [nsd(distances, tolerance) for tolerance in (0.0, 0.8, 1.5, 3.0, 20.0)]

        assert shares == sorted(shares)
        assert shares[0] >= 0.0
        assert shares[-1] == pytest.approx(1.0)

    @settings(max_examples=30, deadline=None)
    @given(masks)
    def test_every_pixel_of_a_single_slice_is_at_the_boundary_of_its_volume(self, truth):
        volume = np.pad(truth[None], ((1, 1), (0, 0), (0, 0)))

        pixels = surface_distances(volume, volume, (5.0, 0.8, 1.5)).from_truth.pixels_mm
        assert pixels.size == truth.sum()


class TestEmpty:
    DIAGONAL = 25.0  # of 3 by 4 pixels of 5 mm

    def distances(self, truth, prediction):
        return surface_distances(truth, prediction, (5.0, 5.0))

    @pytest.mark.parametrize("swapped", [False, True])
    def test_one_empty_mask_is_as_bad_as_can_be(self, swapped):
        pair = (of_pixels((3, 4), (1, 1)), of_pixels((3, 4)))
        distances = self.distances(*(pair[::-1] if swapped else pair))

        assert distances.num_empty == 1
        assert hausdorff_mm(distances) == self.DIAGONAL
        assert assd_mm(distances) == self.DIAGONAL
        assert nsd(distances, tolerance_mm=1000.0) == 0.0

    def test_two_empty_masks_are_not_scored(self):
        distances = self.distances(of_pixels((3, 4)), of_pixels((3, 4)))

        assert distances.num_empty == 2
        assert math.isnan(hausdorff_mm(distances))
        assert math.isnan(assd_mm(distances))
        assert math.isnan(nsd(distances, tolerance_mm=1.0))

    def test_no_distance_between_masks_exceeds_that_of_an_empty_one(self):
        corners = of_pixels((3, 4), (0, 0)), of_pixels((3, 4), (2, 3))

        assert hausdorff_mm(self.distances(*corners)) == pytest.approx(5 * math.hypot(2, 3))
        assert hausdorff_mm(self.distances(*corners)) < self.DIAGONAL

    def test_an_image_without_a_pixel_is_not_scored(self):
        assert self.distances(np.zeros((0, 4), bool), np.zeros((0, 4), bool)).num_empty == 2


class TestBadInput:
    MASK = of_pixels((3, 4), (1, 1))

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_a_mask_that_is_not_boolean(self, dtype):
        with pytest.raises(TypeError, match=r"truth must be a boolean mask, got dtype .* == 1"):
            surface_distances(self.MASK.astype(dtype), self.MASK, (1.0, 1.0))
        with pytest.raises(TypeError, match="prediction must be a boolean mask"):
            surface_distances(self.MASK, self.MASK.astype(dtype), (1.0, 1.0))

    def test_different_shapes(self):
        with pytest.raises(ValueError, match=r"same shape, got \(3, 4\) and \(4, 3\)"):
            surface_distances(self.MASK, self.MASK.T, (1.0, 1.0))

    @pytest.mark.parametrize("spacing", [(1.0,), (5.0, 1.0, 1.0), 1.0])
    def test_a_spacing_of_other_axes(self, spacing):
        with pytest.raises(ValueError, match=r"spacing of \(y, x\).*got shape \(3, 4\)"):
            surface_distances(self.MASK, self.MASK, spacing)

    def test_a_mask_of_four_axes(self):
        with pytest.raises(ValueError, match=r"got shape \(1, 1, 3, 4\)"):
            surface_distances(self.MASK[None, None], self.MASK[None, None], (1.0,) * 4)

    @pytest.mark.parametrize("wrong", [0.0, -0.7, math.nan, math.inf])
    def test_a_spacing_that_no_pixel_has(self, wrong):
        with pytest.raises(ValueError, match=r"must be positive, got \[1.0, "):
            surface_distances(self.MASK, self.MASK, (1.0, wrong))

    @pytest.mark.parametrize("percentile", [-1.0, 100.5, math.nan])
    def test_a_percentile_out_of_range(self, percentile):
        distances = surface_distances(self.MASK, self.MASK, (1.0, 1.0))

        with pytest.raises(ValueError, match="between 0 and 100, got"):
            hausdorff_mm(distances, percentile)

    @pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf])
    def test_a_tolerance_that_is_no_distance(self, tolerance):
        distances = surface_distances(self.MASK, self.MASK, (1.0, 1.0))

        with pytest.raises(ValueError, match="tolerance_mm must be zero or more, got"):
            nsd(distances, tolerance)
