import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import cv2
import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from src import predict, terminal, tracking
from src.data.preprocessing import Preprocessing
from src.postprocessing import Postprocessing
from src.stages.audit import DEMO_HASH
from tests.data.conftest import organ, write_picture, write_series, write_volume
from tests.tiny_models import NATIVE, expected_mask, save_threshold_model, save_unet

ROOT = Path(__file__).parent.parent
CONSTANT = Preprocessing(-100.0, 100.0, 0.5, 1.0, "native", (16, 16), 4)
# Softmax of these logits: 1/4, 1/2, 1/4; every pixel is organ.
LOGITS = (0.0, log(2), 0.0)
TAGS = {
    "data_hash": "d" * 32, "split_hash": "5" * 32, "truth_hash": "f" * 6, "git_commit": "c" * 40,
    "git_dirty": "false",
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_threshold_model(folder / "threshold")
    save_unet(folder / "constant", CONSTANT, bias=LOGITS)
    save_unet(folder / "untrained", CONSTANT)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with params.yaml."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], models: Path):
    """command(ARGUMENTS…, model=NAME or None) -> exit code, what was printed, and what warned."""

    def run(*arguments: object, model: str | None = "threshold") -> tuple[int, str, str]:
        words = [*map(str, arguments)]
        if model is not None:
            words += ["--model", model if ":" in model else str(models / model)]
        monkeypatch.setattr(sys, "argv", ["predict", *words])
        with pytest.raises(SystemExit) as done:
            terminal.run(predict.main)
        printed = capsys.readouterr()
        return int(done.value.code or 0), printed.out, printed.err

    return run


def hu(seed: int, depth: int = 1, size: tuple[int, int] = (12, 20)) -> np.ndarray:
    """(D, H, W) int16 in HU, clear of the thresholds of the model."""
    values = np.random.default_rng(seed).choice([-80, 20, 80], (depth, *size))
    return values.astype(np.int16)


def write_ct(path: Path, seed: int) -> Path:
    """A picture of `hu`; params.yaml says HU = value - 1024, 2.5 x 2.5 x 5 mm."""
    return write_picture(path, (hu(seed)[0] + 1024).astype(np.uint16))


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def png(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None, path
    return picture


def nifti(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


# --- Masks ----------------------------------------------------------------------------------------


def test_a_folder_of_every_kind_gets_the_same_tree_of_natural_formats(here: Path, command) -> None:
    write_ct(here / "in" / "a" / "b" / "1.png", 1)
    write_volume(here / "in" / "a" / "v.nrrd", hu(2, depth=3))
    write_series(here / "in" / "c" / "series", hu(3, depth=2))
    write_picture(here / "in" / "a" / "masks" / "1.png", organ()[0])
    code, printed, warned = command("in", "--out", "out")
    assert code == 0, warned
    out = here / "out"
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert files == [
        "a/b/1_mask.png", "a/v_mask.nii.gz", "c/series_mask.dcm", "predictions.csv",
    ]  # fmt: skip
    np.testing.assert_array_equal(png(out / "a/b/1_mask.png"), expected_mask(hu(1)[0]))
    np.testing.assert_array_equal(nifti(out / "a/v_mask.nii.gz"), expected_mask(hu(2, depth=3)))
    assert [row["path"] for row in rows(out)] == ["a/b/1.png", "a/v.nrrd", "c/series"]
    assert [row["mask"] for row in rows(out)] == files[:3]
    assert "1 mask among the images left out, by a word of data.mask_words" in printed
    assert "in the name: a/masks/1.png" in printed
    assert "Look at out/predictions.csv" in printed


def test_a_picture_keeps_its_size_where_the_network_sees_another(here: Path, command) -> None:
    write_ct(here / "1.png", 1)  # 12 x 20 is padded to 12 x 20, 13 x 21 to 16 x 24
    write_picture(here / "2.png", np.full((13, 21), 1000, np.uint16))
    for name in ("1.png", "2.png"):
        assert command(name, "--out", f"out {name}", model="constant")[0] == 0
    assert png(here / "out 1.png" / "1_mask.png").shape == (12, 20)
    assert png(here / "out 2.png" / "2_mask.png").shape == (13, 21)
    assert (png(here / "out 2.png" / "2_mask.png") == 1).all()


def test_a_model_of_one_spacing_takes_that_of_pictures_from_params_or_the_option(
    here: Path, command, models: Path
) -> None:
    save_threshold_model(models / "coarse", replace(NATIVE, spacing_mm=(10.0, 2.5)))
    rows_of_two = np.where(np.arange(12) % 4 < 2, 974, 1104)[:, None].repeat(20, axis=1)
    write_picture(here / "1.png", rows_of_two.astype(np.uint16))  # -50 and 80 HU
    # 2.5 mm as params.yaml says: four rows become one of 15 HU, which is organ.
    assert command("1.png", "--out", "out", model="coarse")[0] == 0
    assert (png(here / "out" / "1_mask.png") == 1).all()
    # 10 mm: the rows stay as they are.
    code, _, warned = command(
        "1.png", "--out", "as it is", "--spacing-mm", "10", "2.5", model="coarse"
    )
    assert code == 0, warned
    np.testing.assert_array_equal(
        png(here / "as it is" / "1_mask.png"), expected_mask(rows_of_two - 1024)
    )


def test_a_dicom_series_gets_a_segmentation_that_names_it(here: Path, command) -> None:
    sets = write_series(here / "ct", hu(3, depth=3))
    assert command("ct", "--out", "out")[0] == 0
    assert rows(here / "out")[0]["path"] == "ct"
    found = hd.seg.segread(here / "out" / "ct_mask.dcm")
    assert found.ReferencedSeriesSequence[0].SeriesInstanceUID == sets[0].SeriesInstanceUID
    labels = found.get_pixels_by_source_instance(
        [data.SOPInstanceUID for data in sets], combine_segments=True,
        assert_missing_frames_are_empty=True, ignore_spatial_locations=True,
    )  # fmt: skip
    np.testing.assert_array_equal(labels, expected_mask(hu(3, depth=3)))


def test_slices_whose_file_names_are_out_of_order_get_the_masks_of_their_own(
    here: Path, command
) -> None:
    sets = write_series(here / "ct", hu(3, depth=3), names=["c.dcm", "a.dcm", "b.dcm"])
    assert command("ct", "--out", "out")[0] == 0
    found = hd.seg.segread(here / "out" / "ct_mask.dcm")
    for place, data in enumerate(sets):
        labels = found.get_pixels_by_source_instance(
            [data.SOPInstanceUID], combine_segments=True, ignore_spatial_locations=True
        )
        np.testing.assert_array_equal(labels[0], expected_mask(hu(3, depth=3)[place]))


def test_another_format_is_written_on_demand(here: Path, command) -> None:
    write_series(here / "in" / "ct", hu(3, depth=2))
    write_ct(here / "in" / "1.png", 1)
    assert command("in", "--out", "nifti", "--format", "nifti")[0] == 0
    np.testing.assert_array_equal(nifti(here / "nifti/ct_mask.nii.gz"), expected_mask(hu(3, 2)))
    placed = sitk.ReadImage(str(here / "nifti/ct_mask.nii.gz"))
    assert placed.GetSpacing() == (0.75, 0.5, 2.5)
    assert placed.GetOrigin() == (1.0, 2.0, 0.0)
    assert sitk.ReadImage(str(here / "nifti/1_mask.nii.gz")).GetSpacing() == (2.5, 2.5, 5.0)
    assert command("in", "--out", "png", "--format", "png")[0] == 0
    np.testing.assert_array_equal(png(here / "png/ct_mask/001.png"), expected_mask(hu(3, 2)[1]))


def test_maps_and_overlays_are_written_on_demand(here: Path, command) -> None:
    write_ct(here / "in" / "1.png", 1)
    write_volume(here / "in" / "v.mha", hu(2, depth=2))
    flags = ("--overlay", "--uncertainty", "--probabilities")
    assert command("in", "--out", "out", *flags, model="constant")[0] == 0
    out = here / "out"
    entropy = 1.5 * log(2) / log(3)  # of 1/4, 1/2, 1/4
    assert nifti(out / "v_uncertainty.nii.gz") == pytest.approx(entropy, abs=1e-5)
    assert png(out / "1_uncertainty.png") == pytest.approx(round(entropy * 65535), abs=1)
    for name, share in (("background", 0.25), ("organ", 0.5), ("lesion", 0.25)):
        assert nifti(out / f"v_probability_{name}.nii.gz") == pytest.approx(share, abs=1e-6)
        assert png(out / f"1_probability_{name}.png") == pytest.approx(share * 65535, abs=1)
    assert png(out / "1_overlay.png").shape[2] == 3
    assert sorted(path.name for path in (out / "v_overlay").iterdir()) == ["000.png", "001.png"]


# --- What was scored ------------------------------------------------------------------------------


def write_patients(data: Path) -> None:
    """images/FOLDER/a_1.png to b_10.png, ten in each of two folders, and their masks."""
    for number, folder in enumerate(("Doe", "Roe")):
        for name in (f"{letter}_{place}.png" for letter in "ab" for place in (1, 2, 3, 9, 10)):
            write_ct(data / "images" / folder / name, 100 * number + sum(name.encode()))
            write_picture(data / "masks" / folder / name, organ(size=20)[0, :12])


def scored_masks(root: Path, folder: Path) -> dict[str, np.ndarray]:
    """Path below data/ of each image -> its mask as `evaluate` scores it."""
    from src.config import load_params
    from src.data.cases import build_cases
    from src.data.pictures import PictureScale
    from src.inference import load_segmenter
    from src.stages.evaluate import evaluate

    params = load_params(root / "params.yaml")
    cases, _, findings = build_cases(
        root / "data", classes=params.data.classes, labels=params.data.labels,
        image_words=params.data.image_words, mask_words=params.data.mask_words,
        patient=params.data.patient, source=None, workers=1,
        pictures=PictureScale(**params.data.pictures.model_dump()),
    )  # fmt: skip
    assert findings == []
    kept = root / "scored"
    kept.mkdir()
    evaluate(root / "data", cases, load_segmenter(folder), params, predictions=kept)
    masks: dict[str, np.ndarray] = {}
    for path in kept.iterdir():
        with np.load(path) as slices:
            code = path.name.rpartition("_")[0]
            masks |= {f"{code}/{number}": slices[number] for number in slices.files}
    return {row.image_path: masks[row.case_pseudonym] for row in cases.itertuples()}


@pytest.mark.parametrize("rule", [None, "(?P<patient>[ab])_[0-9]+[.]png$"])
@pytest.mark.parametrize(
    "used",
    [
        {"postprocessing": Postprocessing((1, 2), (1,)), "temperature": 1.5},
        {"context": 1},
        {"context": 1, "postprocessing": Postprocessing((2,), ())},
    ],
)
def test_a_folder_of_slices_gets_the_masks_that_were_scored(
    here: Path, command, used: dict[str, Any], rule: str | None
) -> None:
    write_patients(here / "data")
    if rule:
        text = (here / "params.yaml").read_text(encoding="utf-8")
        text = text.replace("patient: null", f"patient: '{rule}'")
        (here / "params.yaml").write_text(text, encoding="utf-8")
    folder = save_threshold_model(here / "models" / "whole", **used)
    scored = scored_masks(here, folder)
    code, _, warned = command("data/images", "--out", "out", model=str(folder))
    assert code == 0, warned
    found = {f"images/{row['path']}": png(here / "out" / row["mask"]) for row in rows(here / "out")}
    assert len(found) == 20
    for path, mask in scored.items():
        np.testing.assert_array_equal(found[path], mask, err_msg=path)
    # A slice by itself gets another mask, so that it matters what is one scan.
    command("data/images/Doe/a_2.png", "--out", "alone", model=str(folder))
    assert (png(here / "alone" / "a_2_mask.png") != scored["images/Doe/a_2.png"]).any()


@pytest.fixture
def whole(models: Path) -> str:
    """A model that keeps the largest component of a scan."""
    folder = models / "whole"
    if not folder.exists():
        steps = Postprocessing(largest_component=(1, 2))
        save_threshold_model(folder, postprocessing=steps, spacing_mm=(2.5, 2.5))
    return folder.name


def test_it_is_said_which_files_are_one_scan_and_that_a_single_slice_is_one_by_itself(
    here: Path, command, whole: str
) -> None:
    for path in ("a/1.png", "a/2.png", "b/1.png", "b/2.png", "c/1.png"):
        write_ct(here / "in" / path, 1)
    _, printed, warned = command("in", "--out", "out", model=whole)
    assert "4 files of one slice are 2 scans: those of one patient in one folder are one" in printed
    note = "a single slice, where the model looks at all slices of a scan"
    assert [row["unlike_training"] for row in rows(here / "out")] == ["", "", "", "", note]
    assert f"1 image unlike the training data: c/1.png ({note})" in warned
    # A model that looks at slices alone has nothing to say of it.
    _, printed, warned = command("in", "--out", "slices")
    assert "of one slice" not in printed + warned
    assert all("slice" not in row["unlike_training"] for row in rows(here / "slices"))


def test_where_the_rule_for_patients_does_not_fit_a_folder_is_one_and_that_is_said(
    here: Path, command, whole: str
) -> None:
    text = (here / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("patient: null", "patient: '^images/(?P<patient>[^_]+)_'")
    (here / "params.yaml").write_text(text, encoding="utf-8")
    for name in ("P1_1", "P1_2", "P2_1", "P2_2"):
        write_ct(here / "new" / f"{name}.png", 1)
        write_ct(here / "data" / "images" / f"{name}.png", 1)
    _, printed, warned = command("new", "--out", "a", model=whole)
    assert "4 files of one slice are 1 scan:" in printed
    told = "data.patient of params.yaml (^images/(?P<patient>[^_]+)_) does not say whose they are"
    assert f"P1_1.png, P1_2.png, P2_1.png and 1 more: {told}" in warned
    _, printed, warned = command("data/images", "--out", "b", model=whole)
    assert "4 files of one slice are 2 scans:" in printed
    assert "whose they are" not in warned


def test_a_scan_that_lacks_a_slice_is_doubtful(here: Path, command, whole: str) -> None:
    for place in (1, 2, 3):
        write_ct(here / "in" / f"{place}.png", place)
    (here / "in" / "2.png").write_bytes(b"")
    code, _, warned = command("in", "--out", "out", model=whole)
    assert code == 1
    assert "in/2.png: found an empty file" in warned
    one, two, three = rows(here / "out")
    assert two["mask"] == ""
    for row in (one, three):
        assert row["unlike_training"] == "the scan lacks 2.png, which could not be read"
        assert (here / "out" / row["mask"]).is_file()


def test_rows_stay_in_the_order_of_the_paths_where_a_scan_lies_around_another(
    here: Path, command, whole: str
) -> None:
    paths = ["a.png", "m/1.png", "m/2.png", "z.png"]
    for path in paths:
        write_ct(here / "in" / path, 1)
    assert command("in", "--out", "out", model=whole)[0] == 0
    assert [row["path"] for row in rows(here / "out")] == paths


# --- The table ------------------------------------------------------------------------------------


def test_areas_volumes_and_uncertainty_are_those_of_the_mask(here: Path, command) -> None:
    write_volume(here / "v.mha", hu(2, depth=3), spacing=(0.5, 0.75, 4.0))
    assert command("v.mha", "--out", "out", model="constant")[0] == 0
    (row,) = rows(here / "out")
    # All 3 x 12 x 20 = 720 pixels are organ, 0.5 mm x 0.75 mm each: 270 mm2; times 4 mm: 1.08 ml.
    assert (row["slices"], row["height"], row["width"]) == ("3", "12", "20")
    assert (row["spacing_y_mm"], row["spacing_x_mm"], row["thickness_mm"]) == ("0.75", "0.5", "4.0")
    assert float(row["area_mm2_organ"]) == pytest.approx(270)
    assert float(row["volume_ml_organ"]) == pytest.approx(1.08)
    assert float(row["area_mm2_lesion"]) == float(row["volume_ml_lesion"]) == 0
    assert float(row["uncertainty"]) == pytest.approx(1.5 * log(2) / log(3), abs=1e-5)
    assert row["unlike_training"] == row["error"] == ""
    assert float(row["seconds"]) > 0
    assert row["model"].startswith("unet ")


def test_what_is_unlike_the_training_data_stands_in_the_table(here: Path, command) -> None:
    write_volume(here / "in" / "far.mha", hu(2), spacing=(2.0, 0.75, 4.0))
    write_volume(here / "in" / "near.mha", hu(2), spacing=(0.5, 0.75, 4.0))
    code, _, warned = command("in", "--out", "out")
    assert code == 0
    far, near = rows(here / "out")
    assert far["unlike_training"] == "pixels of 0.75 x 2 mm, 0.75 x 0.5 mm in training"
    assert near["unlike_training"] == ""
    assert "1 image unlike the training data: far.mha (pixels of 0.75 x 2 mm, 0.75 x" in warned
    write_volume(here / "in" / "further.mha", hu(2), spacing=(2.0, 0.75, 4.0))
    _, _, warned = command("in", "--out", "out", "--overwrite")
    assert "2 images unlike the training data, such as far.mha (pixels of 0.75 x 2 mm" in warned
    assert "see the column unlike_training of out/predictions.csv" in warned


def test_a_model_of_the_demo_says_that_it_knows_no_real_ct(
    here: Path, command, models: Path
) -> None:
    write_ct(here / "1.png", 1)
    _, _, warned = command("1.png", "--out", "out")
    assert "the demo" not in warned
    shutil.copytree(models / "threshold", models / "of_demo")
    for number, (data_hash, told) in enumerate([(TAGS["data_hash"], 0), (DEMO_HASH, 1)]):
        run = json.dumps({"data_hash": data_hash})
        (models / "of_demo" / "run.json").write_text(run, encoding="utf-8")
        _, _, warned = command("1.png", "--out", f"out{number}", model="of_demo")
        assert warned.count("this model was trained on the drawn CT of the demo") == told


def test_a_mask_named_by_itself_is_segmented_with_a_warning(here: Path, command) -> None:
    write_ct(here / "P1_mask.png", 1)
    code, _, warned = command("P1_mask.png", "--out", "out")
    assert code == 0
    assert "P1_mask.png: by a word of data.mask_words (params.yaml) in its name this is a" in warned


def test_several_scans_are_segmented_together_and_never_into_one_of_their_folders(
    here: Path, command
) -> None:
    for folder in ("a", "b"):
        write_ct(here / folder / "1.png", 1)
    assert command("a/1.png", "b", "--out", "out")[0] == 0
    assert [row["mask"] for row in rows(here / "out")] == ["a/1_mask.png", "b/1_mask.png"]
    code, _, warned = command("a", "b", "--out", "b/out")
    assert code == 1
    assert "masks must not be written among the images of b" in warned
    truth = write_picture(here / "a" / "1_mask.png", organ()[0]).read_bytes()
    for inputs, out in ((["a/1.png"], "a"), (["a/1.png", "b/1.png"], ".")):
        code, _, warned = command(*inputs, "--out", out, "--overwrite")
        assert code == 1
        assert "masks would lie beside their images" in warned
    assert (here / "a" / "1_mask.png").read_bytes() == truth


def test_uneven_slices_are_doubtful_for_their_volume_is(here: Path, command) -> None:
    write_series(here / "ct", hu(3, depth=4), places=[0.0, 2.5, 7.5, 10.0])
    assert command("ct", "--out", "out")[0] == 0
    (row,) = rows(here / "out")
    assert "distances of neighbouring slices from 2.5 to 5 mm" in row["unlike_training"]


def test_pictures_are_read_as_params_yaml_says_and_the_options_come_first(
    here: Path, command
) -> None:
    write_ct(here / "1.png", 1)
    code, printed, _ = command("1.png", "--out", "a")
    assert "HU = 1 * value -1024, pixels of 2.5 x 2.5 mm, slices of 5 mm" in printed
    assert rows(here / "a")[0]["spacing_y_mm"] == "2.5"
    options = ("--intercept", "-1104", "--spacing-mm", "0.75", "0.5", "--thickness-mm", "2")
    code, printed, _ = command("1.png", "--out", "b", *options)
    assert code == 0
    assert "HU = 1 * value -1104, pixels of 0.75 x 0.5 mm, slices of 2 mm" in printed
    np.testing.assert_array_equal(png(here / "b" / "1_mask.png"), expected_mask(hu(1)[0] - 80))
    # 80 HU becomes 0 HU and the rest less: nothing is foreground.
    assert float(rows(here / "b")[0]["area_mm2_organ"]) == 0
    assert rows(here / "b")[0]["uncertainty"] == ""


# --- The model ------------------------------------------------------------------------------------


def test_preprocessing_comes_with_the_model_not_from_params_yaml(here: Path, command) -> None:
    write_ct(here / "1.png", 1)
    assert command("1.png", "--out", "a", "--probabilities", model="untrained")[0] == 0
    text = (here / "params.yaml").read_text(encoding="utf-8")
    changed = text.replace("level: 40, width: 400", "level: 900, width: 10")
    changed = changed.replace("normalise: zscore", "normalise: unit")
    changed = changed.replace("image_size: [128, 128]", "image_size: [64, 64]")
    assert changed.count("\n") == text.count("\n")
    assert len({text, changed}) == 2
    (here / "params.yaml").write_text(changed, encoding="utf-8")
    assert command("1.png", "--out", "b", "--probabilities", model="untrained")[0] == 0
    for name in ("1_mask", "1_probability_organ"):
        np.testing.assert_array_equal(png(here / f"a/{name}.png"), png(here / f"b/{name}.png"))


def test_the_folds_of_an_architecture_segment_as_one(here: Path, command, models: Path) -> None:
    write_ct(here / "1.png", 1)
    for fold, bias in enumerate([LOGITS, (0.0, 0.0, log(8))]):
        save_unet(here / "unet" / f"fold{fold}", CONSTANT, bias=bias)
    flags = ("--overlay", "--uncertainty", "--probabilities")
    code, printed, _ = command("1.png", "--out", "out", *flags, model=str(here / "unet"))
    assert code == 0
    assert "model: unet, ensemble of 2 " in printed
    out = here / "out"
    # Means of 1/4, 1/2, 1/4 and of 1/10, 1/10, 8/10.
    for name, share in (("background", 0.175), ("organ", 0.3), ("lesion", 0.525)):
        assert png(out / f"1_probability_{name}.png") == pytest.approx(share * 65535, abs=1)
    assert (png(out / "1_mask.png") == 2).all()
    assert rows(out)[0]["model"].startswith("unet, ensemble of 2 ")


def test_what_runs_the_network_is_said_and_can_be_chosen(
    here: Path, command, models: Path, tmp_path: Path
) -> None:
    from src.engine_export import export
    from src.inference import load_segmenter

    folder = shutil.copytree(models / "threshold", tmp_path / "exported")
    export(load_segmenter(folder, "keras").model, folder, "float32")
    write_ct(here / "1.png", 1)
    for engine, said in (("openvino", "engine: OpenVINO 20"), ("keras", "engine: Keras: as asked")):
        code, printed, _ = command("1.png", "--out", engine, "--engine", engine, model=str(folder))
        assert code == 0
        assert said in printed
        np.testing.assert_array_equal(png(here / engine / "1_mask.png"), expected_mask(hu(1)[0]))
    _, printed, _ = command("1.png", "--out", "without", "--engine", "openvino")
    assert "engine: Keras: threshold has no engine/ for OpenVINO" in printed


def test_the_champion_of_the_registry_is_used(here: Path, command, models: Path) -> None:
    store = tracking.open_store(here)
    with tracking.start_run(store, "unet, 3f9c1e", parameters={"seed": 7}, tags=TAGS) as run:
        address = tracking.log_model(run, models / "threshold")
    tracking.register_champion(
        store, run.run_id, address, name="liver", description="# Card", reason="the only one"
    )
    write_ct(here / "1.png", 1)
    code, printed, _ = command("1.png", "--out", "out", model="models:/liver@champion")
    assert code == 0
    assert "from models:/liver@champion" in printed
    np.testing.assert_array_equal(png(here / "out" / "1_mask.png"), expected_mask(hu(1)[0]))
    text = (here / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("registered_model: ct-segmentation", "registered_model: liver")
    (here / "params.yaml").write_text(text, encoding="utf-8")
    code, printed, _ = command("1.png", "--out", "again", model=None)
    assert code == 0
    assert "from models:/liver@champion" in printed
    code, _, warned = command("1.png", "--out", "other", model="models:/lung@champion")
    assert code == 1
    assert "no champion of 'lung'" in warned
    assert "--model models/unet" in warned


def test_without_a_store_none_is_made_and_the_remedy_is_said(here: Path, command) -> None:
    write_ct(here / "1.png", 1)
    code, _, warned = command("1.png", "--out", "out", model=None)
    assert code == 1
    assert "no model is registered. Run `dvc repro`" in " ".join(warned.split())
    assert not (here / "mlruns").exists()
    assert not (here / "out").exists()


def test_where_the_store_cannot_be_reached_a_folder_is_named_which_needs_none(
    here: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:1")
    write_ct(here / "1.png", 1)
    code, _, warned = command("1.png", "--out", "out", model=None)
    assert code == 1
    assert warned.startswith("error: MLFLOW_TRACKING_URI=http://me:***@127.0.0.1:1 cannot be ")
    assert warned.endswith("A model folder needs no store: --model models/unet.\n")


def test_an_address_of_another_form_and_a_folder_without_a_model_are_errors(
    here: Path, command
) -> None:
    write_ct(here / "1.png", 1)
    _, _, warned = command("1.png", "--out", "out", model="models:/liver/3")
    assert "models:/liver/3: expected models:/NAME@champion or a model folder" in warned
    code, _, warned = command("1.png", "--out", "out", model="nothing")
    assert code == 1
    assert "no model there" in warned


def test_what_is_written_into_a_repository_is_not_for_git(here: Path, command) -> None:
    subprocess.run(["git", "init", "-q"], cwd=here, check=True)
    write_ct(here / "in" / "1.png", 1)
    assert command("in", "--out", "out", "--overlay")[0] == 0
    listed = ["git", "status", "--porcelain", "--untracked-files=all"]
    said = subprocess.run(listed, cwd=here, check=True, capture_output=True, text=True).stdout
    assert "out/" not in said
    assert "in/1.png" in said
    assert command("in", "--out", "out", "--overlay", "--overwrite")[0] == 0


def test_masks_are_not_written_into_data(here: Path, command) -> None:
    write_ct(here / "in" / "1.png", 1)
    (here / "data").mkdir()
    code, _, warned = command("in", "--out", "data/masks")
    assert code == 1
    assert "--out data/masks: data/ holds what models are made of" in warned


# --- What goes wrong ------------------------------------------------------------------------------


def test_a_bad_scan_is_named_the_others_are_written_and_the_exit_code_is_one(
    here: Path, command
) -> None:
    for name in ("1", "2", "3"):
        write_ct(here / "in" / f"{name}.png", int(name))
    broken = here / "in" / "2.png"
    broken.write_bytes(broken.read_bytes()[:-30])
    holes = hu(4, depth=2).astype(np.float32)
    holes[1, 3, 3] = np.nan
    write_volume(here / "in" / "holes.nii.gz", holes)
    code, printed, warned = command("in", "--out", "out")
    assert code == 1
    lines = warned.splitlines()
    assert [line for line in lines if "2.png: found a PNG without its end marker" in line]
    assert [line for line in lines if "holes.nii.gz: found values that are not numbers" in line]
    assert "2 files could not be segmented" in lines[-1]
    assert "2 images segmented" in printed
    assert (here / "out" / "1_mask.png").is_file()
    assert (here / "out" / "3_mask.png").is_file()
    assert not list((here / "out").glob("2_*"))
    table = {row["path"]: row for row in rows(here / "out")}
    assert list(table) == ["1.png", "2.png", "3.png", "holes.nii.gz"]
    assert "the file is cut off" in table["2.png"]["error"]
    assert table["2.png"]["mask"] == table["2.png"]["area_mm2_organ"] == ""
    assert table["3.png"]["error"] == ""


def test_many_scans_keep_their_order_and_their_own_masks_and_messages(here: Path, command) -> None:
    numbers = range(10, 50)
    for number in numbers:
        write_ct(here / "in" / f"{number}.png", number)
    for number in (12, 30, 49):
        path = here / "in" / f"{number}.png"
        path.write_bytes(path.read_bytes()[:-30])
    code, _, warned = command("in", "--out", "out")
    assert code == 1
    table = rows(here / "out")
    assert [row["path"] for row in table] == [f"{number}.png" for number in numbers]
    assert [row["path"] for row in table if row["error"]] == ["12.png", "30.png", "49.png"]
    told = [line for line in warned.splitlines() if "without its end marker" in line]
    assert [line.split(": ")[1] for line in told] == [f"in/{n}.png" for n in (12, 30, 49)]
    for number in set(numbers) - {12, 30, 49}:
        mask = png(here / "out" / f"{number}_mask.png")
        np.testing.assert_array_equal(mask, expected_mask(hu(number)[0]))


def test_a_file_that_the_system_refuses_is_named_once(here: Path, command) -> None:
    write_ct(here / "in" / "a" / "1.png", 1)
    (here / "in" / "a" / "2.png").symlink_to("nowhere")
    code, _, warned = command("in", "--out", "out")
    assert code == 1
    assert "warning: in/a/2.png: no such file or folder." in warned.splitlines()
    assert rows(here / "out")[1]["error"] == "a/2.png: no such file or folder."


def test_a_picture_that_is_bad_by_itself_keeps_its_message(here: Path, command) -> None:
    path = write_ct(here / "in" / "1.png", 1)
    path.write_bytes(path.read_bytes()[:-30])
    code, _, warned = command("in", "--out", "out")
    assert code == 1
    assert "1.png: found a PNG without its end marker" in warned
    assert "the file is cut off" in rows(here / "out")[0]["error"]
    write_ct(path, 1)
    assert command("in", "--out", "out")[0] == 0  # there is nothing that could be lost
    assert rows(here / "out")[0]["error"] == ""


def test_where_a_mask_cannot_be_written_the_work_ends_and_no_table_is_left(
    here: Path, models: Path, command
) -> None:
    # Far more than the threads have begun when the first batch fails, however they are scheduled.
    for number in range(100, 400):
        write_ct(here / "in" / f"{number}.png", number)
    (here / "out" / "105_mask.png").mkdir(parents=True)  # a folder where a file must go
    code, _, warned = command("in", "--out", "out", "--overwrite")
    assert code == 1
    assert "105_mask.png" in warned
    assert not (here / "out" / "predictions.csv").exists()
    assert not (here / "out" / "399_mask.png").exists()


def test_series_are_read_beside_each_other_without_mixing_them_up(here: Path, command) -> None:
    for number in range(6):
        write_series(here / "in" / f"ct{number}", hu(number, depth=2))
        write_volume(here / "in" / f"v{number}.nii.gz", hu(10 + number, depth=3))
    assert command("in", "--out", "out", "--format", "nifti")[0] == 0
    for number in range(6):
        series = nifti(here / "out" / f"ct{number}_mask.nii.gz")
        np.testing.assert_array_equal(series, expected_mask(hu(number, depth=2)))
        volume = nifti(here / "out" / f"v{number}_mask.nii.gz")
        np.testing.assert_array_equal(volume, expected_mask(hu(10 + number, depth=3)))


def test_a_dicom_file_that_cannot_be_read_is_named_and_the_exit_code_is_one(
    here: Path, command
) -> None:
    write_ct(here / "in" / "1.png", 1)
    write_series(here / "in" / "ct", hu(3, depth=1))
    file = here / "in" / "ct" / "00.dcm"
    file.write_bytes(file.read_bytes()[:200])
    code, _, warned = command("in", "--out", "out")
    assert code == 1
    assert "ct/00.dcm: found no complete DICOM header" in warned
    assert "1 file could not be segmented" in warned
    assert (here / "out" / "1_mask.png").is_file()


def test_a_file_of_an_unknown_format_is_passed_over_aloud(here: Path, command) -> None:
    write_ct(here / "in" / "1.png", 1)
    (here / "in" / "movie.mp4").write_bytes(b"a" * 300)
    code, _, warned = command("in", "--out", "out")
    assert code == 0
    assert "1 file of unknown formats passed over: movie.mp4" in warned


def test_dicom_seg_for_what_is_no_dicom_is_one_message_before_any_work(here: Path, command) -> None:
    write_ct(here / "in" / "1.png", 1)
    write_volume(here / "in" / "v.mha", hu(2))
    code, printed, warned = command("in", "--out", "out", "--format", "dicom-seg")
    assert code == 1
    assert "--format dicom-seg needs DICOM images" in warned
    assert "got 1.png and 1 more. Leave --format out, or use png or nifti." in warned
    assert printed == ""
    assert not (here / "out").exists()


def test_a_folder_that_is_not_empty_is_refused_unless_told_otherwise(here: Path, command) -> None:
    write_ct(here / "1.png", 1)
    (here / "out").mkdir()
    (here / "out" / "mine.txt").write_text("kept", encoding="utf-8")
    code, _, warned = command("1.png", "--out", "out")
    assert code == 1
    assert "--out out: the folder is not empty. Name another one, or add --overwrite" in warned
    (here / "out" / "1_mask.png").write_bytes(b"old")
    assert command("1.png", "--out", "out", "--overwrite")[0] == 0
    np.testing.assert_array_equal(png(here / "out" / "1_mask.png"), expected_mask(hu(1)[0]))
    assert (here / "out" / "mine.txt").read_text(encoding="utf-8") == "kept"


@pytest.mark.parametrize("out", ["in", "in/masks", "."])
def test_masks_are_not_written_among_the_images(here: Path, command, out: str) -> None:
    write_ct(here / "in" / "1.png", 1)
    code, _, warned = command("in", "--out", out, "--overwrite")
    assert code == 1
    assert "masks must not be written among the images of in" in warned
    assert [path.name for path in (here / "in").iterdir()] == ["1.png"]


def test_without_params_yaml_pictures_need_the_options(here: Path, command) -> None:
    write_ct(here / "1.png", 1)
    (here / "params.yaml").unlink()
    code, _, warned = command("1.png", "--out", "a", "--slope", "1")
    assert code == 1
    assert "Give --intercept, --spacing-mm, --thickness-mm, or run where params.yaml" in warned
    options = ("--slope", "1", "--intercept", "-1024", "--spacing-mm", "1", "1")
    assert command("1.png", "--out", "b", *options, "--thickness-mm", "2")[0] == 0
    code, _, warned = command("1.png", "--out", "c", *options, "--thickness-mm", "0")
    assert code == 1
    assert "--thickness-mm must be above 0" in warned


def test_without_params_yaml_a_warning_says_that_masks_are_not_told_apart(
    here: Path, command
) -> None:
    write_volume(here / "in" / "v.mha", hu(2))
    (here / "params.yaml").unlink()
    code, _, warned = command("in", "--out", "out")
    assert code == 0
    assert "no params.yaml here" in warned


def test_an_interrupted_run_leaves_no_table(here: Path, models: Path) -> None:
    from src.data.images import each_alone, find_images
    from src.data.pictures import PictureScale
    from src.inference import load_segmenter
    from src.prediction import Wanted
    from src.scan_work import ScanWork

    for name in ("1", "2", "3"):
        write_ct(here / "in" / f"{name}.png", int(name))

    def interrupt() -> None:
        raise KeyboardInterrupt

    images = find_images([here / "in"], ())
    work = ScanWork(
        images, each_alone(images), here / "out", load_segmenter(models / "threshold"), Wanted(),
        PictureScale(1, -1024, (1, 1), 1), version="a",
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        predict.predict(work, here / "out" / predict.TABLE, interrupt)
    # Others were under way; what is there is whole.
    found = sorted((here / "out").iterdir())
    assert found[0].name == "1_mask.png"
    for path in found:
        number = int(path.name.removesuffix("_mask.png"))
        np.testing.assert_array_equal(png(path), expected_mask(hu(number)[0]))


def test_help_starts_no_tensorflow_and_no_mlflow_and_has_an_example() -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['src.predict', '--help']\n"
        "try:\n"
        "    runpy.run_module('src.predict', run_name='__main__')\n"
        "except SystemExit:\n"
        "    pass\n"
        "slow = {'tensorflow', 'keras', 'mlflow', 'pandas', 'SimpleITK', 'highdicom'}\n"
        "print('LOADED', sorted(slow & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "LOADED []" in done.stdout
    assert "Example: python -m src.predict" in done.stdout
