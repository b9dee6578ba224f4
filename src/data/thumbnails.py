"""What a slice looks like from afar, by which copies are recognised whatever their file.

A thumbnail is drawn from -200 to 300 HU: else the edges of body, table and field of view outweigh
the rest. The coarse one (16 × 16) shows the anatomy. The fine one (64 × 64 less its own blur) shows
texture and noise, which no two scans share.

A signature is 4096 bits of the fine detail. Each is the side of a random plane that the detail lies
on, so two details whose correlation is r agree in a bit with the probability 1 - arccos(r) / π.

Source: Charikar 2002, "Similarity estimation techniques from rounding algorithms" (the bits);
Ailon and Chazelle 2009, "The fast Johnson-Lindenstrauss transform" (planes by random signs and a
Hadamard transform, as good as drawn ones and much quicker).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

COARSE, FINE = 16, 64
SIGNATURE_BITS = FINE * FINE
_SHOWN_HU = (-200.0, 300.0)
_BLUR = 2.0  # pixels of the fine thumbnail
_LEAST_HU = 0.01  # of detail in a signature: what is less is the rounding of a blurred even area
_SEED = 2026  # of the planes: any will do, as long as all signatures have the same


def thumbnail(image_hu: NDArray[Any], size: int) -> NDArray[np.float32]:
    """The coarse or the fine thumbnail of a slice.

    Args:
        image_hu: (H, W) in HU.
        size: `COARSE` or `FINE`.

    Returns:
        (size * size,) float32 of mean 0 and length 1, so that the product of two is their
        correlation; all 0 where nothing shows.
    """
    flat = _drawn(image_hu, size).ravel().astype(np.float64)
    flat -= flat.mean()
    length = float(np.linalg.norm(flat))
    unit: NDArray[np.float64] = flat / length if length > 1e-6 else np.zeros_like(flat)
    return unit.astype(np.float32)


def _drawn(image_hu: NDArray[Any], size: int) -> NDArray[np.float32]:
    drawn = np.clip(np.asarray(image_hu, np.float32), *_SHOWN_HU)
    small = cv2.resize(drawn, (size, size), interpolation=cv2.INTER_AREA)
    return small - cv2.GaussianBlur(small, (0, 0), _BLUR) if size == FINE else small


def signature(image_hu: NDArray[Any]) -> bytes:
    """The signature of a slice, (H, W) in HU: 512 bytes, or none where no detail shows."""
    detail = _drawn(image_hu, FINE)
    detail -= detail.sum() / detail.size
    if not max(detail.max(), -detail.min()) > _LEAST_HU:  # NaN is not, either
        return b""
    signs, hadamard = _planes()
    sides = hadamard @ (detail * signs) @ hadamard > 0
    return np.packbits(sides).tobytes()


class Signatures:
    """The signatures of all slices in one array: as many small ones they take twice the memory."""

    def __init__(self, expected: int) -> None:
        # What is not written takes no memory.
        self._held = np.empty((max(expected, 1), SIGNATURE_BITS // 8), np.uint8)
        self._number = 0

    def add(self, signature: bytes) -> int:
        """Keeps the signature of a slice and tells its place; -1 where it has none."""
        if not signature:
            return -1
        if self._number == len(self._held):
            larger = np.empty((2 * self._number, self._held.shape[1]), np.uint8)
            larger[: self._number] = self._held
            self._held = larger
        self._held[self._number] = np.frombuffer(signature, np.uint8)
        self._number += 1
        return self._number - 1

    @property
    def array(self) -> NDArray[np.uint8]:
        """(N, 512), in the order in which they were added."""
        return self._held[: self._number]


@cache
def _planes() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Random signs and the Hadamard matrix, both (64, 64) float32 of -1 and 1."""
    generator = np.random.Generator(np.random.PCG64(_SEED))
    signs = generator.integers(0, 2, (FINE, FINE)).astype(np.float32) * 2 - 1
    hadamard = np.ones((1, 1), np.float32)
    while len(hadamard) < FINE:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    return signs, hadamard
