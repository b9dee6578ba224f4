"""Where a benchmark may write scans, and what it takes up again when it was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.setting import ROOT, finished, make_setting


def test_a_training_without_a_result_is_to_be_done(tmp_path: Path) -> None:
    assert finished(tmp_path / "result.json", "unet", minutes=2.0) is None


def test_a_finished_training_is_taken_up_under_the_same_conditions_alone(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    result.write_text('{"minutes": 2.0, "dice": {"a": 0.5}}', encoding="utf-8")
    assert finished(result, "unet", minutes=2.0) == {"minutes": 2.0, "dice": {"a": 0.5}}
    with pytest.raises(ValueError, match=r"unet was trained with --minutes 2\.0, not 3\.0"):
        finished(result, "unet", minutes=3.0)


@pytest.mark.parametrize("out", [ROOT, ROOT / "results", ROOT / "docs" / "accuracy"])
def test_scans_are_not_copied_to_where_git_would_take_them(out: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--out .*: found a folder .* git does not ignore"):
        make_setting(tmp_path, ROOT / "params.yaml", out, cores=1)
    assert not (out / "setting.log").exists()


@pytest.mark.parametrize("out", ["accuracy", "ablation", "precision/again", "../elsewhere"])
def test_what_git_ignores_and_what_lies_elsewhere_may_hold_scans(out: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):  # the data come next
        make_setting(tmp_path / "nowhere", ROOT / "params.yaml", (ROOT / out).resolve(), cores=1)
