"""Windowed, sized, normalised slices on disk.

All slices' pixels stand one after the other in one file, so slices of any size share one layout. It
is read memory-mapped. It is written slice by slice, on all cores and without a mapping, whose pages
would count as memory of the process: that does not grow with the data set.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from src.data.parallel import in_order
from src.data.preprocessing import (
    Preprocessing,
    Spacing,
    normalised,
    sized_image,
    sized_mask,
    windowed,
)
from src.data.stacks import neighbours, volumes_and_positions

if TYPE_CHECKING:
    import pandas as pd


_TOGETHER = 32  # slices that a thread makes before the next takes over; more if one file holds them
_CHUNK = 1 << 18  # pixels that are normalised at a time: few enough for a processor's cache

Read = Callable[[range], Iterable[tuple[NDArray[Any], NDArray[np.uint8]]]]
"""Rows of the case table -> image in HU (H, W) and class indices (H, W) of each, in order."""


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
    read: Read,
    *,
    plain: Preprocessing,
    normalise: str,
    classes: tuple[str, ...],
    workers: int = 1,
    tick: Callable[[], None] = lambda: None,
) -> Preprocessing:
    """Writes the prepared slices into an empty folder, reading each slice once.

    Args:
        folder: An empty folder.
        cases: The case table with a column subset.
        read: Gives the slices of some rows; called from several threads at a time.
        plain: What to do to them, with mean 0 and deviation 1.
        normalise: "zscore" (by the training slices) or "unit" (0 to 1).
        classes: Class names.
        workers: Threads; each holds what `read` holds, and one slice.
        tick: Called for every slice that is done.

    Returns:
        The settings, with the mean and deviation of the training slices alone.

    Raises:
        OSError: The disk has no room; found before a pixel is written.
    """
    given = cases[["height", "width"]].to_numpy(np.int64).reshape(-1, 2)
    spacings = cases[["spacing_y_mm", "spacing_x_mm"]].to_numpy(np.float64)

    def spacing_of(row: int) -> Spacing:
        y, x = spacings[row].tolist()
        return y, x

    def sized(size: Callable[[int, int, Spacing], tuple[int, int]]) -> NDArray[np.int64]:
        size = cache(size)  # few differ
        found = [size(*look, spacing_of(row)) for row, look in enumerate(given.tolist())]
        return np.array(found, np.int64).reshape(-1, 2)

    sizes = sized(plain.output_size)
    pixels = sizes.prod(axis=1)
    offsets = np.concatenate([[0], np.cumsum(pixels)[:-1]]).astype(np.int64)
    training = (cases["subset"] == "train").to_numpy()

    with (
        _pixel_file(folder / "images.npy", int(pixels.sum()), np.float16) as images,
        _pixel_file(folder / "masks.npy", int(pixels.sum()), np.uint8) as masks,
    ):

        def write(rows: range) -> list[tuple[int, float, float]]:
            """Number, sum and sum of squares of the pixels of each row's scan; 0 if no training."""
            sums = []
            for row, (image_hu, mask) in zip(rows, read(rows), strict=True):
                spacing_mm = spacing_of(row)
                image = windowed(image_hu, plain.window_low, plain.window_high)
                images.write(offsets[row], sized_image(image, plain, spacing_mm))
                masks.write(offsets[row], sized_mask(mask, plain, spacing_mm))
                # Of the scan alone: padding says nothing about the patient.
                sums.append(_sums(image) if training[row] else (0, 0.0, 0.0))
            return sums

        count, total, squares = 0, 0.0, 0.0
        for sums in in_order(write, _rows_by_file(cases, workers), workers):
            for part in sums:
                count, total, squares = count + part[0], total + part[1], squares + part[2]
                tick()
        settings = plain
        if normalise == "zscore":
            settings = _fitted(plain, count, total, squares)

            def normalise_from(start: int) -> None:
                images.write(start, normalised(images.read(start, _CHUNK), settings))

            for _ in in_order(normalise_from, range(0, images.length, _CHUNK), workers):
                pass
    volumes, positions = volumes_and_positions(cases)
    index = cases[["case_id", "case_pseudonym", "pseudonym", "source", "subset"]].assign(
        volume=volumes,
        position=positions,
        offset=offsets,
        height=sizes[:, 0],
        width=sizes[:, 1],
    )
    index[["spacing_y_mm", "spacing_x_mm"]] = spacings * (given / sized(plain.sampled_size))
    index.to_csv(folder / "index.csv", index=False)
    settings.save(folder / "preprocessing.json")
    (folder / "classes.json").write_text(json.dumps(list(classes)) + "\n", encoding="utf-8")
    return settings


def _rows_by_file(cases: pd.DataFrame, workers: int) -> Iterator[range]:
    """Runs of rows that share no image or mask with each other, so that each file is opened once.

    A run holds several small files, but few enough that all threads have work until the end.
    """
    most = max(1, min(_TOGETHER, len(cases) // (8 * max(workers, 1))))
    paths = cases[["image_path", "mask_path"]].to_numpy()
    begins = np.flatnonzero((paths[1:] != paths[:-1]).all(axis=1)) + 1
    start = 0
    for begin in [*begins.tolist(), len(cases)]:
        if begin - start >= most or (begin == len(cases) and begin > start):
            yield range(start, begin)
            start = begin


def _sums(image: NDArray[np.float32]) -> tuple[int, float, float]:
    # Added up in double precision without a copy in it, which NumPy would make.
    return image.size, float(cv2.sumElems(image)[0]), float(cv2.norm(image, cv2.NORM_L2SQR))


def _fitted(plain: Preprocessing, count: int, total: float, squares: float) -> Preprocessing:
    """The settings with the mean and deviation of so many pixels.

    Raises:
        ValueError: All of them hold one value.
    """
    mean = total / count
    deviation = math.sqrt(max(squares / count - mean**2, 0.0))
    if deviation < 1e-6:
        raise ValueError(
            f"the window {(plain.window_low, plain.window_high)} HU shows nothing: after it "
            f"the training slices hold one value ({mean:.3g}). Mend prepare.window, or "
            "data.pictures if these are pictures."
        )
    return replace(plain, mean=mean, deviation=deviation)


@dataclass(frozen=True)
class _PixelFile:
    """An open .npy file of one dimension, written in any order and from any thread."""

    descriptor: int
    begin: int  # of the values, in bytes
    length: int
    dtype: np.dtype[Any]

    def write(self, place: int, values: NDArray[Any]) -> None:
        """Writes values from a place on."""
        content = np.ascontiguousarray(values, self.dtype).reshape(-1).view(np.uint8).data
        at = self.begin + int(place) * self.dtype.itemsize
        while content:  # a disk that fills up takes a part, and refuses the rest
            written = os.pwrite(self.descriptor, content, at)
            content, at = content[written:], at + written

    def read(self, place: int, number: int) -> NDArray[Any]:
        """At most so many values from a place on."""
        size = self.dtype.itemsize
        content = os.pread(self.descriptor, number * size, self.begin + place * size)
        return np.frombuffer(content, self.dtype)


@contextmanager
def _pixel_file(path: Path, length: int, dtype: Any) -> Iterator[_PixelFile]:
    """A new .npy file whose disk blocks are taken now: a full disk is found before the work."""
    empty = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(length,))
    begin = int(empty.offset)
    del empty
    with path.open("r+b") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
        yield _PixelFile(stream.fileno(), begin, length, np.dtype(dtype))
