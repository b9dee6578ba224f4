"""One case of the training set, changed at random: image and mask moved together.

Every case is made from the key (seed, epoch, position) alone, so that it looks the same whatever
is made before or beside it, in whatever process. NumPy and OpenCV only; no TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Key = tuple[int, int, int]
"""Seed of the run, number of the epoch, position of the case in the epoch; each at least 0."""

# The random numbers of a case come in streams that do not touch each other.
PLACE_STREAM, _NUMBER_STREAM, _ELASTIC_STREAM, _NOISE_STREAM = range(4)
# A number keeps its place when another change is switched off, so that switching one does not
# change all others. Add new names at the end.
_MOVES = ("flip_x", "flip_y", "angle", "scale", "shear", "shift_x", "shift_y", "elastic")
_INTENSITIES = ("blur", "low_resolution", "gamma", "contrast", "brightness", "noise")
_NAMES = (*_MOVES, *_INTENSITIES, *(f"{name} happens" for name in _INTENSITIES))
# A power of 0 takes five times as long as one of any other number, and air is 0. Beside the value
# of air the difference is rounded away.
_SMALLEST_BASE = 1e-20
# Random displacements on a grid of 3 x 3 points, as the U-Net's authors have them.
_ELASTIC_POINTS = 3
_LARGEST = {
    "flip_horizontal": 1.0,
    "flip_vertical": 1.0,
    "rotation_degrees": 180.0,
    "scale": 0.9,
    "shear_degrees": 45.0,
    "translation": 1.0,
    "elastic": 0.1,
    "contrast": 1.0,
    "probability": 1.0,
}


@dataclass(frozen=True)
class Augmentation:
    """How far the cases of the training set are changed at random; 0 switches a change off.

    Image and mask are moved together, by one map; the intensities are changed in the image alone,
    in the order of the attributes. What is drawn is uniform from 0, or from minus, to the value
    given; for gamma the logarithm of the exponent is.

    Attributes:
        flip_horizontal: Probability of exchanging left and right, 0 to 1.
        flip_vertical: Probability of exchanging top and bottom, 0 to 1.
        rotation_degrees: Largest angle to either side, 0 to 180.
        scale: Largest change of size: a structure grows by a factor from 1 - scale to
            1 + scale; 0 to 0.9.
        shear_degrees: Largest angle by which upright lines lean to either side, 0 to 45.
        translation: Largest shift in either direction, as a fraction of height and width, 0 to 1.
        elastic: Largest displacement of the points of a 3 x 3 grid, as a fraction of height and
            width, 0 to 0.1; between them it is interpolated with cubic curves (Ronneberger et al.
            2015, arXiv:1505.04597, section 3.1). Beyond 0.1 the picture would fold over itself.
        probability: Of each of the changes below, for a case; 0 to 1. Blur, coarseness and noise
            only take away: without it hardly a case would be as sharp and as clean as the scans
            that the network is for.
        blur: Largest standard deviation of a Gaussian, in pixels.
        low_resolution: The image is made coarser by a factor up to 1 + low_resolution, and
            brought back to its size.
        gamma: With the values of the case mapped to [0, 1], they are raised to a power from
            1 / (1 + gamma) to 1 + gamma.
        contrast: Largest change of contrast: distances from the mean of the case are multiplied
            by 1 - contrast to 1 + contrast; 0 to 1.
        brightness: Largest value that is added or taken off, in units of the normalised image.
        noise: Largest standard deviation of Gaussian noise, in units of the normalised image.

    Raises:
        ValueError: A value is out of its range.
    """

    flip_horizontal: float
    flip_vertical: float
    rotation_degrees: float
    scale: float
    shear_degrees: float
    translation: float
    elastic: float
    probability: float
    blur: float
    low_resolution: float
    gamma: float
    contrast: float
    brightness: float
    noise: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value, high = getattr(self, field.name), _LARGEST.get(field.name, math.inf)
            if not (0 <= value <= high and math.isfinite(value)):
                raise ValueError(
                    f"augmentation {field.name} must be from 0 (off) to {high}, got {value}. "
                    "Mend train.augmentation in params.yaml."
                )


@dataclass(frozen=True)
class View:
    """The part of a slice that a case shows: a rectangle, which may reach beyond the slice.

    Attributes:
        top: Row of the slice that is the first of the view.
        left: Column of the slice that is the first of the view.
        height: Of the view, in pixels.
        width: Of the view, in pixels.
        anchor: (y, x) in pixels of the view: the point that rotation, scale and shear leave where
            it is. It need not be a whole number.
    """

    top: int
    left: int
    height: int
    width: int
    anchor: tuple[float, float]


def whole(height: int, width: int) -> View:
    """The view of a whole slice of this size, anchored at its centre."""
    return View(0, 0, height, width, ((height - 1) / 2, (width - 1) / 2))


def random_stream(key: Key, stream: int) -> np.random.Generator:
    """The random numbers of one case for one purpose.

    Args:
        key: Of the case.
        stream: Number of the purpose, at least 0.

    Returns:
        A generator that depends on the two alone (Philox, counter-based).

    Source: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3 (Philox 4x64).
    """
    seed, epoch, position = key
    philox = np.random.Philox(
        key=np.array([seed, (epoch << 32) | position], np.uint64), counter=[0, 0, 0, stream]
    )
    return np.random.Generator(philox)


def cut(
    channels: Sequence[NDArray[np.floating[Any]]],
    mask: NDArray[np.uint8],
    view: View,
    pad_value: float,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Cut a view out of a slice, as it is.

    Args:
        channels: (H, W) each, any float, usually memory-mapped: only what is shown is read.
        mask: (H, W), class indices.
        view: What to cut out, h by w.
        pad_value: Of the image where the view reaches beyond the slice; the mask has 0 there.

    Returns:
        Image (h, w, C) float32 and mask (h, w) uint8.
    """
    picture = np.full((len(channels), view.height, view.width), pad_value, np.float32)
    truth = np.zeros((view.height, view.width), np.uint8)
    height, width = mask.shape
    rows = slice(max(view.top, 0), max(min(view.top + view.height, height), 0))
    columns = slice(max(view.left, 0), max(min(view.left + view.width, width), 0))
    inside = (
        slice(rows.start - view.top, rows.stop - view.top),
        slice(columns.start - view.left, columns.stop - view.left),
    )
    if rows.stop > rows.start and columns.stop > columns.start:
        for number, channel in enumerate(channels):
            picture[(number, *inside)] = channel[rows, columns]
        truth[inside] = mask[rows, columns]
    return picture.transpose(1, 2, 0), truth


def augment(
    channels: Sequence[NDArray[np.floating[Any]]],
    mask: NDArray[np.uint8],
    view: View,
    augmentation: Augmentation,
    *,
    pad_value: float,
    key: Key,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Cut a view out of a slice and change it at random.

    The slice around the view is seen where rotation and the like reach out of it, so that no
    corner is empty inside a body. All channels are moved and changed alike, but for the noise.

    Args:
        channels: (H, W) each, any float, usually memory-mapped: only what is needed is read.
        mask: (H, W), class indices.
        view: What to cut out, h by w.
        augmentation: How far to change it.
        pad_value: Of the image outside the slice; the mask has 0 there.
        key: The same key changes in the same way.

    Returns:
        Image (h, w, C) float32, interpolated linearly, and mask (h, w) uint8, the nearest pixel's.
    """
    numbers = numbers_of(key)
    rows, columns = source_of(view, augmentation, numbers, key)
    picture, truth = sampled(channels, mask, rows, columns, pad_value)
    picture = _with_changed_intensities(picture, augmentation, numbers, key, pad_value)
    return picture.transpose(1, 2, 0), truth


def numbers_of(key: Key) -> dict[str, float]:
    """The random numbers of a case by their purpose, each from 0 to below 1."""
    drawn = random_stream(key, _NUMBER_STREAM).random(len(_NAMES)).tolist()
    return dict(zip(_NAMES, drawn, strict=True))


def source_of(
    view: View, augmentation: Augmentation, numbers: dict[str, float], key: Key
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where in the slice each pixel of the result comes from.

    With p a pixel of the view, F the flips, d the elastic displacement, a the anchor and t the
    shift:

        source = corner of the view + a + M (F(p) + d - a - t),  M = shear^-1 R(-angle) / scale

    Args:
        view: What is shown, h by w.
        augmentation: How far it is moved.
        numbers: Those of the case, see `numbers_of`.
        key: Of the case.

    Returns:
        Row and column, (h, w) float32 each, in pixels of the slice.
    """
    signed = {name: 2.0 * number - 1.0 for name, number in numbers.items()}
    rows, columns = np.arange(view.height, dtype=np.float64), np.arange(view.width, dtype=float)
    if numbers["flip_y"] < augmentation.flip_vertical:
        rows = rows[::-1]
    if numbers["flip_x"] < augmentation.flip_horizontal:
        columns = columns[::-1]
    anchor_y, anchor_x = view.anchor
    y = rows - anchor_y - signed["shift_y"] * augmentation.translation * view.height
    x = columns - anchor_x - signed["shift_x"] * augmentation.translation * view.width
    (yy, yx), (xy, xx) = inverse_matrix(
        angle=signed["angle"] * math.radians(augmentation.rotation_degrees),
        factor=1.0 + signed["scale"] * augmentation.scale,
        shear=signed["shear"] * math.radians(augmentation.shear_degrees),
    )
    top, left = view.top + anchor_y, view.left + anchor_x
    # In 64 bits, so that a turn by 90 degrees meets the pixels exactly.
    source_rows = ((yy * y + top)[:, None] + (yx * x)[None]).astype(np.float32)
    source_columns = ((xy * y)[:, None] + (xx * x + left)[None]).astype(np.float32)
    if augmentation.elastic:
        reach = numbers["elastic"] * augmentation.elastic
        grid = random_stream(key, _ELASTIC_STREAM).uniform(
            -reach, reach, (_ELASTIC_POINTS, _ELASTIC_POINTS, 2)
        ) * (view.height, view.width)
        moved = cv2.resize(
            grid.astype(np.float32), (view.width, view.height), interpolation=cv2.INTER_CUBIC
        )
        down, right = moved[..., 0], moved[..., 1]
        source_rows += np.float32(yy) * down + np.float32(yx) * right
        source_columns += np.float32(xy) * down + np.float32(xx) * right
    return source_rows, source_columns


def inverse_matrix(
    *, angle: float, factor: float, shear: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The matrix from a result to its source: shear^-1 R(-angle) / factor.

    Args:
        angle: Of the turn in radians, clockwise as pictures are drawn (y downwards).
        factor: By which structures grow.
        shear: Angle by which upright lines lean, in radians.

    Returns:
        ((yy, yx), (xy, xx)): source y = yy y + yx x and source x = xy y + xx x.
    """
    cosine, sine, slope = math.cos(angle), math.sin(angle), math.tan(shear)
    # Forward: lean (x + slope y), then turn, then grow.
    return (
        (cosine / factor, -sine / factor),
        ((sine - slope * cosine) / factor, (cosine + slope * sine) / factor),
    )


def sampled(
    channels: Sequence[NDArray[np.floating[Any]]],
    mask: NDArray[np.uint8],
    rows: NDArray[np.float32],
    columns: NDArray[np.float32],
    pad_value: float,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Image and mask at given places of a slice.

    Args:
        channels: (H, W) each, any float.
        mask: (H, W), class indices.
        rows: (h, w), where each pixel of the result lies; whole numbers are pixel centres.
        columns: (h, w), likewise.
        pad_value: Of the image outside the slice.

    Returns:
        Image (C, h, w) float32, interpolated linearly, and mask (h, w) uint8, the nearest pixel's.
    """
    # Only the rectangle that holds all places, and a pixel more to interpolate with, is read.
    top, left = max(math.floor(rows.min()), 0), max(math.floor(columns.min()), 0)
    part = (
        slice(top, max(math.floor(rows.max()) + 2, 0)),
        slice(left, max(math.floor(columns.max()) + 2, 0)),
    )
    labels = np.ascontiguousarray(mask[part])
    if not labels.size:  # the view lies beyond the slice
        empty = np.full((len(channels), *rows.shape), pad_value, np.float32)
        return empty, np.zeros(rows.shape, np.uint8)
    rows = rows - np.float32(top) if top else rows
    columns = columns - np.float32(left) if left else columns
    picture = np.empty((len(channels), *rows.shape), np.float32)
    for number, channel in enumerate(channels):
        picture[number] = cv2.remap(
            channel[part].astype(np.float32),
            columns,
            rows,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=pad_value,
        )
    truth = cv2.remap(
        labels, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )
    return picture, truth


def _with_changed_intensities(
    picture: NDArray[np.float32],
    augmentation: Augmentation,
    numbers: dict[str, float],
    key: Key,
    pad_value: float,
) -> NDArray[np.float32]:
    """The image (C, h, w) with its intensities changed at random, first what a scanner blurs.

    In place where that is possible: a new array of this size costs more than what is done to it.
    """

    def largest(name: str) -> float:
        happens = numbers[f"{name} happens"] < augmentation.probability
        return float(getattr(augmentation, name)) if happens else 0.0

    def signed(name: str) -> float:
        return 2.0 * numbers[name] - 1.0

    if sigma := numbers["blur"] * largest("blur"):
        for channel in picture:
            cv2.GaussianBlur(channel, (0, 0), sigma, dst=channel, borderType=cv2.BORDER_REPLICATE)
    if coarser := numbers["low_resolution"] * largest("low_resolution"):
        picture = np.stack([_coarse(channel, 1.0 + coarser) for channel in picture])
    if gamma := largest("gamma"):
        picture = _to_power(picture, math.exp(signed("gamma") * math.log1p(gamma)), pad_value)
    if contrast := largest("contrast"):
        mean = picture.mean()
        picture -= mean
        picture *= np.float32(1.0 + signed("contrast") * contrast)
        picture += mean
    if brightness := largest("brightness"):
        picture += np.float32(signed("brightness") * brightness)
    if deviation := numbers["noise"] * largest("noise"):
        noise = random_stream(key, _NOISE_STREAM).standard_normal(picture.shape, np.float32)
        noise *= np.float32(deviation)
        picture += noise
    return picture


def _coarse(channel: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """(h, w) as a scan with pixels larger by this factor shows it, at the size that it had."""
    height, width = channel.shape
    size = (max(round(width / factor), 1), max(round(height / factor), 1))
    # A scanner's pixel is the mean over its area, and preprocessing enlarges linearly.
    small = cv2.resize(channel, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def _to_power(picture: NDArray[np.float32], power: float, pad_value: float) -> NDArray[np.float32]:
    """Values raised to a power between their ends, air among them; in place. One alone stays."""
    low, high = min(float(picture.min()), pad_value), max(float(picture.max()), pad_value)
    if high <= low:
        return picture
    picture -= np.float32(low)
    picture *= np.float32(1.0 / (high - low))
    np.clip(picture, _SMALLEST_BASE, 1.0, out=picture)
    picture **= np.float32(power)
    picture *= np.float32(high - low)
    picture += np.float32(low)
    return picture
