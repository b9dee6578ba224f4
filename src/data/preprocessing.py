"""What is done to a slice before the network sees it, and how its result comes back to the scan."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_BINS = 65_536
_KNOWS_HALF = int(cv2.__version__.partition(".")[0]) >= 5
_SCALAR = 4  # an array of no more numbers is one number to OpenCV, a value of each channel

Spacing = tuple[float, float]
"""(y, x) in mm."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a slice before the network sees it; it travels with the model.

    Attributes:
        window_low: HU shown as 0.
        window_high: HU shown as 1.
        mean: Of the windowed training slices, subtracted; 0 where only the window scales.
        deviation: Of the windowed training slices, divided by; 1 where only the window scales.
        size_mode: "resize" (every slice becomes `size`), "pad" (at least `size`), "native".
        size: (height, width); not used by "native".
        multiple: Height and width become divisible by it in "pad" and "native".
        spacing_mm: The pixels that a slice gets in "pad" and "native" before it is padded, so that
            the network sees every patient at one scale; None for those of the scan.
    """

    window_low: float
    window_high: float
    mean: float
    deviation: float
    size_mode: str
    size: tuple[int, int]
    multiple: int
    spacing_mm: Spacing | None = None

    @property
    def pad_value(self) -> float:
        """What stands outside the scan: the bottom of the window, normalised (float16 rounding)."""
        return float(np.float16((0.0 - self.mean) / self.deviation))

    @property
    def resamples(self) -> bool:
        """Whether slices get other pixels than those of the scan."""
        return self.size_mode == "resize" or self.spacing_mm is not None

    def sampled_size(
        self, height: int, width: int, spacing_mm: Spacing | None = None
    ) -> tuple[int, int]:
        """The (height, width) that a slice gets before it is padded.

        Args:
            height: Of the slice, in pixels.
            width: Of the slice, in pixels.
            spacing_mm: Of its pixels; looked at only where slices get a common spacing.

        Raises:
            ValueError: The spacing is needed and not given, or is not above 0.
        """
        if self.size_mode == "resize":
            return self.size
        if self.spacing_mm is None:
            return height, width
        if spacing_mm is None or not min(spacing_mm) > 0:
            raise ValueError(
                f"slices are resampled to {self.spacing_mm[0]:g} x {self.spacing_mm[1]:g} mm, so "
                "the size of their pixels must be known: give spacing_mm, (y, x) in mm and above "
                f"0, got {spacing_mm}."
            )
        rows, columns = (
            max(1, round(number * given / wanted))
            for number, given, wanted in zip(
                (height, width), spacing_mm, self.spacing_mm, strict=True
            )
        )
        return rows, columns

    def output_size(
        self, height: int, width: int, spacing_mm: Spacing | None = None
    ) -> tuple[int, int]:
        """The (height, width) that a slice gets, padding included; see `sampled_size`."""
        sampled = self.sampled_size(height, width, spacing_mm)
        if self.size_mode == "resize":
            return sampled
        floor = self.size if self.size_mode == "pad" else (1, 1)
        rows, columns = (
            math.ceil(max(length, least) / self.multiple) * self.multiple
            for length, least in zip(sampled, floor, strict=True)
        )
        return rows, columns

    def save(self, path: Path) -> None:
        """Writes the settings as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Preprocessing:
        """Reads what `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        content["size"] = tuple(content["size"])
        # A model that was saved before slices could get a common spacing does not name one.
        if content.get("spacing_mm") is not None:
            content["spacing_mm"] = tuple(content["spacing_mm"])
        return cls(**content)


def windowed(image_hu: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """HU -> 0 to 1 within the window, float32 of the same shape; outside it is clipped."""
    scaled = image_hu.astype(np.float32)
    scaled -= np.float32(low)
    scaled /= np.float32(high - low)
    return np.clip(scaled, 0.0, 1.0, out=scaled)


def preprocess(
    image_hu: NDArray[Any], settings: Preprocessing, spacing_mm: Spacing | None = None
) -> NDArray[np.float16]:
    """Windows, sizes and normalises one slice.

    Args:
        image_hu: (H, W) in HU.
        settings: What to do.
        spacing_mm: Of the slice's pixels; looked at only where slices get a common spacing.

    Returns:
        (H', W') float16 of `settings.output_size(H, W, spacing_mm)`, in normalised units.

    Raises:
        ValueError: The spacing is needed and not given.
    """
    image = windowed(image_hu, settings.window_low, settings.window_high)
    return normalised(sized_image(image, settings, spacing_mm), settings)


def normalised(image: NDArray[np.float16], settings: Preprocessing) -> NDArray[np.float16]:
    """Windowed float16 values (0 to 1) -> normalised float16 values, any shape."""
    scaled = single(image)
    scaled -= np.float32(settings.mean)
    scaled /= np.float32(settings.deviation)
    return _half(scaled)


def sized_image(
    image: NDArray[np.float32], settings: Preprocessing, spacing_mm: Spacing | None = None
) -> NDArray[np.float16]:
    """Sizes one windowed slice, see `preprocess`; (H', W') float16 from 0 to 1."""
    height, width = image.shape
    sampled = settings.sampled_size(height, width, spacing_mm)
    margins = _margins(sampled, settings.output_size(height, width, spacing_mm))
    if sampled != (height, width):
        shrinks = sampled[0] <= image.shape[0] and sampled[1] <= image.shape[1]
        # INTER_AREA averages when it shrinks, so that fine structures do not alias.
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(image, sampled[::-1], interpolation=how)
    if any(margins):
        image = cv2.copyMakeBorder(image, *margins, cv2.BORDER_CONSTANT, value=0)
    return _half(image)


def single(array: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """To float32, any shape: float16 by OpenCV where it can, several times quicker than NumPy."""
    if not _KNOWS_HALF or array.size <= _SCALAR:
        return array.astype(np.float32)
    return cv2.add(array.ravel(), 0.0, dtype=cv2.CV_32F).reshape(array.shape)


def _half(array: NDArray[np.float32]) -> NDArray[np.float16]:
    """float32 rounded to float16, as `single`."""
    if not _KNOWS_HALF or array.size <= _SCALAR:
        return array.astype(np.float16)
    return cv2.add(array.ravel(), 0.0, dtype=cv2.CV_16F).reshape(array.shape)


def sized_mask(
    mask: NDArray[np.uint8], settings: Preprocessing, spacing_mm: Spacing | None = None
) -> NDArray[np.uint8]:
    """Sizes a mask as its image is sized.

    Where it gets other pixels, the share of each class is interpolated at their centres, and the
    class with the greatest share stands there, of equal ones the last: at half the size a centre
    lies between four pixels, and to copy one of them would move the mask by half a pixel.

    Args:
        mask: (H, W) uint8 class indices.
        settings: What was done to the image.
        spacing_mm: As in `preprocess`.

    Returns:
        (H', W') uint8, of classes in the mask; what was padded is background (0).

    Source: order-1 resampling of segmentations in nnU-Net, Isensee et al. 2021.
    """
    height, width = mask.shape
    sampled = settings.sampled_size(height, width, spacing_mm)
    margins = _margins(sampled, settings.output_size(height, width, spacing_mm))
    if sampled != (height, width):
        mask = _resampled_mask(mask, sampled)
    return cv2.copyMakeBorder(mask, *margins, cv2.BORDER_CONSTANT, value=0)


def _resampled_mask(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    greatest = np.zeros(size, np.float32)
    found = np.zeros(size, np.uint8)
    for index in range(int(mask.max()) + 1):
        share = cv2.resize((mask == index).astype(np.float32), size[::-1])
        found[share >= greatest] = index
        np.maximum(greatest, share, out=greatest)
    return found


def restore(
    probabilities: NDArray[np.float32],
    height: int,
    width: int,
    settings: Preprocessing,
    spacing_mm: Spacing | None = None,
) -> NDArray[np.float32]:
    """Brings probabilities back to the size of the scan: the inverse of `preprocess` in space.

    Args:
        probabilities: (H', W', C) float32.
        height: Of the scan, in pixels.
        width: Of the scan, in pixels.
        settings: What was done to the image.
        spacing_mm: Of the scan's pixels, as in `preprocess`.

    Returns:
        (height, width, C) float32.
    """
    rows, columns = settings.sampled_size(height, width, spacing_mm)
    top, _, left, _ = _margins((rows, columns), probabilities.shape[:2])
    inside = probabilities[top : top + rows, left : left + columns]
    if (rows, columns) == (height, width):
        return inside
    # OpenCV's resize takes at most four channels at a time in its fast path; CV_CN_MAX is 512.
    sized = cv2.resize(inside, (width, height), interpolation=cv2.INTER_LINEAR)
    return sized.reshape(height, width, probabilities.shape[2])


def _margins(size: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Rows above, rows below, columns left, columns right."""
    rows, columns = target[0] - size[0], target[1] - size[1]
    return rows // 2, rows - rows // 2, columns // 2, columns - columns // 2


def window_limits(
    window: dict[str, Any], training_slices: Callable[[], Iterable[NDArray[Any]]]
) -> tuple[float, float]:
    """The window's ends in HU, from the parameter and, where it asks for it, the training slices.

    Args:
        window: kind "level_width" with level and width; "percentiles" with lower and upper in
            percent; or "none" (the whole range).
        training_slices: Gives the training slices in HU, as often as it is called.

    Returns:
        low, high in HU, low < high.

    Raises:
        ValueError: The training slices hold one value only.
    """
    if window["kind"] == "level_width":
        return window["level"] - window["width"] / 2, window["level"] + window["width"] / 2
    low, high = np.inf, -np.inf
    for image in training_slices():
        low, high = min(low, float(image.min())), max(high, float(image.max()))
    if window["kind"] == "percentiles" and low < high:
        # A histogram, because percentiles of all pixels at once would need them all in memory.
        counts = np.zeros(_BINS, dtype=np.int64)
        for image in training_slices():
            place = ((image.astype(np.float64) - low) * ((_BINS - 1) / (high - low))).astype(
                np.int64
            )
            counts += np.bincount(place.ravel(), minlength=_BINS)
        share = np.cumsum(counts) / counts.sum()
        ends = np.searchsorted(share, [window["lower"] / 100, window["upper"] / 100])
        low, high = (low + ends * ((high - low) / (_BINS - 1))).tolist()
    if not low < high:
        raise ValueError(
            f"the training slices leave no window: all values lie at {low}. Look at reports/"
            "audit.json, or set prepare.window to {kind: level_width, level: 40, width: 400}."
        )
    return float(low), float(high)
