"""Do probabilities mean what they say? Calibration errors, Brier score and NLL, slice by slice.

Counting comes first and takes one slice at a time, so that memory does not grow with their number;
everything else is read from the counts. Counts of slices add up to those of a patient or of a set:

    everywhere = sum(count_calibration(p, truth) for p, truth in slices)
    ring = sum(count_calibration(p, t, boundary_ring(t, p.argmax(-1), mm)) for p, t, mm in slices)
    calibration(ring).ece

Over all pixels nearly everything is background that any network is right about; the ring around the
boundaries is where a probability has something to say.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.evaluation.pixels import FLOOR, NUM_FINE, Pixels, fine_bins, pixel_blocks

NUM_BINS = 15  # of equal width, and of equal mass: as in Guo et al. 2017
RING_MM = 5.0  # how far from a boundary its ring reaches

# Fine bins of the doubt, 1 - confidence, cut once more at the edges of the bins of equal width, so
# that these are sums of fine ones too. Bin of equal width k, counted from confidence 1 downwards,
# begins at _STARTS[k]: a fine bin more for each edge passed.
_NUM_CELLS = NUM_FINE + NUM_BINS - 1
_STARTS = fine_bins(np.arange(NUM_BINS) / NUM_BINS) + np.arange(NUM_BINS)


@dataclass(frozen=True, eq=False)
class CalibrationCounts:
    """What calibration is read from; of some 300 kB, whatever the number of pixels.

    Attributes:
        cells: (3, K) float64, pixels, those whose most probable class is right, and the sum of
            their confidence, in K fine bins from confidence 1 down to 0.
        classes: (C - 1, 3, 15) float64, of each foreground class pixels, those that are of the
            class, and the sum of its probability, in bins of equal width of it, from 0 up to 1.
        squared_error: Sum over pixels and classes of (probability - truth) ** 2.
        log_loss: Sum over pixels of -log of the probability of the true class.
    """

    cells: NDArray[np.float64]
    classes: NDArray[np.float64]
    squared_error: float
    log_loss: float

    @property
    def num_pixels(self) -> int:
        """Number of pixels counted."""
        return int(self.cells[0].sum())

    def __add__(self, other: "CalibrationCounts") -> "CalibrationCounts":
        if self.classes.shape != other.classes.shape:
            raise ValueError(
                f"counts of {len(self.classes) + 1} and {len(other.classes) + 1} classes cannot be "
                "added. Count both with probabilities of the same classes."
            )
        return CalibrationCounts(
            self.cells + other.cells,
            self.classes + other.classes,
            self.squared_error + other.squared_error,
            self.log_loss + other.log_loss,
        )

    def __radd__(self, start: int) -> "CalibrationCounts":
        # sum() begins with the integer 0; any other number is a mistake.
        if start != 0:
            return NotImplemented
        return self


@dataclass(frozen=True, eq=False)
class Reliability:
    """The table behind a reliability diagram: 15 bins (lower, upper], 0 in the first.

    Attributes:
        lower: (15,) float64, lower edges, not in the bin.
        upper: (15,) float64, upper edges, in the bin.
        count: (15,) int64, pixels.
        confidence: (15,) float64, mean predicted probability; NaN in a bin without pixels.
        accuracy: (15,) float64, share that came true; NaN in a bin without pixels.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """How well probabilities are calibrated; everything is NaN where there was no pixel.

    Attributes:
        num_pixels: Number of pixels they rest on.
        ece: Expected calibration error of the most probable class, 0 to 1; see `calibration`.
        ace: Adaptive calibration error, the same over bins of equal mass, 0 to 1.
        brier: Mean over pixels of the sum over classes of (probability - truth) ** 2, 0 to 2.
        nll: Mean negative logarithm of the probability of the true class, natural, from 0 up.
        class_ece: Calibration error of the probability of each foreground class, 0 to 1.
    """

    num_pixels: int
    ece: float
    ace: float
    brier: float
    nll: float
    class_ece: tuple[float, ...]


def boundary_ring(
    truth: NDArray[np.integer[Any]],
    prediction: NDArray[np.integer[Any]],
    spacing_mm: tuple[float, float],
    width_mm: float = RING_MM,
) -> NDArray[np.bool_]:
    """Find the pixels within some millimetres of a boundary of the truth or of the prediction.

    A boundary runs wherever two pixels that share an edge differ in class; the pixels on both sides
    belong to it, and distances are those to the nearest of their centres. The edge of the picture
    is no boundary: nothing is known of what lies beyond.

    Args:
        truth: (H, W) class indices.
        prediction: (H, W) class indices.
        spacing_mm: Distance of pixel centres (y, x) in mm.
        width_mm: How far the ring reaches on either side, in mm; 0 for the boundary pixels alone.

    Returns:
        (H, W) bool; empty where neither holds a boundary.

    Raises:
        ValueError: If the shapes differ or are not (H, W), or a length is not a positive number.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.ndim != 2 or truth.shape != prediction.shape:
        raise ValueError(
            "truth and prediction must be slices (H, W) of the same shape, got "
            f"{truth.shape} and {prediction.shape}. Bring the prediction back to the size of the "
            "truth, and pass one slice at a time."
        )
    lengths = np.array([*spacing_mm, 1.0])
    if lengths.size != 3 or not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ValueError(
            f"spacing_mm must be two positive numbers (y, x), got {spacing_mm}. "
            "Take them from the case table."
        )
    if not (math.isfinite(width_mm) and width_mm >= 0):
        raise ValueError(f"width_mm must be 0 or more, got {width_mm}. Pass 5.0.")
    import cv2

    boundary = (_boundary(truth) | _boundary(prediction)).astype(np.uint8)
    # Every boundary pixel paints an ellipse: as exact as a distance map, and many times as fast.
    return cv2.dilate(boundary, _ellipse(spacing_mm, width_mm, truth.shape)).astype(bool)


def count_calibration(
    probabilities: NDArray[np.floating[Any]],
    truth: NDArray[np.integer[Any]],
    region: NDArray[np.bool_] | None = None,
) -> CalibrationCounts:
    """Count what calibration is read from, for one slice or any other set of pixels.

    Args:
        probabilities: (..., C) floats in 0 to 1 that sum to 1 over C >= 2, for example (H, W, C).
        truth: (...) class indices in 0..C - 1.
        region: (...) bool, the pixels that count, such as `boundary_ring`; None for all.

    Returns:
        The counts; all zero where no pixel counts. A probability of 0 given to the true class
        enters the NLL as 1.2e-38, the smallest number of float32: 87.3 for that pixel.

    Raises:
        ValueError: If the shapes do not fit, a label is out of range, or what is given are not
            probabilities.
        TypeError: If an array is not of the type named above.
    """
    blocks = (_count(pixels) for pixels in pixel_blocks(probabilities, truth, region))
    return sum(blocks, start=_nothing(np.asarray(probabilities).shape[-1]))


def reliability(counts: CalibrationCounts, class_index: int | None = None) -> Reliability:
    """Return mean confidence and accuracy in bins of equal width.

    Args:
        counts: Of a slice, a patient or a set.
        class_index: The foreground class whose probability is looked at; None for the confidence,
            which is the probability of the most probable class, whichever it is.

    Returns:
        The table; it has NaN in bins that no pixel fell in.

    Raises:
        ValueError: If there is no such class.
    """
    if class_index is None:
        table = _equal_width(counts.cells)
    elif 1 <= class_index <= len(counts.classes):
        table = counts.classes[class_index - 1]
    else:
        raise ValueError(
            f"class_index must be a foreground class 1..{len(counts.classes)} or None, got "
            f"{class_index}. Pass None for the confidence."
        )
    pixels, came_true, probability = table
    number = np.where(pixels > 0, pixels, np.nan)
    edges = np.arange(NUM_BINS + 1) / NUM_BINS
    return Reliability(
        lower=edges[:-1],
        upper=edges[1:],
        count=pixels.astype(np.int64),
        confidence=probability / number,
        accuracy=came_true / number,
    )


def calibration(counts: CalibrationCounts) -> Calibration:
    """Read calibration errors, Brier score and NLL from the counts.

    ECE = sum_b n_b / N |accuracy_b - confidence_b| over 15 bins (l, u] of equal width of the
    confidence, the probability of the most probable class. ACE is the same over 15 bins of equal
    mass. `class_ece` is the ECE of the probability of one class against that class being true,
    whether it was the most probable one or not; over all pixels that, too, is mostly background.

    Bins of equal mass are put together from fine ones, at most 1/512 as wide as their confidence is
    far from 1; a fine bin on a border is shared out in proportion, as if its pixels were alike. So
    pixels of exactly the same confidence, thousands at 1, are shared out evenly, where a sort would
    put the border among them wherever they happen to stand.

    Args:
        counts: Of a slice, a patient or a set.

    Returns:
        The numbers; NaN where no pixel was counted.

    Source: Naeini et al. 2015 and Guo et al. 2017, equation 3, for ECE; Nixon et al. 2019 for bins
    of equal mass, who average over the classes what is here of the most probable one; Kull et al.
    2019 for class-wise ECE; Brier 1950.
    """
    number = counts.num_pixels
    if number == 0:
        nothing = (math.nan,) * len(counts.classes)
        return Calibration(0, math.nan, math.nan, math.nan, math.nan, nothing)

    def error(table: NDArray[np.float64]) -> float:
        return float(np.abs(table[1] - table[2]).sum() / number)

    return Calibration(
        num_pixels=number,
        ece=error(_equal_width(counts.cells)),
        ace=error(_equal_mass(counts.cells)),
        brier=counts.squared_error / number,
        nll=counts.log_loss / number,
        class_ece=tuple(error(table) for table in counts.classes),
    )


def _nothing(num_classes: int) -> CalibrationCounts:
    """Return the counts of no pixels."""
    classes = np.zeros((num_classes - 1, 3, NUM_BINS))
    return CalibrationCounts(np.zeros((3, _NUM_CELLS)), classes, 0.0, 0.0)


def _count(pixels: Pixels) -> CalibrationCounts:
    """Return the counts of at least one pixel."""
    labels, confidence = pixels.most_probable()
    of_truth = pixels.of_truth()
    squares = np.square(pixels.probabilities).sum(dtype=np.float64)
    return CalibrationCounts(
        cells=_histogram(_cells(confidence), confidence, labels == pixels.truth, _NUM_CELLS),
        classes=_by_class(pixels),
        squared_error=float(squares - 2 * of_truth.sum(dtype=np.float64) + of_truth.size),
        log_loss=-float(np.log(np.maximum(of_truth, FLOOR)).sum(dtype=np.float64)),
    )


def _histogram(
    bins: NDArray[np.integer[Any]],
    probability: NDArray[np.float32],
    happened: NDArray[np.bool_],
    number: int,
) -> NDArray[np.float64]:
    """Return (3, number): pixels, those that happened, and sum of the probability in each bin."""
    both = np.bincount(2 * bins + happened, minlength=2 * number).reshape(-1, 2)
    sums = np.bincount(bins, weights=probability, minlength=number)
    return np.stack([both.sum(axis=1), both[:, 1], sums])


def _widths(probability: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the (N,) bins of equal width, from 0 up to 1."""
    # Multiplied in float32, 0.6 (a little above it there) comes to 9 exactly: edges are inclusive.
    ceiling = np.ceil(probability * np.float32(NUM_BINS)).astype(np.int32)
    return np.clip(ceiling - 1, 0, NUM_BINS - 1)


def _cells(confidence: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the (N,) cells, from confidence 1 down to 0."""
    doubt = np.maximum(1 - confidence, 0)  # a softmax may exceed 1 by a bit
    return fine_bins(doubt) + (NUM_BINS - 1 - _widths(confidence))


def _by_class(pixels: Pixels) -> NDArray[np.float64]:
    """Return (C - 1, 3, 15): of each foreground class the histogram of its probability."""
    tables = []
    for index, probability in enumerate(pixels.probabilities[1:], start=1):
        happened = pixels.truth == index
        # Nearly all pixels lie in the lowest bin of nearly all classes: it gets what is left over.
        above = np.flatnonzero(probability > np.float32(1 / NUM_BINS))
        chosen = probability[above]
        table = _histogram(_widths(chosen), chosen, happened[above], NUM_BINS)
        total = [happened.size, np.count_nonzero(happened), probability.sum(dtype=np.float64)]
        table[:, 0] = total - table[:, 1:].sum(axis=1)
        tables.append(table)
    return np.stack(tables)


def _equal_width(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (3, 15) sums over bins of equal width, from 0 up to 1, of (3, K) cells."""
    return np.add.reduceat(cells, _STARTS, axis=1)[:, ::-1]


def _equal_mass(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (3, 15) sums over bins of equal mass, from 1 down, of (3, K) cells."""
    filled = cells[:, cells[0] > 0]
    running = np.cumsum(np.pad(filled, ((0, 0), (1, 0))), axis=1)
    borders = running[0, -1] * np.arange(NUM_BINS + 1) / NUM_BINS
    return np.diff([np.interp(borders, running[0], row) for row in running], axis=1)


def _boundary(labels: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Return the (H, W) pixels that share an edge with a pixel of another class."""
    boundary = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    boundary[1:] |= down
    boundary[:-1] |= down
    boundary[:, 1:] |= right
    boundary[:, :-1] |= right
    return boundary


def _ellipse(
    spacing_mm: tuple[float, float], radius_mm: float, shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Return the pixels within a radius of the middle one, no further than the picture is large."""
    reach = radius_mm * (1 + 1e-9)  # 50 x 0.1 is a little more than 5
    offsets = [
        np.arange(-limit, limit + 1) * mm
        for mm, limit in (
            (mm, min(int(reach / mm), size)) for mm, size in zip(spacing_mm, shape, strict=True)
        )
    ]
    y, x = np.meshgrid(*offsets, indexing="ij")
    return (y**2 + x**2 <= reach**2).astype(np.uint8)
