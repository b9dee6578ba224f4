"""Which slices lie on each other in a scan, and which are a slice's neighbours."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


class Slice(NamedTuple):
    """What says to which scan a slice belongs, by the names of the case table's columns."""

    patient: str
    image_path: str
    series: str
    slice: int


def stacks(slices: Sequence[Slice], shared: Container[str]) -> list[list[int]]:
    """Which slices are one scan: the one rule for what is trained, scored and predicted.

    A file of several slices is a scan. Files of one slice are one scan where they lie in one
    folder and are of one patient and one DICOM series: in the order of `slice` (of a DICOM series
    the place), and where that is the same of their names, with numbers in them compared as numbers
    (2.png before 10.png).

    Args:
        slices: In any order.
        shared: Paths of the files of several slices.

    Returns:
        Rows of `slices`, scan by scan, each in the order of the stack; the scan of the first row
        first.
    """
    folders: dict[tuple[str, ...], list[int]] = {}
    for row, (patient, path, series, _) in enumerate(slices):
        name = path if path in shared else path.rpartition("/")[0]
        folders.setdefault((patient, name, series), []).append(row)
    for rows in folders.values():
        rows.sort(key=lambda row: (slices[row].slice, _natural(slices[row].image_path)))
    return sorted(folders.values(), key=min)


def volumes_and_positions(cases: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The scan of each slice of a case table and its place in it; see `stacks`.

    Args:
        cases: The case table: patient, image_path, series and slice of each row.

    Returns:
        volume (N,) int64 from 0, numbered in the order of the table, and position (N,) int64 from
        0 within the volume.
    """
    in_file = cases["image_path"].value_counts()
    shared = {path for path, number in in_file.items() if number > 1}
    columns = (cases[name].tolist() for name in Slice._fields)
    slices = [Slice(*row) for row in zip(*columns, strict=True)]
    volumes, positions = np.zeros(len(cases), np.int64), np.zeros(len(cases), np.int64)
    for volume, rows in enumerate(stacks(slices, shared)):
        volumes[rows] = volume
        positions[rows] = np.arange(len(rows))
    return volumes, positions


def _natural(path: str) -> list[tuple[int, str]]:
    """A key that sorts numbers in names as numbers."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)
    ]


def neighbours(
    volumes: NDArray[np.integer[Any]],
    positions: NDArray[np.integer[Any]],
    sizes: NDArray[np.integer[Any]],
    context: int,
) -> NDArray[np.int64]:
    """The slices that a network sees together with each slice.

    At the ends of a scan, and beside a slice of another size, the last slice stands in for those
    that are missing.

    Args:
        volumes: (N,), the scan of each slice.
        positions: (N,), its place in the scan.
        sizes: (N, 2), height and width.
        context: Number of neighbours on either side, at least 0.

    Returns:
        (N, 2 * context + 1) int64 rows, from the slice before to the slice after; the slice
        itself is in the middle.

    Raises:
        ValueError: `context` is negative.
    """
    if context < 0:
        raise ValueError(f"context must be at least 0, got {context}. Mend train.context.")
    order = np.lexsort((positions, volumes))
    looks = np.column_stack([volumes, sizes])[order]
    begins = np.ones(len(order), bool)
    begins[1:] = (looks[1:] != looks[:-1]).any(axis=1)
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(order))
    run = np.cumsum(begins) - 1
    places = np.arange(len(order))[:, None] + np.arange(-context, context + 1)
    table = np.empty((len(order), 2 * context + 1), np.int64)
    table[order] = order[np.clip(places, starts[run][:, None], ends[run][:, None] - 1)]
    return table
