"""Hand-computed checks of what is said of two number formats."""

from __future__ import annotations

import pytest

from benchmarks.precision import mean_interval, rows_of, verdict
from src.evaluation.statistics import Interval


def test_the_interval_of_a_mean_is_that_of_students_t() -> None:
    # Deviation 1, of three values: 4.303 (two degrees of freedom) over the root of 3.
    found = mean_interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.low == pytest.approx(2 - 2.484, abs=1e-3)
    assert found.high == pytest.approx(2 + 2.484, abs=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.08, -0.04, "costs Dice (-0.060), more than another seed changes (0.030)"),
        (-0.03, -0.01, "costs Dice (-0.020), less than another seed changes (0.030)"),
        (-0.02, 0.04, "No cost of bfloat16 (+0.010); one as large as what another seed changes"),
        (-0.05, 0.03, "with 4 seeds one of up to 0.050 is not ruled out"),
    ],
)
def test_the_verdict_weighs_the_interval_against_the_noise(
    low: float, high: float, said: str
) -> None:
    assert said in verdict(Interval((low + high) / 2, low, high, 4), noise=0.03)


def test_differences_are_paired_by_seed_and_are_bfloat16_less_float32() -> None:
    rows, _ = rows_of(
        {
            "float32": [{"dice": 0.50, "iou": 0.4}, {"dice": 0.60, "iou": 0.5}],
            "bfloat16": [{"dice": 0.52, "iou": 0.3}, {"dice": 0.59, "iou": 0.6}],
        }
    )
    assert rows[0] == ["1", "0.500", "0.520", "+0.020", "0.400", "0.300", "-0.100"]
    assert rows[1] == ["2", "0.600", "0.590", "-0.010", "0.500", "0.600", "+0.100"]
    assert rows[2][:4] == ["mean", "0.550", "0.555", "+0.005"]
    # 12.706 (one degree of freedom) times 0.0212 over the root of 2.
    assert rows[3][:4] == ["95 %", "", "", "-0.186 to +0.196"]
    assert rows[4][:4] == ["SD", "0.071", "0.049", "0.021"]
