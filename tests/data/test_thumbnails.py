import numpy as np
import pytest

from src.data.thumbnails import COARSE, FINE, SIGNATURE_BITS, Signatures, signature, thumbnail
from tests.data.conftest import ct


def agreeing(one: bytes, other: bytes) -> float:
    bits = [np.unpackbits(np.frombuffer(code, np.uint8)) for code in (one, other)]
    return float((bits[0] == bits[1]).mean())


@pytest.mark.parametrize("size", [COARSE, FINE])
def test_a_thumbnail_has_mean_0_and_length_1(size: int) -> None:
    found = thumbnail(ct(1, size=96)[0], size)
    assert found.shape == (size * size,)
    assert found.mean() == pytest.approx(0, abs=1e-6)
    assert found @ found == pytest.approx(1, abs=1e-6)


def test_nothing_shows_of_one_value() -> None:
    even = np.full((64, 64), 40.0, np.float32)
    assert not thumbnail(even, FINE).any()
    assert signature(even) == b""
    assert signature(np.full((50, 70), -1000, np.int16)) == b""


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 1.0])
def test_bits_agree_as_often_as_the_correlation_says(share: float) -> None:
    noise = np.random.default_rng(0).normal(0, 20, (2, FINE, FINE))
    one = (noise[0] + 40).astype(np.float32)
    other = ((1 - share) * noise[0] + share * noise[1] + 40).astype(np.float32)
    correlation = float(thumbnail(one, FINE) @ thumbnail(other, FINE))
    expected = 1 - np.arccos(min(correlation, 1.0)) / np.pi
    # Four standard deviations of a share of 4096 bits are 0.03 at most.
    assert agreeing(signature(one), signature(other)) == pytest.approx(expected, abs=0.03)


def test_a_signature_has_a_bit_for_every_plane() -> None:
    assert len(signature(ct(1, size=96)[0])) * 8 == SIGNATURE_BITS


def test_more_signatures_than_expected_are_kept_in_order():
    signatures = Signatures(2)
    given = [bytes([number]) * (SIGNATURE_BITS // 8) for number in range(5)]
    assert [signatures.add(one) for one in (given[0], b"", *given[1:])] == [0, -1, 1, 2, 3, 4]
    assert signatures.array.tolist() == [[*one] for one in given]


def test_no_signatures_are_an_empty_array():
    assert Signatures(0).array.shape == (0, SIGNATURE_BITS // 8)
