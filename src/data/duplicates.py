"""Almost the same picture under two patients: the leak that a split by patient cannot see.

Two slices are compared twice. Coarse thumbnails (16 × 16) quickly leave few candidates. What
decides is fine detail: thumbnails of 64 × 64 less their own blur, in which texture and noise stand
out. Both are drawn from -200 to 300 HU: else the edges of body, table and field of view outweigh
the rest.

Between 26 patients of a public sarcoma CT the fine detail correlates by 0.36 at most, between 30
synthetic patients by 0.58; a slice of the same CT saved with 8 bits, as JPEG (quality 70), cut to a
soft-tissue window or with noise of 20 HU keeps 0.97, at half the size 0.86. Flipped, shifted or
cropped copies are not found, nor are copies in values that are no HU (the audit warns of these).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from src.data.cases import Progress, no_progress
from src.data.pictures import PictureScale, single_channel
from src.data.readers import read_stored
from src.data.scans import scan_file

if TYPE_CHECKING:
    import pandas as pd

_COARSE, _FINE = 16, 64
_SHOWN_HU = (-200.0, 300.0)
_CANDIDATE = 0.95  # copies keep 0.99 in the coarse thumbnails


@dataclass(frozen=True)
class NearDuplicate:
    """Two patients with almost the same slices.

    Attributes:
        patients: The two.
        case_ids: The two slices that are most alike.
        image_paths: Their files.
        slices: How many pairs of slices are alike.
        correlation: Of the two slices' fine detail, at most 1.
    """

    patients: tuple[str, str]
    case_ids: tuple[str, str]
    image_paths: tuple[str, str]
    slices: int
    correlation: float


def near_duplicates(
    table: pd.DataFrame,
    *,
    root: Path,
    pictures: PictureScale,
    correlation: float,
    workers: int,
    progress: Progress = no_progress,
) -> list[NearDuplicate]:
    """Finds patients who share almost the same slices.

    Args:
        table: The case table. Slices of one value, or with values that are no numbers, are passed.
        root: The data folder.
        pictures: What the values of pictures mean.
        correlation: Of the fine detail, from which on two slices are alike.
        workers: Threads; each holds one scan at a time.
        progress: Opens a progress bar.

    Returns:
        One record a pair of patients, sorted by patients; empty for fewer than two patients.
    """
    rows = table[table["hu_min"] < table["hu_max"]].reset_index(drop=True)
    if rows["patient"].nunique() < 2:
        return []
    read = partial(_of_file, root, pictures, _COARSE)
    coarse = _thumbnails(rows, read, workers, progress)
    pairs = _candidates(coarse, rows["patient"].factorize()[0])
    if not len(pairs):
        return []
    wanted, places = np.unique(pairs, return_inverse=True)
    read = partial(_of_file, root, pictures, _FINE)
    fine = _thumbnails(rows.iloc[wanted], read, workers, progress)
    places = places.reshape(pairs.shape)
    likeness = np.array([float(fine[a] @ fine[b]) for a, b in places])
    sure = likeness >= correlation - 1e-6  # float32 makes an exact copy 0.9999999
    return _by_patients(rows, pairs[sure], likeness[sure])


def _by_patients(
    rows: pd.DataFrame, pairs: NDArray[np.int64], likeness: NDArray[np.float64]
) -> list[NearDuplicate]:
    patients, ids, paths = (rows[name].to_list() for name in ("patient", "case_id", "image_path"))
    found: dict[tuple[str, str], list[tuple[float, int, int]]] = {}
    for (first, second), value in zip(pairs.tolist(), likeness.tolist(), strict=True):
        a, b = sorted((first, second), key=lambda row: patients[row])
        found.setdefault((patients[a], patients[b]), []).append((value, a, b))
    result = []
    for names, members in sorted(found.items()):
        value, a, b = max(members)
        result.append(
            NearDuplicate(
                names, (ids[a], ids[b]), (paths[a], paths[b]), len(members), min(value, 1.0)
            )
        )
    return result


def _thumbnails(
    rows: pd.DataFrame,
    read: Callable[[tuple[str, Iterable[int]]], NDArray[np.float32]],
    workers: int,
    progress: Progress,
) -> NDArray[np.float32]:
    """(N, P) float32 of mean 0 and length 1, in the order of the rows; each file is read once."""
    files = {str(path): part for path, part in rows.reset_index(drop=True).groupby("image_path")}
    wanted = [(path, part["slice"].to_list()) for path, part in files.items()]
    parts: list[NDArray[np.float32]] = []
    with (
        progress("looking for copies across patients", len(files)) as step,
        ThreadPoolExecutor(max(workers, 1)) as pool,
    ):
        for part in pool.map(read, wanted):
            parts.append(part)
            step()
    result = np.concatenate(parts)
    order = np.concatenate([part.index.to_numpy() for part in files.values()])
    return result[np.argsort(order)]


def _of_file(
    root: Path, pictures: PictureScale, size: int, wanted: tuple[str, Iterable[int]]
) -> NDArray[np.float32]:
    path, slices = wanted
    scan = scan_file(root, path)
    stack = single_channel(read_stored(root, scan, pictures).array, path)
    chosen = [stack[place if len(stack) > 1 else 0] for place in slices]
    if scan.kind == "picture":
        chosen = [pictures.hu(image) for image in chosen]
    return np.stack([_thumbnail(image, size) for image in chosen])


def _thumbnail(image: NDArray[Any], size: int) -> NDArray[np.float32]:
    drawn = np.clip(image.astype(np.float32), *_SHOWN_HU)
    small = cv2.resize(drawn, (size, size), interpolation=cv2.INTER_AREA)
    if size == _FINE:
        small = small - cv2.GaussianBlur(small, (0, 0), 2.0)
    flat = small.ravel().astype(np.float64)
    flat -= flat.mean()
    length = float(np.linalg.norm(flat))
    unit: NDArray[np.float64] = flat / length if length > 1e-6 else np.zeros_like(flat)
    return unit.astype(np.float32)


def _candidates(thumbnails: NDArray[np.float32], patients: NDArray[np.int64]) -> NDArray[np.int64]:
    """(M, 2) rows of different patients whose coarse thumbnails are alike."""
    from sklearn.neighbors import NearestNeighbors

    radius = float(np.sqrt(2.0 - 2.0 * _CANDIDATE))  # of vectors of length 1
    index = NearestNeighbors(radius=radius, algorithm="brute").fit(thumbnails)
    pairs: list[NDArray[np.int64]] = [np.empty((0, 2), dtype=np.int64)]
    for patient in np.unique(patients):  # patient by patient, so that memory stays small
        rows = np.flatnonzero(patients == patient)
        for row, near in zip(
            rows, index.radius_neighbors(thumbnails[rows], return_distance=False), strict=True
        ):
            others = near[patients[near] > patient]
            pairs.append(np.column_stack([np.full(len(others), row), others]).astype(np.int64))
    return np.concatenate(pairs)


def duplicate_groups(table: pd.DataFrame, near: Sequence[NearDuplicate] = ()) -> dict[str, str]:
    """Patient -> group: patients who share the same or almost the same slices share a group.

    Args:
        table: The case table.
        near: What `near_duplicates` found.

    Returns:
        For every patient the least pseudonym of the group; of a patient alone, its own.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pseudonyms = dict(zip(table["patient"], table["pseudonym"], strict=True))
    patients = sorted(pseudonyms)
    number = {patient: place for place, patient in enumerate(patients)}
    links = [pair.patients for pair in near]
    for shared in shared_pictures(table).values():
        links += [(shared[0], other) for other in shared[1:]]
    first = [number[a] for a, _ in links]
    second = [number[b] for _, b in links]
    graph = coo_array((np.ones(len(links)), (first, second)), shape=(len(patients),) * 2)
    labels = connected_components(graph, directed=False)[1]
    groups: dict[int, str] = {}
    for patient, label in zip(patients, labels.tolist(), strict=True):
        groups[label] = min(groups.get(label, pseudonyms[patient]), pseudonyms[patient])
    return {
        patient: groups[label] for patient, label in zip(patients, labels.tolist(), strict=True)
    }


def shared_pictures(table: pd.DataFrame) -> dict[str, list[str]]:
    """sha256_image -> the patients, two or more, who have that very slice.

    Slices of one value (padding) are left out: they are alike without being copies.
    """
    rows = table[table["hu_min"] < table["hu_max"]]
    counts = rows.groupby("sha256_image")["patient"].nunique()
    rows = rows[rows["sha256_image"].isin(counts[counts > 1].index)]
    return {str(key): sorted(set(part["patient"])) for key, part in rows.groupby("sha256_image")}
