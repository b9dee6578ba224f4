"""Slices -> windowed, sized, normalised arrays on disk, and back to the size of the scan.

All slices' pixels stand one after the other in one memory-mapped file, so slices of any size share
one layout, and memory does not grow with the data set.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from src.data.stacks import neighbours, volumes_and_positions

if TYPE_CHECKING:
    import pandas as pd

_BINS = 65_536


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
    """

    window_low: float
    window_high: float
    mean: float
    deviation: float
    size_mode: str
    size: tuple[int, int]
    multiple: int

    @property
    def pad_value(self) -> float:
        """What stands outside the scan: the bottom of the window, normalised (float16 rounding)."""
        return float(np.float16((0.0 - self.mean) / self.deviation))

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) that a slice of this height and width gets."""
        if self.size_mode == "resize":
            return self.size
        floor = self.size if self.size_mode == "pad" else (1, 1)
        return (
            math.ceil(max(height, floor[0]) / self.multiple) * self.multiple,
            math.ceil(max(width, floor[1]) / self.multiple) * self.multiple,
        )

    def save(self, path: Path) -> None:
        """Writes the settings as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Preprocessing:
        """Reads what `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**content, "size": tuple(content["size"])})


def windowed(image_hu: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """HU -> 0 to 1 within the window, float32 of the same shape; outside it is clipped."""
    scaled = (image_hu.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    return np.clip(scaled, 0.0, 1.0)


def preprocess(image_hu: NDArray[Any], settings: Preprocessing) -> NDArray[np.float16]:
    """Windows, sizes and normalises one slice.

    Args:
        image_hu: (H, W) in HU.
        settings: What to do.

    Returns:
        (H', W') float16 of `settings.output_size(H, W)`, in normalised units.
    """
    return normalised(_sized_image(image_hu, settings), settings)


def normalised(image: NDArray[np.float16], settings: Preprocessing) -> NDArray[np.float16]:
    """Windowed float16 values (0 to 1) -> normalised float16 values, any shape."""
    scaled = (image.astype(np.float32) - np.float32(settings.mean)) / np.float32(settings.deviation)
    return scaled.astype(np.float16)


def _sized_image(image_hu: NDArray[Any], settings: Preprocessing) -> NDArray[np.float16]:
    image = windowed(image_hu, settings.window_low, settings.window_high)
    target = settings.output_size(*image.shape)
    if settings.size_mode == "resize":
        shrinks = target[0] <= image.shape[0] and target[1] <= image.shape[1]
        # INTER_AREA averages when it shrinks, so that fine structures do not alias.
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(image, target[::-1], interpolation=how)
    else:
        image = cv2.copyMakeBorder(
            image, *_margins(image.shape, target), cv2.BORDER_CONSTANT, value=0
        )
    return image.astype(np.float16)


def sized_mask(mask: NDArray[np.uint8], settings: Preprocessing) -> NDArray[np.uint8]:
    """Sizes a mask as its image is sized; class indices are copied, never interpolated.

    Args:
        mask: (H, W) uint8 class indices.
        settings: What was done to the image.

    Returns:
        (H', W') uint8; what was padded is background (0).
    """
    target = settings.output_size(*mask.shape)
    if settings.size_mode == "resize":
        # Pixel centres, as the image's resampling has them; INTER_NEAREST takes corners.
        return cv2.resize(mask, target[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return cv2.copyMakeBorder(mask, *_margins(mask.shape, target), cv2.BORDER_CONSTANT, value=0)


def restore(
    probabilities: NDArray[np.float32], height: int, width: int, settings: Preprocessing
) -> NDArray[np.float32]:
    """Brings probabilities back to the size of the scan: the inverse of `preprocess` in space.

    Args:
        probabilities: (H', W', C) float32.
        height: Of the scan, in pixels.
        width: Of the scan, in pixels.
        settings: What was done to the image.

    Returns:
        (height, width, C) float32.
    """
    if settings.size_mode == "resize":
        if probabilities.shape[:2] == (height, width):
            return probabilities
        # OpenCV's resize takes at most four channels at a time in its fast path; CV_CN_MAX is 512.
        sized = cv2.resize(probabilities, (width, height), interpolation=cv2.INTER_LINEAR)
        return sized.reshape(height, width, probabilities.shape[2])
    top, _, left, _ = _margins((height, width), probabilities.shape[:2])
    return probabilities[top : top + height, left : left + width]


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


@dataclass(frozen=True)
class Arrays:
    """The prepared slices on disk, opened for reading.

    Attributes:
        images: (P,) float16, normalised, all slices' pixels one after the other, memory-mapped.
        masks: (P,) uint8 class indices, likewise.
        index: A row per slice: case_id, case_pseudonym, pseudonym, source, subset, volume (its
            scan, numbered), position (in the scan), offset, height, width, spacing_y_mm,
            spacing_x_mm (of the prepared slice).
        settings: What was done to the slices.
        classes: Class names in the order of the class index.
    """

    images: NDArray[np.float16]
    masks: NDArray[np.uint8]
    index: pd.DataFrame
    settings: Preprocessing
    classes: tuple[str, ...]

    def rows(self, subset: str) -> NDArray[np.int64]:
        """Positions in `index` of the slices of one side."""
        return np.flatnonzero(self.index["subset"].to_numpy() == subset)

    def slice(self, row: int) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
        """One prepared slice: image (H, W) float16 and mask (H, W) uint8, not read before use."""
        start, height, width = self._layout[row].tolist()
        part = slice(start, start + height * width)
        return self.images[part].reshape(height, width), self.masks[part].reshape(height, width)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """(N, 2): height and width of each slice."""
        return self._layout[:, 1:]

    @cached_property
    def _layout(self) -> NDArray[np.int64]:
        # Once, as an array: a row of a data frame takes longer to look up than a slice to read.
        return self.index[["offset", "height", "width"]].to_numpy(np.int64)

    def neighbours(self, context: int) -> NDArray[np.int64]:
        """(N, 2 * context + 1) rows of each slice and its neighbours, see `stacks.neighbours`."""
        volumes, positions = (self.index[name].to_numpy() for name in ("volume", "position"))
        return neighbours(volumes, positions, self.sizes, context)

    def stack(self, row: int, context: int) -> NDArray[np.float32]:
        """One slice with its neighbours as channels, (H, W, 2 * context + 1)."""
        together = self.neighbours(context)[row]
        return np.stack([self.slice(other)[0] for other in together], axis=-1).astype(np.float32)

    def scans(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The rows of each scan among `rows`, in the order of its slices."""
        chosen = self.index.iloc[rows].assign(row=rows).sort_values(["volume", "position"])
        return [part["row"].to_numpy() for _, part in chosen.groupby("volume")]


def open_arrays(folder: Path) -> Arrays:
    """Opens what `write_arrays` wrote, memory-mapped and read-only.

    Raises:
        FileNotFoundError: The folder is not there; the message names the command that makes it.
        ValueError: The files do not fit together.
    """
    import pandas as pd

    if not (folder / "index.csv").is_file():
        raise FileNotFoundError(
            f"{'/'.join(folder.parts[-3:])}: no prepared arrays there. Make them with "
            "`dvc repro prepare`."
        )
    text = {"case_id": str, "case_pseudonym": str, "pseudonym": str, "source": str}
    index = pd.read_csv(folder / "index.csv", dtype=text, keep_default_na=False)
    classes = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
    images, masks = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "masks"))
    missing = {"volume", "position", "offset", "height", "width"} - set(index.columns)
    if missing:
        raise ValueError(
            f"{folder.name}/index.csv lacks the columns {sorted(missing)}: another version of the "
            "project made it. Run `dvc repro prepare`."
        )
    pixels = int((index["height"] * index["width"]).sum())
    if not len(images) == len(masks) == pixels:
        raise ValueError(
            f"{folder.name}: images.npy and masks.npy must hold the {pixels} pixels of index.csv, "
            f"got {len(images)} and {len(masks)}. Run `dvc repro prepare`."
        )
    return Arrays(
        images=images,
        masks=masks,
        index=index,
        settings=Preprocessing.load(folder / "preprocessing.json"),
        classes=tuple(classes),
    )


def write_arrays(
    folder: Path,
    cases: pd.DataFrame,
    slices: Iterable[tuple[NDArray[Any], NDArray[np.uint8]]],
    *,
    window: tuple[float, float],
    size_mode: str,
    size: tuple[int, int],
    multiple: int,
    normalise: str,
    classes: tuple[str, ...],
) -> Preprocessing:
    """Writes the prepared slices into an empty folder, reading each slice once.

    Args:
        folder: An empty folder.
        cases: The case table with a column subset.
        slices: (image in HU (H, W), mask of class indices (H, W)) for each row, in order.
        window: Its ends in HU.
        size_mode: "resize", "pad" or "native".
        size: (height, width) for the first two.
        multiple: Height and width become divisible by it in "pad" and "native".
        normalise: "zscore" (by the training slices) or "unit" (0 to 1).
        classes: Class names.

    Returns:
        The settings, with the mean and deviation of the training slices alone.

    Raises:
        OSError: The disk has no room; found before a pixel is written.
    """
    plain = Preprocessing(*window, 0.0, 1.0, size_mode, size, multiple)
    sizes = np.array(
        [plain.output_size(h, w) for h, w in zip(cases["height"], cases["width"], strict=True)],
        dtype=np.int64,
    ).reshape(-1, 2)
    pixels = sizes.prod(axis=1)
    offsets = np.concatenate([[0], np.cumsum(pixels)[:-1]]).astype(np.int64)
    images = _allocated(folder / "images.npy", int(pixels.sum()), np.float16)
    masks = _allocated(folder / "masks.npy", int(pixels.sum()), np.uint8)

    training = (cases["subset"] == "train").to_numpy()
    count, total, squares = 0, 0.0, 0.0
    for row, (image_hu, mask) in enumerate(slices):
        part = slice(offsets[row], offsets[row] + pixels[row])
        image = _sized_image(image_hu, plain)
        images[part] = image.ravel()
        masks[part] = sized_mask(mask, plain).ravel()
        if training[row]:
            # Of the scan alone: padding says nothing about the patient.
            values = windowed(image_hu, *window).astype(np.float64)
            count += values.size
            total += float(values.sum())
            squares += float(np.square(values).sum())
    settings = plain
    if normalise == "zscore":
        mean = total / count
        deviation = math.sqrt(max(squares / count - mean**2, 0.0))
        if deviation < 1e-6:
            raise ValueError(
                f"the window {window} HU shows nothing: after it the training slices hold one "
                f"value ({mean:.3g}). Mend prepare.window, or data.pictures if these are pictures."
            )
        settings = Preprocessing(*window, mean, deviation, size_mode, size, multiple)
        step = 1 << 22
        for start in range(0, images.size, step):
            images[start : start + step] = normalised(images[start : start + step], settings)
    images.flush()
    masks.flush()
    volumes, positions = volumes_and_positions(cases)
    index = cases[["case_id", "case_pseudonym", "pseudonym", "source", "subset"]].assign(
        volume=volumes,
        position=positions,
        offset=offsets,
        height=sizes[:, 0],
        width=sizes[:, 1],
    )
    scale = cases[["height", "width"]].to_numpy() / sizes if size_mode == "resize" else 1.0
    index[["spacing_y_mm", "spacing_x_mm"]] = (
        cases[["spacing_y_mm", "spacing_x_mm"]].to_numpy() * scale
    )
    index.to_csv(folder / "index.csv", index=False)
    settings.save(folder / "preprocessing.json")
    (folder / "classes.json").write_text(json.dumps(list(classes)) + "\n", encoding="utf-8")
    return settings


def _allocated(path: Path, length: int, dtype: Any) -> np.memmap[Any, Any]:
    """A memory-mapped .npy file whose disk blocks are taken now.

    A write into a mapped hole of a full disk ends the process (SIGBUS) without a word; taking the
    blocks first makes it an OSError.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(length,))
    with path.open("r+b") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return array
