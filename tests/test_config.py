from pathlib import Path

import pytest

from src.config import load_params, public_parameters

ROOT = Path(__file__).parent.parent


def wrong(tmp_path: Path, old: str, new: str) -> str:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError) as error:  # noqa: PT011  (each test looks at the message)
        load_params(path)
    return str(error.value)


def test_the_parameters_of_the_repository_are_valid() -> None:
    assert load_params(ROOT / "params.yaml").data.classes == ("background", "organ", "lesion")


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("learning_rate: 2e-3", "learning_rate: 1e-3"), encoding="utf-8")
    assert load_params(path).train.learning_rate == 0.001


def test_a_misspelt_parameter_is_named_with_its_line_and_the_likely_name(tmp_path: Path) -> None:
    message = wrong(tmp_path, "  patience: 20", "  patiense: 20")
    assert "train.patiense: unknown parameter; did you mean patience?" in message
    assert "train.patience: missing" in message
    assert "line " in message


def test_a_misspelt_parameter_within_a_choice_is_named(tmp_path: Path) -> None:
    message = wrong(tmp_path, "level: 40", "levle: 40")
    assert "prepare.window.levle: unknown parameter; did you mean level?" in message


def test_a_value_out_of_range_is_shown(tmp_path: Path) -> None:
    message = wrong(tmp_path, "learning_rate: 2e-3", "learning_rate: -1")
    assert "train.learning_rate: got -1" in message


def test_a_number_written_as_text_is_refused(tmp_path: Path) -> None:
    message = wrong(tmp_path, "    depth: 4", "    depth: '4'")
    assert "train.model.depth: got '4'" in message


def test_every_wrong_line_is_told_at_once(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("batch_size: 8", "batch_size: 0").replace("epochs: 60", "epochs: none")
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="2 wrong lines") as error:
        load_params(path)
    assert "train.batch_size: got 0" in str(error.value)
    assert "train.epochs: got 'none'" in str(error.value)


def test_a_label_for_an_unknown_class_is_refused(tmp_path: Path) -> None:
    message = wrong(tmp_path, "2: lesion}", "2: tumour}")
    assert "names the class 'tumour', which is not in classes" in message


def test_a_size_that_the_depth_cannot_take_is_refused(tmp_path: Path) -> None:
    message = wrong(tmp_path, "size: [128, 128]", "size: [120, 128]")
    assert "prepare.size must be divisible by 16 (train.model.depth 4), got [120, 128]" in message


def test_an_unknown_architecture_lists_the_known_ones(tmp_path: Path) -> None:
    message = wrong(tmp_path, "architectures: [unet]", "architectures: [vnet]")
    assert "must be among ['unet'], got ['vnet']" in message


def test_a_missing_file_names_the_way_back(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"git checkout params.yaml"):
        load_params(tmp_path / "params.yaml")


def test_the_names_of_test_patients_do_not_become_public(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("test_patients: []", "test_patients: [Doe]"), encoding="utf-8")
    public = public_parameters(load_params(path), "unet")
    assert public["split"]["test_patients"] == 1
    assert "Doe" not in str(public)
