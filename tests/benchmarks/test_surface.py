"""The benchmark of surface distances: its command line and its masks; never its times."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import surface

SCRIPT = Path(surface.__file__)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_has_an_example_and_needs_no_peer() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "Example: python benchmarks/surface.py" in done.stdout


def test_a_peer_that_is_not_installed_is_one_message(tmp_path: Path) -> None:
    done = run("--peer", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "no surface_distance there" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_same_seed_gives_the_same_masks() -> None:
    one, two = (surface.lesions(8, 64, seed=3) for _ in range(2))
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first.truth, second.truth)
        np.testing.assert_array_equal(first.prediction, second.prediction)


def test_the_radii_spread_over_all_rows_of_the_table_and_no_mask_is_empty() -> None:
    cases = surface.lesions(40, 512, seed=1)
    rows, _ = np.histogram([case.radius for case in cases], surface.RADII)
    assert rows.sum() == 40
    assert rows.min() > 0
    assert all(case.truth.any() and case.prediction.any() for case in cases)


def test_hd95_by_erosion_and_maps_is_that_of_the_project() -> None:
    for case in surface.lesions(8, 64, seed=2):
        by_scipy = surface._hd95_by_scipy(case, (0.7, 0.7))
        assert surface.ours(case, 0.7, 1.0)[0] == pytest.approx(by_scipy)
