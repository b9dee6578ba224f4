import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.evaluation.surface_elements import element_sizes

SQUARE = [(0, 0), (0, 1), (1, 0), (1, 1)]
CUBE = [(z, *corner) for z in (0, 1) for corner in SQUARE]


def code_of(inside, corners):
    """The code of a cell with these corners inside."""
    return sum(1 << corners.index(corner) for corner in inside)


# With a spacing of (3, 4) mm half the diagonal of a pixel is 2.5 mm.
@pytest.mark.parametrize(
    ("inside", "length"),
    [
        ([], 0.0),
        ([(0, 0)], 2.5),
        ([(1, 1)], 2.5),
        ([(0, 0), (0, 1)], 4.0),  # the upper two: a line along x
        ([(0, 0), (1, 0)], 3.0),  # the left two: a line along y
        ([(0, 0), (1, 1)], 5.0),  # across: each cut off by itself
        ([(0, 1), (1, 0)], 5.0),
        ([(0, 0), (0, 1), (1, 0)], 2.5),
        (SQUARE, 0.0),
    ],
)
def test_lengths_are_those_drawn_by_hand(inside, length):
    assert element_sizes((3.0, 4.0))[code_of(inside, SQUARE)] == pytest.approx(length)


# Voxels of 1 mm: a corner is cut off by a triangle with sides of sqrt(1 / 2) mm.
TRIANGLE = math.sqrt(3) / 8


@pytest.mark.parametrize(
    ("inside", "area"),
    [
        ([], 0.0),
        ([(0, 0, 0)], TRIANGLE),
        ([(0, 0, 0), (0, 0, 1)], math.sqrt(0.5)),  # a rectangle of 1 by sqrt(1 / 2)
        ([(0, *corner) for corner in SQUARE], 1.0),  # a face
        ([(0, 0, 0), (0, 1, 1)], 2 * TRIANGLE),  # across a face: each cut off by itself
        ([(0, 0, 0), (1, 1, 1)], 2 * TRIANGLE),
        ([(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)], 6 * TRIANGLE),  # a hexagon
        ([corner for corner in CUBE if corner != (1, 1, 1)], TRIANGLE),
        (CUBE, 0.0),
    ],
)
def test_areas_are_those_drawn_by_hand(inside, area):
    assert element_sizes((1.0, 1.0, 1.0))[code_of(inside, CUBE)] == pytest.approx(area)


def test_the_area_of_a_face_is_that_of_its_two_spacings():
    sizes = element_sizes((5.0, 2.0, 3.0))

    assert sizes[code_of([(0, *corner) for corner in SQUARE], CUBE)] == pytest.approx(2 * 3)
    assert sizes[code_of([c for c in CUBE if c[1] == 0], CUBE)] == pytest.approx(5 * 3)
    assert sizes[code_of([c for c in CUBE if c[2] == 0], CUBE)] == pytest.approx(5 * 2)


@pytest.mark.parametrize("corners", [SQUARE, CUBE])
@given(order=st.permutations([0, 1, 2]), flipped=st.tuples(*[st.booleans()] * 3))
def test_turning_and_mirroring_a_cell_with_its_spacing_keeps_its_size(corners, order, flipped):
    ndim = len(corners[0])
    order = [axis for axis in order if axis < ndim]
    spacing = (5.0, 2.0, 3.0)[:ndim]
    turned = [tuple(c[axis] ^ flipped[axis] for axis in order) for c in corners]
    before, after = element_sizes(spacing), element_sizes(tuple(spacing[a] for a in order))

    for code in range(before.size):
        inside = [turned[i] for i in range(len(corners)) if code >> i & 1]
        assert after[code_of(inside, corners)] == pytest.approx(before[code])


def test_the_sizes_kept_for_the_next_call_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        element_sizes((1.0, 1.0))[0] = 1.0


def test_the_surface_of_a_ball_is_that_of_steps_at_most_a_twelfth_larger_than_the_round_one():
    # The surface between two values alone is a staircase with its edges cut off.
    radius = 12
    offsets = np.indices((2 * radius + 3,) * 3) - radius - 1
    inside = ((offsets**2).sum(axis=0) <= radius**2).astype(np.uint8)
    shifted = [inside[z : z + 26, y : y + 26, x : x + 26] for z, y, x in CUBE]
    codes = sum(part.astype(int) << i for i, part in enumerate(shifted))

    area = element_sizes((1.0, 1.0, 1.0))[codes].sum()

    assert 1.0 < area / (4 * math.pi * radius**2) < 13 / 12
