from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from src import tracking


def test_the_data_hash_is_the_md5_in_data_dvc(tmp_path: Path) -> None:
    (tmp_path / "data.dvc").write_text("outs:\n- md5: 0a1b.dir\n  hash: md5\n  path: data\n")
    assert tracking.data_hash(tmp_path) == "0a1b.dir"


def test_without_data_dvc_the_data_hash_is_none(tmp_path: Path) -> None:
    assert tracking.data_hash(tmp_path) == "none"


def test_a_data_dvc_without_md5_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.dvc").write_text("outs:\n- path: data\n")
    with pytest.raises(ValueError, match=r"one output with its md5, got .* Run: python -m src"):
        tracking.data_hash(tmp_path)


def test_the_split_hash_is_the_md5_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text("abc")
    # The MD5 of "abc" in RFC 1321, appendix A.5.
    assert tracking.split_hash(tmp_path / "split.csv") == "900150983cd24fb0d6963f7d28e17f72"
    assert tracking.split_hash(tmp_path / "missing.csv") == "none"


def test_the_split_hash_of_a_fold_does_not_change_when_other_folds_are_added(
    tmp_path: Path,
) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text('patient,fold,subset\n"Doe, J",0,test\nb,0,train\n')
    two.write_text('patient,fold,subset\nb,10,test\n"Doe, J",0,test\nb,0,train\nb,1,test\n')
    assert tracking.split_hash(two, 0) == tracking.split_hash(one, 0)
    assert tracking.split_hash(one, 0) == tracking.split_hash(one)  # as in dvc.lock
    assert tracking.split_hash(two, 1) != tracking.split_hash(two, 10)
    assert tracking.split_hash(two) != tracking.split_hash(one)
    assert tracking.split_hash(tmp_path / "missing.csv", 0) == "none"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("code.py", "dvc.lock"):
        (tmp_path / name).write_text("1")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "a"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_a_clean_checkout_is_not_dirty_even_when_the_pipeline_wrote_its_lock(
    checkout: Path,
) -> None:
    (checkout / "dvc.lock").write_text("2")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=checkout, check=True, capture_output=True, text=True
    )
    assert tracking.git_state(checkout) == (head.stdout.strip(), False)


@pytest.mark.parametrize("name", ["code.py", "new.py"])
def test_a_changed_or_new_file_makes_a_checkout_dirty(checkout: Path, name: str) -> None:
    (checkout / name).write_text("2")
    assert tracking.git_state(checkout)[1] is True


def test_without_a_repository_the_commit_is_none_and_dirty(tmp_path: Path) -> None:
    assert tracking.git_state(tmp_path) == ("none", True)


def test_provenance_names_data_split_truth_commit_and_dirty_flag(tmp_path: Path) -> None:
    truth = {"classes": ["background", "lesion"]}
    assert tracking.provenance(tmp_path, tmp_path / "split.csv", truth) == {
        "data_hash": "none",
        "split_hash": "none",
        "truth_hash": tracking.short_hash(truth),
        "git_commit": "none",
        "git_dirty": "true",
    }


def test_equal_parameters_give_an_equal_run_name_in_any_order() -> None:
    name = tracking.run_name("unet", {"a": 1, "b": 2})
    assert name == tracking.run_name("unet", {"b": 2, "a": 1})
    assert name != tracking.run_name("unet", {"a": 1, "b": 3})
    assert name.startswith("unet, ")
    assert len(name) == len("unet, ") + 6


def test_nested_parameters_are_flattened_and_absolute_paths_withheld() -> None:
    nested = {"train": {"rate": 0.001, "sizes": [1, 2]}, "data": "/home/Smith", "old": r"C:\Smith"}
    assert tracking.flatten(nested) == {
        "train.rate": "0.001",
        "train.sizes": "[1, 2]",
        "data": "(absolute path withheld)",
        "old": "(absolute path withheld)",
    }
