import json
from pathlib import Path

import pytest

from src.report.results import read_results
from tests.report_files import write_reports


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("audit.json", "audit"),
        ("split.json", "split"),
        ("comparison.json", "compare"),
        ("metrics.json", "compare"),
        ("evaluation/unet/fold0/scores.json", "evaluate"),
        ("evaluation/unet/fold0/test_patients.csv", "evaluate"),
        ("evaluation/unet/fold0/calibration.json", "evaluate"),
        ("evaluation/unet/fold0/uncertainty.json", "evaluate"),
        ("evaluation/unet/fold0/gallery.json", "evaluate"),
        ("evaluation/unet/fold0/dice_by_size.json", "evaluate"),
    ],
)
def test_a_missing_file_is_named_with_the_command_that_makes_it(
    tmp_path: Path, name: str, stage: str
) -> None:
    reports = write_reports(tmp_path / "reports")
    (reports / name).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        read_results(reports)
    assert str(caught.value) == f"reports/{name} is missing. Make it with `dvc repro {stage}`."


def test_missing_curves_are_named(tmp_path: Path) -> None:
    reports = write_reports(tmp_path / "reports")
    for path in (reports / "curves" / "unet" / "fold0").glob("*.csv"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"curves/unet/fold0/loss.csv is missing.*train"):
        read_results(reports)


def test_a_missing_field_is_named_with_its_file(tmp_path: Path) -> None:
    reports = write_reports(tmp_path / "reports")
    path = reports / "evaluation" / "unet" / "fold0" / "scores.json"
    content = json.loads(path.read_text())
    del content["test"]["hd95_mm"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"unet/fold0/scores.json: test.hd95_mm: Field required"):
        read_results(reports)


def test_a_broken_curve_is_named(tmp_path: Path) -> None:
    reports = write_reports(tmp_path / "reports")
    path = reports / "curves" / "unet" / "fold0" / "loss.csv"
    path.write_text("epoch,train\n1,0.5\n")
    with pytest.raises(ValueError, match=r"unet/fold0/loss.csv: a row without epoch, train and"):
        read_results(reports)


def test_a_champion_that_was_not_trained_here_is_refused(tmp_path: Path) -> None:
    reports = write_reports(tmp_path / "reports")
    path = reports / "comparison.json"
    path.write_text(path.read_text().replace('"champion": "unetpp"', '"champion": "nnunet"'))
    with pytest.raises(ValueError, match="champion is 'nnunet', expected one of the models"):
        read_results(reports)


def test_the_champion_comes_first_and_models_from_outside_last(tmp_path: Path) -> None:
    results = read_results(write_reports(tmp_path / "reports"))
    assert list(results.models) == ["unetpp", "unet", "attention_unet"]
    ranked = [model.name for model in results.ranked]
    assert ranked == ["unetpp", "attention_unet", "unet", "nnunet"]


def test_patients_of_all_folds_are_counted(tmp_path: Path) -> None:
    results = read_results(write_reports(tmp_path / "reports", folds=3))
    assert results.test_patients == 18  # 3 * 6
    assert results.scored("unet", "lesion") == 18
    assert len(results.test_rows("unet")) == 18


@pytest.mark.parametrize(("false_positive", "averaged"), [(False, False), (True, True)])
def test_a_class_without_truth_counts_in_the_mean_only_where_it_was_predicted(
    tmp_path: Path, false_positive: bool, averaged: bool
) -> None:
    reports = write_reports(tmp_path / "reports", absent="lesion", false_positive=false_positive)
    results = read_results(reports)
    assert results.absent == ["lesion"]
    assert results.averages_absent("unetpp") is averaged
    assert results.false_positives("unetpp", "lesion") == int(false_positive)
