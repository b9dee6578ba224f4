"""How far the boundaries of two masks lie from each other: HD95, ASSD and NSD, in mm.

The nearest distances are computed once; every quantity is read from them:

    distances = surface_distances(truth == 1, prediction == 1, (0.7, 0.7))
    hausdorff_mm(distances), assd_mm(distances), nsd(distances, tolerance_mm=1.0)

The Hausdorff distance follows Metrics Reloaded and is that of boundary pixels: those that erosion
by the cross takes away (4 neighbours, 6 in a volume), each counting the same. NSD and ASSD follow
Nikolov et al. and are those of boundary elements between the pixels, each counting by its length
(its area in a volume). Beyond the image there is background, so that a mask is bounded by the
image's edge too.

| mask in | Hausdorff | ASSD | NSD |
|---|---|---|---|
| truth and prediction | mm | mm | in [0, 1] |
| one of the two | diagonal of the image, mm | diagonal of the image, mm | 0 |
| neither | NaN, not scored | NaN, not scored | NaN, not scored |

Other programs differ where both masks are present, too:

- DeepMind's surface-distance has the same boundary elements in a slice. It weights the percentiles
  of its Hausdorff distance by their length and does not interpolate, gives the averages of the two
  directions one by one, and lets rounding decide at the very tolerance. In a volume the elements of
  some cells have another area: NSD and ASSD differ in the third digit.
- Metrics Reloaded has the same Hausdorff distance. Its ASSD and NSD count boundary pixels.
- MedPy has the same boundary pixels. Its HD95 is one percentile of both directions together, which
  a large boundary can hide a far part in, and its ASSD counts pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from src.evaluation.surface_elements import element_sizes

# A distance of 3 x 0.1 mm is 0.30000000000000004: within a tolerance of 0.3 mm all the same.
_ROUNDING = 1e-9

# Most of a boundary lies within a few pixels of the other one: there it is looked for step by step,
# which takes a fraction of the time of a tree. So many pixels far along the finest axis.
_REACH = {2: 5, 3: 2}
_FIRST = 29  # steps that are tried on all, the others where these do not find it
_BLOCK = 1 << 15  # places looked at together: some 30 MB
_FEW = 1 << 16  # pairs that are measured one by one sooner than a tree is made


@dataclass(frozen=True, eq=False)
class DirectedDistances:
    """From everywhere on the boundary of one mask to the nearest place on that of the other.

    Attributes:
        pixels_mm: (N,) float64, from each boundary pixel to the nearest boundary pixel.
        elements_mm: (M,) float64, from each boundary element to the nearest boundary element.
        sizes: (M,) float64, the elements' lengths in mm, or areas in mm² in a volume.

    All are empty where the mask is empty, and all distances infinite where the other one is.
    """

    pixels_mm: NDArray[np.float64]
    elements_mm: NDArray[np.float64]
    sizes: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """The distances between two boundaries, in both directions.

    Attributes:
        from_truth: From the truth's boundary to the prediction's.
        from_prediction: From the prediction's boundary to the truth's.
        diagonal_mm: Of the image, from one outer corner to the other.
    """

    from_truth: DirectedDistances
    from_prediction: DirectedDistances
    diagonal_mm: float

    @property
    def num_empty(self) -> int:
        """How many of the two masks are empty: 0, 1 or 2."""
        return (not self.from_truth.pixels_mm.size) + (not self.from_prediction.pixels_mm.size)


def surface_distances(
    truth: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> SurfaceDistances:
    """Compute the distances between the boundaries of two masks, for the functions below to read.

    Args:
        truth: Boolean mask (H, W), or (D, H, W) for a volume.
        prediction: Boolean mask, shaped as `truth`.
        spacing_mm: Distance of neighbouring pixels in mm, (y, x), or (z, y, x) for a volume, where
            z is the distance from slice to slice.

    Returns:
        The distances in both directions. Where both masks are empty there are none.

    Raises:
        ValueError: If the shapes differ, the masks have neither two nor three axes, or the spacing
            is not one positive number an axis.
        TypeError: If a mask is not boolean.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    spacing = _checked_spacing(truth, prediction, spacing_mm)
    diagonal_mm = math.hypot(*(spacing * truth.shape))
    inside = _cropped(truth, prediction)
    codes, table = _cell_codes(inside), element_sizes(tuple(spacing.tolist()))
    flags = np.empty((2, 2, *inside.shape[1:]), np.bool_)
    flags[:, 0] = _boundary_pixels(inside)
    flags[:, 1] = (codes > 0) & (codes < table.size - 1)
    found, distances_mm = _nearest_mm(flags, spacing)
    from_truth, from_prediction = (
        DirectedDistances(
            pixels_mm=distances_mm[2 * mask],
            elements_mm=distances_mm[2 * mask + 1],
            sizes=table[codes[mask].ravel()[found[2 * mask + 1]]],
        )
        for mask in (0, 1)
    )
    return SurfaceDistances(from_truth, from_prediction, diagonal_mm)


def hausdorff_mm(distances: SurfaceDistances, percentile: float = 95.0) -> float:
    """Return a percentile of the Hausdorff distance: the larger of the two directed percentiles.

    Args:
        distances: Of two masks.
        percentile: In [0, 100]; 95 gives HD95, 100 the Hausdorff distance itself. Between two
            distances it is interpolated.

    Returns:
        Distance in mm; the diagonal of the image with one mask empty, NaN with both.

    Raises:
        ValueError: If `percentile` is out of range.

    Source: Maier-Hein et al. 2024, Metrics Reloaded; the diagonal is this project's rule.
    """
    if not 0.0 <= percentile <= 100.0:
        raise ValueError(f"percentile must lie between 0 and 100, got {percentile}. Pass 95.")
    if distances.num_empty:
        return _distance_of_empty(distances)
    both = (distances.from_truth.pixels_mm, distances.from_prediction.pixels_mm)
    return max(_percentile(found, percentile) for found in both)


def assd_mm(distances: SurfaceDistances) -> float:
    """Return the average symmetric surface distance: the mean over both boundaries together.

    Args:
        distances: Of two masks.

    Returns:
        Distance in mm, each boundary element weighted by its size; the diagonal of the image with
        one mask empty, NaN with both.

    Source: Nikolov et al. 2018, who give the two directions one by one; the diagonal is this
    project's rule.
    """
    if distances.num_empty:
        return _distance_of_empty(distances)
    both = (distances.from_truth, distances.from_prediction)
    total = sum(float(side.elements_mm @ side.sizes) for side in both)
    return total / sum(float(side.sizes.sum()) for side in both)


def nsd(distances: SurfaceDistances, tolerance_mm: float) -> float:
    """Return the normalised surface distance: the share of both boundaries near the other one.

    Args:
        distances: Of two masks.
        tolerance_mm: Largest distance in mm that counts as near, zero or more.

    Returns:
        Share in [0, 1] of the boundaries' length (area in a volume); 0 with one mask empty, NaN
        with both.

    Raises:
        ValueError: If the tolerance is negative or not a finite number.

    Source: Nikolov et al. 2018, Deep learning to achieve clinically applicable segmentation of head
    and neck anatomy for radiotherapy, there called the surface DSC.
    """
    if not 0.0 <= tolerance_mm < math.inf:
        raise ValueError(f"tolerance_mm must be zero or more, got {tolerance_mm}. Pass 1.0.")
    if distances.num_empty == 2:
        return math.nan
    limit = tolerance_mm * (1.0 + _ROUNDING)
    both = (distances.from_truth, distances.from_prediction)
    near = sum(float(side.sizes[side.elements_mm <= limit].sum()) for side in both)
    return near / sum(float(side.sizes.sum()) for side in both)


def _checked_spacing(
    truth: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> NDArray[np.float64]:
    """Return the spacing as an array; refuse masks and spacing that do not fit each other."""
    for role, mask in (("truth", truth), ("prediction", prediction)):
        if mask.dtype != np.bool_:
            raise TypeError(
                f"{role} must be a boolean mask, got dtype {mask.dtype}. Compare the class indices "
                "with one class: mask == 1."
            )
    if truth.shape != prediction.shape:
        raise ValueError(
            f"truth and prediction must have the same shape, got {truth.shape} and "
            f"{prediction.shape}. Bring the prediction back to the size of the truth."
        )
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if truth.ndim not in (2, 3) or spacing.shape != (truth.ndim,):
        raise ValueError(
            "masks must be (H, W) with a spacing of (y, x), or (D, H, W) with (z, y, x), got shape "
            f"{truth.shape} and spacing {spacing.tolist()}. Pass one class of one slice or volume."
        )
    if not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(
            f"spacing_mm must be positive, got {spacing.tolist()}. Pass (1.0, 1.0) for distances "
            "in pixels where the spacing is not known."
        )
    return spacing


def _distance_of_empty(distances: SurfaceDistances) -> float:
    """Return the distance between masks of which one is empty, or both."""
    return distances.diagonal_mm if distances.num_empty == 1 else math.nan


def _percentile(values: NDArray[np.float64], percentile: float) -> float:
    """Return what np.percentile does, which takes several times as long for some hundred values."""
    position = percentile / 100.0 * (values.size - 1)
    lower, upper = math.floor(position), math.ceil(position)
    low, high = np.partition(values, (lower, upper))[[lower, upper]]
    return float(low + (position - lower) * (high - low))


def _cropped(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return both masks, (2, ...), in the box around them with a margin of background."""
    box: tuple[slice, ...] = ()
    either = (truth | prediction).view(np.uint8)
    for axis in range(truth.ndim):
        others = tuple(other for other in range(truth.ndim) if other != axis)
        found = np.flatnonzero(np.bitwise_or.reduce(either[box], axis=others))
        box += (slice(found[0], found[-1] + 1) if found.size else slice(0, 0),)
    # So wide that no step from a boundary, of _nearest_mm or to a neighbour, leaves its mask.
    margin = _REACH[truth.ndim] + 1
    middle = tuple(slice(margin, margin + side.stop - side.start) for side in box)
    inside = np.zeros((2, *(side.stop + margin for side in middle)), np.uint8)
    inside[0][middle] = truth[box]
    inside[1][middle] = prediction[box]
    return inside


# The two functions below walk along the flat array, in steps to the next entry of each axis. A walk
# over the end of a row meets the margin: nothing but background on either side.


def _boundary_pixels(inside: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels of both masks, (2, ...), lie at their boundaries."""
    flat = inside.ravel()
    eroded = flat.copy()
    for step in inside.strides[1:]:  # in bytes, of which a pixel takes one
        eroded[step:] &= flat[:-step]
        eroded[:-step] &= flat[step:]
    return (flat > eroded).reshape(inside.shape)


def _cell_codes(inside: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the code of the cell that begins at each pixel, (2, ...), for `element_sizes`."""
    codes = inside.ravel().copy()
    # Two pixels make a pair, two pairs a square, two squares a cube.
    for step, factor in zip(inside.strides[:0:-1], (2, 4, 16), strict=False):
        codes[:-step] += codes[step:] * factor
    return codes.reshape(inside.shape)


def _nearest_mm(
    flags: NDArray[np.bool_], spacing: NDArray[np.float64]
) -> tuple[list[NDArray[np.intp]], list[NDArray[np.float64]]]:
    """Return the places on the boundary of each mask, and how far the other's is from each.

    Args:
        flags: (2, 2, ...), of both masks the pixels and the elements at the boundary; none within
            reach of the edges.
        spacing: In mm.

    Returns:
        Flat indices, of the first mask's pixels and elements and then the second's, and the
        distances in mm to the same kind of the other mask: infinite where that is empty.
    """
    flat, shape = flags.ravel(), flags.shape[2:]
    size = flags[0, 0].size
    found = np.flatnonzero(flat)
    ends = np.searchsorted(found, size * np.arange(5))
    across = found + 2 * size  # the same places in the other mask
    across[ends[2] :] -= 4 * size
    distances = np.full(found.size, np.inf)
    offsets, lengths_mm = _ball(tuple(spacing.tolist()))
    steps = offsets @ np.array(flags.strides[2:])
    for count in (_FIRST, steps.size):
        left = np.flatnonzero(np.isinf(distances))
        for start in range(0, left.size, _BLOCK):
            block = left[start : start + _BLOCK]
            hits = flat[across[block, None] + steps[:count]]
            first = hits.argmax(axis=1)
            distances[block] = np.where(hits[:, 0] | (first > 0), lengths_mm[first], np.inf)

    sides = [slice(start, stop) for start, stop in pairwise(ends.tolist())]
    places = [found[side] - index * size for index, side in enumerate(sides)]
    nearest = [distances[side] for side in sides]
    if np.isinf(distances).any():
        for one, other in ((0, 2), (1, 3), (2, 0), (3, 1)):
            far = np.flatnonzero(np.isinf(nearest[one]))
            if far.size and places[other].size:
                nearest[one][far] = _far_mm(
                    _places_mm(places[one][far], shape, spacing),
                    _places_mm(places[other], shape, spacing),
                )
    return places, nearest


def _far_mm(places: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each of the places (N, ndim) is from the nearest of the others, both in mm."""
    from scipy.spatial import cKDTree
    from scipy.spatial.distance import cdist

    if len(places) * len(others) < _FEW:
        return np.sqrt(cdist(places, others, "sqeuclidean").min(axis=1))
    return cKDTree(others).query(places)[0]


@lru_cache(maxsize=256)
def _ball(spacing_mm: tuple[float, ...]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the steps to all entries within reach, (K, ndim), the nearest first, and lengths."""
    reach = _REACH[len(spacing_mm)]
    steps = np.indices((2 * reach + 1,) * len(spacing_mm)).reshape(len(spacing_mm), -1).T - reach
    lengths_mm = np.linalg.norm(steps * np.array(spacing_mm), axis=1)
    # The next step along the finest axis is longer than these, so none within them is missing.
    order = np.argsort(lengths_mm)
    order = order[lengths_mm[order] < (reach + 0.5) * min(spacing_mm)]
    return steps[order], lengths_mm[order]


def _places_mm(
    indices: NDArray[np.intp], shape: tuple[int, ...], spacing: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the (N, ndim) places in mm of flat indices."""
    return np.stack(np.unravel_index(indices, shape), axis=-1) * spacing
