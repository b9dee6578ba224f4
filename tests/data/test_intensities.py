import numpy as np
import pytest

from src.data.intensities import intensities
from src.data.pictures import PictureScale


def scale(slope: float, intercept: float) -> PictureScale:
    return PictureScale(slope, intercept, (1.0, 1.0), 1.0)


def test_the_numbers_of_a_small_slice_by_hand() -> None:
    # 0 to 100 in HU of -50 to 50: the percentile p lies at the value p.
    stored = np.random.default_rng(0).permutation(101).astype(np.uint8).reshape(1, 101)
    found = intensities(stored, scale(1.0, -50.0))
    assert found == pytest.approx((-50.0, -49.0, 0.0, 49.0, 50.0))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (7, 9), (128, 128), (300, 310)])
@pytest.mark.parametrize("slope", [None, 1.0, 0.3, -2.0, 0.0])
def test_the_percentiles_are_numpys_to_the_last_bit(dtype, shape, slope) -> None:
    stored = np.random.default_rng(1).integers(0, 256, shape).astype(dtype)
    if stored.dtype.kind == "f":
        stored *= 1.37
    meaning = None if slope is None else scale(slope, -1024.0)
    hu = stored.astype(np.float32) if meaning is None else meaning.hu(stored)
    some = hu[::2, ::2] if hu.size > 65_536 else hu  # every fourth pixel of a large slice
    found = intensities(stored, meaning)
    assert found[1:4] == tuple(np.percentile(some, [1, 50, 99]).tolist())
    assert (found.least, found.greatest) == (hu.min(), hu.max())


def test_a_value_that_is_no_number_makes_all_of_them_none() -> None:
    stored = np.ones((4, 4), np.float32)
    stored[1, 2] = np.nan
    assert np.isnan(intensities(stored, None)).all()
