from __future__ import annotations

import hashlib

import numpy as np
import pytest

from src.data.hashes import hash_of_even, mask_hash, slice_hash
from src.label_values import COLOUR


@pytest.mark.parametrize("stored", ["uint8", "int32"])
def test_a_mask_has_one_hash_in_whatever_type_a_file_stores_it(stored):
    values = np.array([[0, 1, 2], [3, 200, 255]])
    expected = hashlib.sha256(b"(2, 3) |u1 " + bytes([0, 1, 2, 3, 200, 255])).hexdigest()
    assert mask_hash(values.astype(stored)) == expected


@pytest.mark.parametrize("beyond", [-1, 256])
def test_a_label_beyond_a_byte_has_a_hash_of_its_own(beyond):
    values = np.array([[0, beyond]], np.int32)
    wrapped = values.astype(np.uint8).astype(np.int32)
    assert mask_hash(values) == slice_hash(values) != mask_hash(wrapped)


def test_the_hash_of_a_colour_mask_is_that_of_red_green_blue():
    found = mask_hash(np.array([[0, 9, COLOUR + 0x010203]], np.int32))
    assert found == slice_hash(np.array([[0, 0x090909, 0x010203]], np.int32))
    blue = slice_hash(np.full((2, 2), 255, np.uint8))
    assert hash_of_even((2, 2), COLOUR + 255) == blue


def test_other_values_or_another_shape_have_another_hash():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    other = values.copy()
    other[1, 2] = -5
    assert len({slice_hash(array) for array in (values, other, -values, values.T)}) == 4
