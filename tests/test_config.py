from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import pytest

from src import models
from src.config import ARCHITECTURES, LOSS_PARAMETERS, Params, load_params, public_parameters
from src.config.groups import MEAN_OF_CLASSES
from src.evaluation.overlap import check_class_names

ROOT = Path(__file__).parent.parent


def wrong(tmp_path: Path, *changes: str) -> str:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
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
    message = wrong(tmp_path, "  patience: ", "  patiense: ")
    assert "train.patiense: unknown parameter; did you mean patience?" in message
    assert "missing" not in message  # one mistake, one line
    assert "has 1 wrong line" in message
    assert "line " in message


def test_a_misspelt_parameter_within_a_choice_is_named(tmp_path: Path) -> None:
    message = wrong(tmp_path, "level: 40", "levle: 40")
    assert "prepare.window.levle: unknown parameter; did you mean level?" in message


def test_a_class_with_the_name_of_the_mean_is_refused_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="Rename the class"):  # what would come after a training
        check_class_names(["background", MEAN_OF_CLASSES], 2)
    message = wrong(
        tmp_path,
        *("[background, organ, lesion]", "[background, mean_foreground, lesion]"),
        *("1: organ", "1: mean_foreground"),
    )
    assert "data.classes: 'mean_foreground' names the mean over classes in every" in message
    assert "has 1 wrong line" in message


def test_a_value_out_of_range_is_shown(tmp_path: Path) -> None:
    message = wrong(tmp_path, "learning_rate: 2e-3", "learning_rate: -1")
    assert "train.learning_rate: got -1" in message


def test_a_single_look_with_dropout_is_refused_for_it_has_no_other_to_differ_from(
    tmp_path: Path,
) -> None:
    message = wrong(tmp_path, "dropout_runs: 10", "dropout_runs: 1")
    assert "evaluate.dropout_runs: must be 0 (none) or at least 2, got 1" in message


def test_a_tolerance_below_zero_is_refused(tmp_path: Path) -> None:
    message = wrong(tmp_path, "tolerance_mm: 2.0", "tolerance_mm: -1.0")
    assert "evaluate.tolerance_mm: got -1.0" in message


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:secret@host/db",
        "postgresql+psycopg://me:sec/ret@host:5432/db",
        "postgresql://me@host/db?password=secret",
        "postgres//me:secret@host/db",
    ],
)
def test_a_password_in_the_file_which_is_committed_is_refused_and_not_shown(
    tmp_path: Path, address: str
) -> None:
    message = wrong(tmp_path, "storage: null", f"storage: {address}")
    assert "has 1 wrong line" in message
    assert "tune.storage: must hold no password, as this file is committed" in message
    assert "give the address in OPTUNA_STORAGE" in message
    assert "secret" not in message
    assert "sec/ret" not in message


@pytest.mark.parametrize("address", ["postgresql://me@host:5432/db", "sqlite:///mlruns/studies.db"])
def test_an_address_without_a_password_may_stand_in_the_file(tmp_path: Path, address: str) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("storage: null", f"storage: {address}"), encoding="utf-8")
    assert load_params(path).tune.storage == address


def test_a_number_written_as_text_is_refused(tmp_path: Path) -> None:
    message = wrong(tmp_path, "    depth: 4", "    depth: '4'")
    assert "train.model.depth: got '4'" in message


def test_every_wrong_line_is_told_at_once(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("batch_size: 8", "batch_size: 0").replace("  epochs: ", "  epochs: none # ")
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="2 wrong lines") as error:
        load_params(path)
    assert "train.batch_size: got 0" in str(error.value)
    assert "train.epochs: got 'none'" in str(error.value)


def test_lines_that_do_not_fit_each_other_are_told_one_by_one(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()
    lines = {
        line.split(":")[0].strip(): number
        for number, line in enumerate(text, start=1)
        if line.split(":")[0].strip() in ("image_size", "stratify_class", "class_weights")
    }
    message = wrong(
        tmp_path, "stratify_class: lesion", "stratify_class: tumour", "[128, 128]", "[120, 128]",
        "class_weights: null", "class_weights: [1, 1]",
    )  # fmt: skip
    assert "has 3 wrong lines" in message
    for parameter in ("split.stratify_class", "prepare.image_size", "train.loss.class_weights"):
        assert f"  line {lines[parameter.split('.')[-1]]}: {parameter}: must " in message


def test_two_mistakes_of_one_group_are_both_told(tmp_path: Path) -> None:
    message = wrong(
        tmp_path, "validation: 0.2", "validation: 0.9", "test: 0.2", "test: 0.3",
        "fold: [0]", "fold: [3]",
    )  # fmt: skip
    assert "split.validation: 0.9 and test (0.3) together must leave patients" in message
    assert "split.fold: must be [0] where folds is 0, got [3]" in message


def test_a_label_for_an_unknown_class_is_refused(tmp_path: Path) -> None:
    message = wrong(tmp_path, "2: lesion}", "2: tumour}")
    assert "names the class 'tumour', which is not in classes" in message


@pytest.mark.parametrize(
    ("labels", "keys"),
    [
        ('0: background, 255: organ, "#FFFFFF": lesion', "255 and '#FFFFFF'"),
        ('"#000000": background, 0: organ, 2: lesion', "'#000000' and 0"),
        ('0: background, "#ff0000": organ, "#FF0000": lesion', "'#ff0000' and '#FF0000'"),
    ],
)
def test_two_labels_for_one_value_are_refused(tmp_path: Path, labels: str, keys: str) -> None:
    message = wrong(tmp_path, "{0: background, 1: organ, 2: lesion}", f"{{{labels}}}")
    assert f"data.labels: keys {keys} are the same in a mask: keep one" in message


@pytest.mark.parametrize("key", ["red", "#ff00", "#ff00zz"])
def test_a_label_that_is_neither_a_number_nor_a_colour_is_refused(tmp_path: Path, key: str) -> None:
    message = wrong(tmp_path, "2: lesion}", f'2: lesion, "{key}": lesion}}')
    assert f"data.labels: key '{key}' is neither a whole number nor '#rrggbb'" in message


def test_blue_and_the_grey_value_255_are_two_labels(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("{0: background, 1: organ", '{255: background, "#0000ff": organ'))
    assert load_params(path).data.labels == {255: "background", "#0000ff": "organ", 2: "lesion"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("low: 3e-2, high: 1e-2", ".low: must be below high (0.01), got 0.03"),
        ("low: 0, high: 1e-2", ".low: must be above 0 where scale is log, got 0"),
        ("low: 3e-4", ": needs low, high and scale, or choices; got ['low', 'scale']"),
        ("choices: [0.1, 0.2]", ": choices stands alone, got scale as well"),
    ],
)
def test_a_range_that_cannot_be_searched_is_named(
    tmp_path: Path, change: str, message: str
) -> None:
    found = wrong(tmp_path, "low: 3e-4, high: 1e-2", change)
    assert f"tune.space.train.learning_rate{message}" in found
    assert "line " in found


def test_a_misspelt_parameter_of_the_space_lists_the_near_ones(tmp_path: Path) -> None:
    message = wrong(tmp_path, "    train.model.dropout: {", "    train.model.dropuot: {")
    assert "tune.space.train.model.dropuot: train.model.dropuot is no parameter" in message
    assert "did you mean train.model.dropout" in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("prepare.image_size", "the trials of a study share the prepared arrays"),
        ("evaluate.seed", "are measured alike"),
        ("train.seed", "the luckiest seed is no better model"),
        ("train.validation_cases", "it would change what the trials are measured on"),
        ("architectures", "name the networks under architecture"),
    ],
)
def test_what_a_study_must_not_change_is_refused(tmp_path: Path, name: str, message: str) -> None:
    found = wrong(tmp_path, "    train.model.dropout: {", f"    {name}: {{")
    assert f"tune.space.{name}: {name} cannot be searched: " in found
    assert message in found


def test_an_unknown_architecture_of_the_space_is_refused(tmp_path: Path) -> None:
    message = wrong(tmp_path, "architecture: {choices: [unet,", "architecture: {choices: [vnet,")
    assert "tune.space.architecture: must be among ['unet', 'unetpp', 'attention_unet']" in message
    assert "got ['vnet']" in message


def test_the_parameters_of_a_search_are_not_those_of_a_model() -> None:
    params = load_params(ROOT / "params.yaml")
    assert "tune" not in public_parameters(params, "unet")


def test_a_size_that_the_depth_cannot_take_is_refused(tmp_path: Path) -> None:
    message = wrong(tmp_path, "image_size: [128, 128]", "image_size: [120, 128]")
    assert (
        "prepare.image_size: must be divisible by 16 (train.model.depth 4), got [120, 128]"
        in message
    )


def test_an_unknown_architecture_lists_the_known_ones(tmp_path: Path) -> None:
    message = wrong(tmp_path, "architectures: [unet, ", "architectures: [vnet, ")
    assert "must be among ['unet', 'unetpp', 'attention_unet'], got ['vnet', " in message


def test_a_word_in_place_of_a_list_is_told_so(tmp_path: Path) -> None:
    message = wrong(
        tmp_path, "architectures: [unet, unetpp, attention_unet]", "architectures: unet"
    )
    assert "architectures: got 'unet', a list was expected, such as [unet]" in message


def test_an_unknown_architecture_is_told_beside_other_wrong_lines(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("learning_rate: 2e-3", "learning_rate: fast", 1)
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("architectures: [unet, ", "architectures: [vnet, "), "utf-8")
    with pytest.raises(ValueError, match="has 2 wrong lines"):
        load_params(path)


def test_an_unknown_loss_lists_the_known_ones(tmp_path: Path) -> None:
    message = wrong(tmp_path, "name: dice_cross_entropy", "name: lovasz")
    assert "train.loss.name: must be one of ['categorical_cross_entropy', 'dice'" in message
    assert "got 'lovasz'" in message


def test_a_parameter_that_the_loss_does_not_take_is_refused(tmp_path: Path) -> None:
    message = wrong(tmp_path, "parameters: {}", "parameters: {gamma: 2.0}")
    assert "dice_cross_entropy takes ['batch'], got 'gamma'" in message


@pytest.mark.parametrize("weights", ["[1, 2]", "[1, 2, 3, 4]"])
def test_class_weights_of_the_wrong_length_are_refused(tmp_path: Path, weights: str) -> None:
    message = wrong(tmp_path, "class_weights: null", f"class_weights: {weights}")
    assert "train.loss.class_weights: must hold one number for each of the 3 classes" in message


def test_weights_of_deep_supervision_are_as_many_as_there_are_outputs(tmp_path: Path) -> None:
    message = wrong(tmp_path, "deep_supervision: false", "deep_supervision: [1.0, 0.5]")
    assert "true, false or as many weights as depth (4), the first above 0" in message
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    four = text.replace("deep_supervision: false", "deep_supervision: [1.0, 0.5, 0.2, 0]")
    path.write_text(four, encoding="utf-8")
    assert load_params(path).train.model.deep_supervision == (1.0, 0.5, 0.2, 0.0)


def test_a_patch_larger_than_the_prepared_slice_is_refused(tmp_path: Path) -> None:
    message = wrong(tmp_path, "patch_size: null", "patch_size: [256, 256]")
    assert (
        "train.sampling.patch_size: must fit into prepare.image_size [128, 128], got [256, 256]"
        in message
    )


def test_a_patch_that_the_depth_cannot_take_is_refused(tmp_path: Path) -> None:
    message = wrong(tmp_path, "patch_size: null", "patch_size: [72, 72]")
    assert (
        "train.sampling.patch_size: must be divisible by 16 (model.depth 4), got [72, 72]"
        in message
    )


def test_the_names_known_here_are_those_that_models_build() -> None:
    assert list(ARCHITECTURES) == list(models.ARCHITECTURES)
    signatures = {
        name: list(signature(loss).parameters)[2:] for name, loss in models.LOSSES.items()
    }
    for parameters in signatures.values():
        parameters.remove("class_weights")
    assert {name: list(known) for name, known in LOSS_PARAMETERS.items()} == signatures


def test_a_missing_file_names_the_way_back(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"git checkout params.yaml"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("folds", "fold", "message"),
    [
        (0, "[1]", "split.fold: must be [0] where folds is 0, got [1]"),
        (3, "[0, 3]", "split.fold: must be below folds (3), got [0, 3]"),
        (3, "[1, 1]", "split.fold: must name one or more folds, each once, got [1, 1]"),
        (3, "[]", "split.fold: must name one or more folds, each once, got []"),
        (3, "[-1]", "split.fold.0: got -1"),
        (3, "0", "split.fold: got 0"),
    ],
)
def test_folds_that_do_not_exist_are_refused(
    tmp_path: Path, folds: int, fold: str, message: str
) -> None:
    assert message in wrong(tmp_path, "folds: 0 ", f"folds: {folds} ", "fold: [0]", f"fold: {fold}")


def test_the_folds_that_are_run_are_a_list(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(
        text.replace("folds: 0 ", "folds: 3 ").replace("fold: [0]", "fold: [2, 0]"),
        encoding="utf-8",
    )
    params = load_params(path)
    assert params.split.fold == (2, 0)
    assert public_parameters(params, "unet", 2)["split"]["fold"] == 2
    assert public_parameters(params, "unet")["split"]["fold"] == (2, 0)


def test_the_names_of_test_patients_do_not_become_public(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("test_patients: []", "test_patients: [Doe]"), encoding="utf-8")
    public = public_parameters(load_params(path), "unet")
    assert public["split"]["test_patients"] == 1
    assert "Doe" not in str(public)


def test_no_parameter_has_a_name_that_dvc_leaves_out_of_its_run_cache() -> None:
    # DVC drops the keys `size` and `nfiles` at any depth before it compares a stage with earlier
    # runs: a change of such a parameter would bring back the outputs of another value.
    names = {name for name, _ in leaves(Params)}
    assert {"image_size", "patch_size", "learning_rate"} <= names
    assert not names & {"size", "nfiles"}


def leaves(group: Any) -> Iterator[tuple[str, Any]]:
    for name, field in group.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        inner = [kind for kind in kinds if hasattr(kind, "model_fields")]
        yield name, field
        for kind in inner:
            yield from leaves(kind)


@pytest.mark.parametrize(
    ("written", "read"),
    [("null", None), ("median", "median"), ("[1.5, 2]", (1.5, 2.0))],
)
def test_the_common_spacing_is_a_pair_the_median_or_nothing(
    tmp_path: Path, written: str, read: Any
) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for old, new in (("size_mode: resize", "size_mode: native"),
                     ("  spacing_mm: null", f"  spacing_mm: {written}")):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    assert load_params(tmp_path / "params.yaml").prepare.spacing_mm == read


@pytest.mark.parametrize("written", ["[1.5, 0]", "[1.5]", "mean", "2.0"])
def test_another_common_spacing_is_refused(tmp_path: Path, written: str) -> None:
    message = wrong(tmp_path, "  spacing_mm: null", f"  spacing_mm: {written}")
    assert "prepare.spacing_mm" in message


def test_a_common_spacing_is_refused_where_slices_are_resized(tmp_path: Path) -> None:
    message = wrong(tmp_path, "  spacing_mm: null", "  spacing_mm: median")
    assert "prepare.spacing_mm: must be null where prepare.size_mode is resize" in message
    assert "got median. Set prepare.size_mode: native or pad" in message
