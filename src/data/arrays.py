"""Windowed, sized, normalised slices on disk.

All slices' pixels stand one after the other in one memory-mapped file, so slices of any size share
one layout, and memory does not grow with the data set.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
    plain: Preprocessing,
    normalise: str,
    classes: tuple[str, ...],
) -> Preprocessing:
    """Writes the prepared slices into an empty folder, reading each slice once.

    Args:
        folder: An empty folder.
        cases: The case table with a column subset.
        slices: (image in HU (H, W), mask of class indices (H, W)) for each row, in order.
        plain: What to do to them, with mean 0 and deviation 1.
        normalise: "zscore" (by the training slices) or "unit" (0 to 1).
        classes: Class names.

    Returns:
        The settings, with the mean and deviation of the training slices alone.

    Raises:
        OSError: The disk has no room; found before a pixel is written.
    """
    given = cases[["height", "width"]].to_numpy(np.int64).reshape(-1, 2)
    spacings = cases[["spacing_y_mm", "spacing_x_mm"]].to_numpy(np.float64)
    looks: list[tuple[int, int, Spacing]] = [
        (int(height), int(width), (float(y), float(x)))
        for (height, width), (y, x) in zip(given, spacings, strict=True)
    ]
    sizes = np.array([plain.output_size(*look) for look in looks], np.int64).reshape(-1, 2)
    pixels = sizes.prod(axis=1)
    offsets = np.concatenate([[0], np.cumsum(pixels)[:-1]]).astype(np.int64)
    images = _allocated(folder / "images.npy", int(pixels.sum()), np.float16)
    masks = _allocated(folder / "masks.npy", int(pixels.sum()), np.uint8)

    training = (cases["subset"] == "train").to_numpy()
    count, total, squares = 0, 0.0, 0.0
    for row, (image_hu, mask) in enumerate(slices):
        part = slice(offsets[row], offsets[row] + pixels[row])
        spacing_mm = looks[row][2]
        images[part] = sized_image(image_hu, plain, spacing_mm).ravel()
        masks[part] = sized_mask(mask, plain, spacing_mm).ravel()
        if training[row]:
            # Of the scan alone: padding says nothing about the patient.
            values = windowed(image_hu, plain.window_low, plain.window_high).astype(np.float64)
            count += values.size
            total += float(values.sum())
            squares += float(np.square(values).sum())
    settings = plain
    if normalise == "zscore":
        mean = total / count
        deviation = math.sqrt(max(squares / count - mean**2, 0.0))
        if deviation < 1e-6:
            raise ValueError(
                f"the window {(plain.window_low, plain.window_high)} HU shows nothing: after it "
                f"the training slices hold one value ({mean:.3g}). Mend prepare.window, or "
                "data.pictures if these are pictures."
            )
        settings = replace(plain, mean=mean, deviation=deviation)
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
    sampled = np.array([plain.sampled_size(*look) for look in looks], np.int64).reshape(-1, 2)
    index[["spacing_y_mm", "spacing_x_mm"]] = spacings * (given / sampled)
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
