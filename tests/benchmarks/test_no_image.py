import numpy as np
import pytest

from benchmarks.no_image import inscribed_ellipsoid


def test_the_ellipsoid_touches_the_borders_less_the_margin() -> None:
    # Half axes of 50 - 20 = 30 mm in z and y, of 100 - 20 = 80 mm in x.
    mask = inscribed_ellipsoid((101, 51, 201), (1.0, 2.0, 1.0), 20.0)
    z, y, x = (np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    assert (z[0], z[-1], y[0], y[-1], x[0], x[-1]) == (20, 80, 10, 40, 20, 180)
    assert mask.sum() * 2.0 == pytest.approx(4 / 3 * np.pi * 30 * 30 * 80, rel=0.01)


def test_a_volume_smaller_than_its_margins_keeps_its_middle() -> None:
    mask = inscribed_ellipsoid((3, 3, 3), (1.0, 1.0, 1.0), 50.0)
    assert mask[1, 1, 1]
    assert mask.sum() == 7  # the middle and its six neighbours, at a distance of one voxel
