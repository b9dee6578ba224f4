from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from src.data.duplicates import NearDuplicate, near_duplicates, owners_alike
from src.data.readers import read_image_slice
from src.data.thumbnails import COARSE, FINE, SIGNATURE_BITS, thumbnail
from tests.data.conftest import SCALE, ct, organ, write_picture

PATIENTS, SLICES = 12, 4


def signatures(details: np.ndarray) -> np.ndarray:
    """(N, bits) details, drawn at random -> their signs, packed: planes need not be drawn, too."""
    return np.packbits(details > 0, axis=1)


@pytest.mark.parametrize("correlation", [0.7, 0.85, 0.97, 1.0])
def test_all_owners_whose_details_correlate_are_found(correlation: float) -> None:
    generator = np.random.default_rng(0)
    one = generator.standard_normal((300, SIGNATURE_BITS), np.float32)
    other = generator.standard_normal((300, SIGNATURE_BITS), np.float32)
    other = correlation * one + np.sqrt(1 - correlation**2) * other
    found = owners_alike(signatures(np.concatenate([one, other])), np.arange(600), correlation)
    assert found.tolist() == [[number, number + 300] for number in range(300)]


def test_owners_whose_details_correlate_less_are_not_found() -> None:
    generator = np.random.default_rng(0)
    common = generator.standard_normal((1, SIGNATURE_BITS), np.float32)
    own = generator.standard_normal((600, SIGNATURE_BITS), np.float32)
    details = np.sqrt(0.5) * common + np.sqrt(0.5) * own  # correlation 0.5 of every two
    assert len(owners_alike(signatures(details), np.arange(600), 0.85)) == 0


def test_slices_of_one_owner_are_not_compared() -> None:
    details = np.random.default_rng(0).standard_normal((1, SIGNATURE_BITS)).repeat(3, axis=0)
    assert len(owners_alike(signatures(details), np.zeros(3, np.int64), 0.85)) == 0


def exhaustive(table, root: Path, correlation: float) -> list[NearDuplicate]:
    """Every slice with every other, by the definition."""
    images = [read_image_slice(root, path, 0, SCALE) for path in table["image_path"]]
    coarse, fine = (
        np.stack([thumbnail(image, size) for image in images]) for size in (COARSE, FINE)
    )
    found: dict[tuple[str, str], list[tuple[float, int, int]]] = {}
    patients = table["patient"].tolist()
    for a, b in combinations(range(len(table)), 2):
        likeness = float(fine[a] @ fine[b])
        if patients[a] != patients[b] and coarse[a] @ coarse[b] >= 0.95 and likeness >= correlation:
            found.setdefault((patients[a], patients[b]), []).append((likeness, a, b))
    return [
        NearDuplicate(
            pair,
            tuple(table["case_id"].iloc[[best[1], best[2]]]),
            tuple(table["image_path"].iloc[[best[1], best[2]]]),
            len(members),
            min(best[0], 1.0),
        )
        for pair, members in sorted(found.items())
        for best in [max(members)]
    ]


def test_planted_copies_are_those_that_comparing_all_slices_finds(build, tmp_path: Path) -> None:
    drawn = {
        (patient, place): ct(100 * patient + place, size=96)[0].astype(np.float32)
        for patient in range(PATIENTS)
        for place in range(SLICES)
    }
    generator = np.random.default_rng(0)
    # Copies with more and more noise of their own, some of them below the threshold.
    for number in range(1, PATIENTS):
        noise = generator.normal(0, 10 * number, (96, 96))
        drawn[number, 1] = drawn[0, 0] + noise
        drawn[number, 2] = drawn[number - 1, 3] + noise / 2
    for (patient, place), image in drawn.items():
        stored = np.clip(np.rint(image + 1024), 0, 4095).astype(np.uint16)
        write_picture(tmp_path / "images" / f"P{patient:02d}" / f"{place}.png", stored)
        write_picture(tmp_path / "masks" / f"P{patient:02d}" / f"{place}.png", organ(size=96)[0])
    table, signatures, findings = build(signed=True)
    assert findings == []
    options = {"root": tmp_path, "pictures": SCALE, "correlation": 0.85}
    found = near_duplicates(table, signatures, **options, workers=2)
    assert found == exhaustive(table, tmp_path, 0.85)
    # Neither all nor none of the planted pairs of patients.
    assert 5 < len(found) < PATIENTS * (PATIENTS - 1) // 2
