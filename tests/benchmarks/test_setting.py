"""What a benchmark that was killed takes up again."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.setting import finished


def test_a_training_without_a_result_is_to_be_done(tmp_path: Path) -> None:
    assert finished(tmp_path / "result.json", "unet", minutes=2.0) is None


def test_a_finished_training_is_taken_up_under_the_same_conditions_alone(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    result.write_text('{"minutes": 2.0, "dice": {"a": 0.5}}', encoding="utf-8")
    assert finished(result, "unet", minutes=2.0) == {"minutes": 2.0, "dice": {"a": 0.5}}
    with pytest.raises(ValueError, match=r"unet was trained with --minutes 2\.0, not 3\.0"):
        finished(result, "unet", minutes=3.0)
