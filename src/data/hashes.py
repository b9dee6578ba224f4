"""Hashes that tell the same picture or mask, in whatever file it lies."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.data.masks import Labels
from src.label_values import COLOUR


def slice_hash(array: NDArray[Any]) -> str:
    """SHA-256 of a slice: its shape, type and values, in hexadecimal.

    Of an image it is taken of the values in the file as float32, before `data.pictures` scales
    them: pseudonyms, and with them the split, depend on it, and must change neither with a
    parameter nor with the type that a file stores them in.
    """
    found = hashlib.sha256(f"{array.shape} {array.dtype.str} ".encode())
    found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def mask_hash(labels: Labels) -> str:
    """`slice_hash` of label values: as uint8 where all fit into it, else as int32.

    Of a slice with colours it is taken of 0xRRGGBB in every pixel.
    """
    if labels.dtype == np.uint8:
        return slice_hash(labels)
    if labels.size and labels.max() >= COLOUR:
        labels = np.where(labels < COLOUR, labels * 0x010101, labels - COLOUR)
    if labels.size and labels.min() >= 0 and labels.max() < 256:
        return slice_hash(labels.astype(np.uint8))
    return slice_hash(labels)


@lru_cache
def hash_of_even(shape: tuple[int, ...], value: int) -> str:
    """`mask_hash` of a mask of one value: very many are empty."""
    return mask_hash(np.full(shape, value, np.int32))
