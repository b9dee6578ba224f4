"""Almost the same picture under two patients: the leak that a split by patient cannot see.

Two slices are copies if their fine detail correlates and their coarse thumbnails do, too
(`thumbnails`). Not every slice is compared with every other: patients of whom two slices agree in
a run of bits of their signatures are looked at again, and the runs are as many and as long as it
takes to find two slices at the wanted correlation with a probability of 1 - exp(-10).

Between 26 patients of a public sarcoma CT the fine detail correlates by 0.36 at most, between 30
synthetic patients by 0.58; a slice of the same CT saved with 8 bits, as JPEG (quality 70), cut to a
soft-tissue window or with noise of 20 HU keeps 0.97, at half the size 0.86. Flipped, shifted or
cropped copies are not found, nor are copies in values that are no HU (the audit warns of these).

Source: Indyk and Motwani 1998, "Approximate nearest neighbors: towards removing the curse of
dimensionality", section 4 (hashing by runs of bits, each of which may bring two together).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from src.data.parallel import Progress, in_order, no_progress
from src.data.pictures import PictureScale, single_channel
from src.data.readers import read_stored
from src.data.scans import scan_file
from src.data.thumbnails import COARSE, FINE, SIGNATURE_BITS, thumbnail

if TYPE_CHECKING:
    import pandas as pd

_COARSE_CORRELATION = 0.95  # copies keep 0.99
_RUNS = 10  # in which two slices at the wanted correlation agree on average: exp(-10) miss all
_LONGEST = 32  # bits of a run
_GLANCE = 4  # words of a signature that are compared first
_WORD = 64  # bits
# How much less than expected two signatures may agree: more than four standard deviations of the
# share of bits at a glance, and six of that of all bits.
_SLACK_GLANCE, _SLACK = 0.12, 0.04
_KEPT = 64  # patients whose thumbnails are held

_Looks = tuple[NDArray[np.float32], NDArray[np.float32]]  # coarse and fine, a row a slice


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
    signatures: NDArray[np.uint8],
    *,
    root: Path,
    pictures: PictureScale,
    correlation: float,
    workers: int,
    progress: Progress = no_progress,
) -> list[NearDuplicate]:
    """Finds patients who share almost the same slices.

    Args:
        table: What `build_cases` gave. Slices of one value, or with values that are no numbers, are
            passed.
        signatures: What it gave, too.
        root: The data folder.
        pictures: What the values of pictures mean.
        correlation: Of the fine detail, from which on two slices are alike.
        workers: Threads; each holds one scan at a time.
        progress: Opens a progress bar.

    Returns:
        One record a pair of patients, sorted by patients; empty for fewer than two patients.
    """
    shown = table["signature"] >= 0
    signed = table.loc[shown, ["patient", "signature"]].sort_values("signature")
    owners, names = signed["patient"].factorize(sort=True)
    if len(names) < 2:
        return []
    alike = owners_alike(signatures, owners, correlation, workers)
    if not len(alike):
        return []
    rows = table[shown & table["patient"].isin(names[np.unique(alike)])]
    slices = {str(name): part for name, part in rows.groupby("patient")}

    @lru_cache(_KEPT)
    def looks(name: str) -> _Looks:
        return _looks(root, slices[name], pictures)

    def compare(pair: NDArray[np.int64]) -> NearDuplicate | None:
        one, other = names[pair]
        return _compared((slices[one], slices[other]), (looks(one), looks(other)), correlation)

    found: list[NearDuplicate] = []
    with progress("looking again at patients who seem alike", len(alike)) as step:
        for duplicate in in_order(compare, alike, workers):
            if duplicate is not None:
                found.append(duplicate)
            step()
    return found


def owners_alike(
    signatures: NDArray[np.uint8],
    owners: NDArray[np.integer],
    correlation: float,
    workers: int = 1,
) -> NDArray[np.int64]:
    """Owners of whom two signatures seem to be of details that correlate.

    Args:
        signatures: (N, B) bits, packed.
        owners: (N,) whole numbers from 0.
        correlation: Of the details, at least.
        workers: Threads.

    Returns:
        (M, 2) pairs of different owners, the lower one first, sorted, each once. Some of the pairs
        may be no such owners; of those that are, none is missing but by a chance of exp(-10) for
        each two slices.
    """
    agreeing = 1 - math.acos(correlation) / math.pi  # the share of bits
    words = np.ascontiguousarray(signatures).view(np.uint64)
    glances = np.ascontiguousarray(words[:, :_GLANCE])
    owners, number = owners.astype(np.int64), int(owners.max()) + 1

    def apart(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
        return owners[first] != owners[second]

    def near(
        part: NDArray[np.uint64], slack: float, first: NDArray[np.int64], second: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        other = np.bitwise_count(part[first] ^ part[second]).sum(axis=1, dtype=np.int64)
        found: NDArray[np.bool_] = other <= part.shape[1] * _WORD * (1 - agreeing + slack)
        return found

    tests = (apart, partial(near, glances, _SLACK_GLANCE), partial(near, words, _SLACK))

    def alike(codes: NDArray[np.uint64]) -> set[int]:
        """Pairs of owners, as one number each, of whom two signatures agree in a run."""
        found: set[int] = set()
        for first, second in _equal(codes):
            for test in tests:
                if len(first):  # most often none is left
                    kept = test(first, second)
                    first, second = first[kept], second[kept]
            pair = np.sort([owners[first], owners[second]], axis=0)
            found.update((pair[0] * number + pair[1]).tolist())
        return found

    runs = _runs(signatures, _run_length(agreeing))
    keys = np.array(sorted(set().union(*in_order(alike, runs, workers))), np.int64)
    return np.column_stack([keys // number, keys % number])


def _run_length(agreeing: float) -> int:
    """The longest runs of bits of which enough agree if each bit does so with a probability."""
    length = 1
    while length < _LONGEST and SIGNATURE_BITS // (length + 1) * agreeing ** (length + 1) >= _RUNS:
        length += 1
    return length


def _runs(signatures: NDArray[np.uint8], length: int) -> Iterator[NDArray[np.uint64]]:
    """(N,) the bits of each run as a number, run by run."""
    for start in range(0, signatures.shape[1] * 8 - length + 1, length):
        last = (start + length - 1) // 8
        code = np.zeros(len(signatures), np.uint64)
        for column in range(start // 8, last + 1):
            code = code << np.uint64(8) | signatures[:, column]
        behind = (last + 1) * 8 - (start + length)  # bits of the last byte beyond the run
        yield code >> np.uint64(behind) & np.uint64(2**length - 1)


def _equal(codes: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Places of equal codes, every two of them once."""
    order = np.argsort(codes)
    codes = codes[order]
    left = np.flatnonzero(codes[:-1] == codes[1:])
    step = 1
    while len(left):
        yield order[left], order[left + step]
        step += 1
        left = left[: np.searchsorted(left, len(codes) - step)]
        left = left[codes[left] == codes[left + step]]


def _looks(root: Path, rows: pd.DataFrame, pictures: PictureScale) -> _Looks:
    """The thumbnails of a patient's slices; each file is read once."""
    coarse = np.empty((len(rows), COARSE * COARSE), np.float32)
    fine = np.empty((len(rows), FINE * FINE), np.float32)
    wanted: dict[str, list[tuple[int, int]]] = {}
    for row, (path, place) in enumerate(zip(rows["image_path"], rows["slice"], strict=True)):
        wanted.setdefault(path, []).append((row, place))
    for path, members in wanted.items():
        scan = scan_file(root, path)
        stack = single_channel(read_stored(root, scan, pictures).array, path)
        for row, place in members:
            image = stack[place if len(stack) > 1 else 0]
            hu = pictures.hu(image) if scan.kind == "picture" else image
            coarse[row], fine[row] = thumbnail(hu, COARSE), thumbnail(hu, FINE)
    return coarse, fine


def _compared(
    slices: tuple[pd.DataFrame, pd.DataFrame], looks: tuple[_Looks, _Looks], correlation: float
) -> NearDuplicate | None:
    """The record of two patients; None where no two slices are alike."""
    pairs = np.argwhere(looks[0][0] @ looks[1][0].T >= _COARSE_CORRELATION)
    values = [(float(looks[0][1][a] @ looks[1][1][b]), int(a), int(b)) for a, b in pairs]
    # float32 makes an exact copy 0.9999999
    sure = [value for value in values if value[0] >= correlation - 1e-6]
    if not sure:
        return None
    value, *best = max(sure)
    one, other = (rows.iloc[row] for rows, row in zip(slices, best, strict=True))
    return NearDuplicate(
        (one["patient"], other["patient"]),
        (one["case_id"], other["case_id"]),
        (one["image_path"], other["image_path"]),
        len(sure),
        min(value, 1.0),
    )


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
    twice = table["sha256_image"].duplicated(keep=False)  # most often nowhere
    rows = table.loc[twice & (table["hu_min"] < table["hu_max"]), ["sha256_image", "patient"]]
    rows = rows.drop_duplicates()
    rows = rows[rows["sha256_image"].duplicated(keep=False)]
    return {str(key): sorted(part["patient"]) for key, part in rows.groupby("sha256_image")}
