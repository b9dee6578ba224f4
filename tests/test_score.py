import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src import score, terminal
from src.config import load_params
from src.data.cases import build_cases, write_cases
from src.data.pictures import PictureScale
from src.external import read_external
from src.scoring import read_counts, scores_of
from tests.data.conftest import (
    ct,
    write_ct_picture,
    write_picture,
    write_segmentation,
    write_series,
    write_volume,
)

ROOT = Path(__file__).parent.parent
REAL = ROOT.parent / "shared" / "data" / "sts-ct"
LABELS = ("--labels", "0=background,1=lesion")
MILLIMETRES = ("--spacing-mm", "2", "1")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, without params.yaml."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """command(ARGUMENTS…) -> exit code, what was printed, what was warned of."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["score", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            terminal.run(score.main)
        printed = capsys.readouterr()
        return int(done.value.code or 0), printed.out, printed.err

    return run


def square(top: int = 3, value: int = 1) -> np.ndarray:
    """(10, 10), a square of 4 x 4 = 16 pixels; none where `value` is 0."""
    labels = np.zeros((10, 10), np.uint8)
    labels[top : top + 4, 3:7] = value
    return labels


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_help_loads_nothing_slow() -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['src.score', '--help']\n"
        "try:\n"
        "    runpy.run_module('src.score', run_name='__main__')\n"
        "except SystemExit:\n"
        "    pass\n"
        "slow = {'tensorflow', 'keras', 'mlflow', 'pandas', 'scipy', 'SimpleITK', 'highdicom'}\n"
        "print('LOADED', sorted(slow & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "LOADED []" in done.stdout


# --- The scores -----------------------------------------------------------------------------------


def test_two_folders_are_scored_slice_by_slice_and_patient_by_patient(here: Path, command) -> None:
    for patient, tops in {"P1": (4, 3), "P2": (3, 3)}.items():
        for place, top in enumerate(tops):
            write_picture(here / "truth" / patient / f"{place}_mask.png", square())
            write_picture(here / "method" / patient / f"{place}.png", square(top))
    code, printed, warned = command("truth", "method", *LABELS, *MILLIMETRES)
    assert code == 0, warned
    first, second, *_ = rows(here / "scores" / "slices.csv")
    # 12 of 16 pixels are shared: 24 / 32; the square lies a row of 2 mm too low.
    assert (first["case"], first["patient"]) == ("P1/0_mask.png", "P1")
    assert float(first["dice_lesion"]) == 0.75
    assert float(first["hd95_mm_lesion"]) == 2.0
    assert (float(second["dice_lesion"]), float(second["hd95_mm_lesion"])) == (1.0, 0.0)
    patient, other = rows(here / "scores" / "patients.csv")
    # P1: 28 shared pixels, 4 too many, 4 too few: 56 / 64; mean of 2 mm and 0 mm.
    assert (patient["patient"], patient["slices"]) == ("P1", "2")
    assert float(patient["dice_lesion"]) == 0.875
    assert float(patient["hd95_mm_lesion"]) == 1.0
    assert float(other["dice_lesion"]) == float(other["nsd_lesion"]) == 1.0
    scores = summary(here / "scores")["scores"]
    assert scores["dice"]["lesion"] == pytest.approx((0.875 + 1) / 2)
    assert (scores["hd95_mm_low"]["lesion"], scores["hd95_mm_high"]["lesion"]) == (0.0, 1.0)
    assert "0.938 (0.875 to 1.000)" in printed
    assert "0.50 (0.00 to 1.00)" in printed
    assert "2 patients only: fewer than 10" in warned
    assert "Look at scores/patients.csv" in printed


def test_of_one_patient_no_interval_is_spoken_of(here: Path, command) -> None:
    for folder in ("truth", "method"):
        write_picture(here / folder / "P1" / "1.png", square())
    code, printed, warned = command("truth", "method", *LABELS, *MILLIMETRES)
    assert code == 0
    assert "one patient. Dice and IoU: pixels of a patient's slices" in printed
    assert "interval" not in printed
    assert "1 patient only: no interval can be given" in warned


def test_ten_patients_are_not_said_to_be_few(here: Path, command) -> None:
    for number in range(10):
        for folder in ("truth", "method"):
            write_picture(here / folder / f"P{number}" / "1.png", square())
    code, _, warned = command("truth", "method", *LABELS, *MILLIMETRES)
    assert (code, warned) == (0, "")


def test_a_class_on_one_side_alone_counts_with_the_diagonal_and_is_said(
    here: Path, command
) -> None:
    write_picture(here / "truth" / "P1" / "1.png", square())
    write_picture(here / "method" / "P1" / "1.png", square(value=0))
    code, printed, _ = command("truth", "method", *LABELS, *MILLIMETRES)
    assert code == 0
    (row,) = rows(here / "scores" / "patients.csv")
    assert float(row["hd95_mm_lesion"]) == pytest.approx(np.hypot(20, 10), abs=1e-6)
    assert (float(row["dice_lesion"]), float(row["nsd_lesion"])) == (0, 0)
    assert row["one_empty_slices_lesion"] == "1"
    assert "lesion: 1 slice with it in truth or prediction alone" in printed


def test_formats_may_differ_and_a_stack_is_scored_by_slices(here: Path, command) -> None:
    stack = np.stack([square(), square(value=0), square(5)])
    write_volume(here / "truth" / "P1_mask.nii.gz", stack, spacing=(1.0, 2.0, 5.0))
    write_volume(here / "method" / "P1.mha", stack, spacing=(1.0, 2.0, 5.0))
    write_picture(here / "truth" / "P2" / "1.png", square())
    write_volume(here / "method" / "P2" / "1.nii.gz", square(4)[None], spacing=(1.0, 2.0, 5.0))
    code, _, warned = command("truth", "method", *LABELS, *MILLIMETRES)
    assert code == 0, warned
    found = {row["case"]: row["hd95_mm_lesion"] for row in rows(here / "scores" / "slices.csv")}
    assert found == {
        "P1_mask.nii.gz#000": "0.0", "P1_mask.nii.gz#001": "", "P1_mask.nii.gz#002": "0.0",
        "P2/1.png": "2.0",
    }  # fmt: skip


def test_a_tiff_stack_and_a_nifti_volume_of_the_same_slices_agree(here: Path, command) -> None:
    import cv2

    stack = np.stack([square(), square(4)])
    (here / "truth").mkdir()
    assert cv2.imwritemulti(str(here / "truth.tif"), list(stack))
    write_volume(here / "method.nii.gz", stack, spacing=(1.0, 2.0, 5.0))
    code, _, warned = command("truth.tif", "method.nii.gz", *LABELS, *MILLIMETRES)
    assert code == 0, warned
    (row,) = rows(here / "scores" / "patients.csv")
    assert (row["patient"], row["slices"], row["dice_lesion"]) == ("truth", "2", "1.0")


def test_the_tolerance_and_the_spacing_are_those_of_the_options(here: Path, command) -> None:
    write_picture(here / "t" / "P1" / "1.png", square())
    write_picture(here / "m" / "P1" / "1.png", square(4))
    assert command("t", "m", *LABELS, *MILLIMETRES, "--tolerance-mm", "2", "--out", "a")[0] == 0
    assert rows(here / "a" / "slices.csv")[0]["nsd_lesion"] == "1.0"
    wide = ("--spacing-mm", "6", "3", "--tolerance-mm", "2")
    assert command("t", "m", *LABELS, *wide, "--out", "b")[0] == 0
    assert rows(here / "b" / "slices.csv")[0]["hd95_mm_lesion"] == "6.0"
    assert float(rows(here / "b" / "slices.csv")[0]["nsd_lesion"]) < 1


def test_the_method_may_use_other_values_and_a_rule_names_the_patient(here: Path, command) -> None:
    for name in ("P1_01", "P1_02", "P2_01"):
        write_picture(here / "truth" / f"{name}.png", square(value=255))
        write_picture(here / "method" / f"{name}.png", square())
    labels = ("--labels", '{0: background, "255": lesion}', "--prediction-labels")
    rule = ("--patient", "(?P<patient>[^/_]+)_")
    code, _, warned = command(
        "truth", "method", *labels, "0=background,1=lesion", *MILLIMETRES, *rule
    )
    assert code == 0, warned
    found = rows(here / "scores" / "patients.csv")
    assert [(row["patient"], row["slices"]) for row in found] == [("P1", "2"), ("P2", "1")]


def test_params_yaml_says_what_the_options_do_not(here: Path, command) -> None:
    shutil.copy(ROOT / "params.yaml", here)
    write_picture(here / "truth" / "P1" / "1.png", square(value=2))
    write_picture(here / "method" / "P1" / "1.png", square(4, value=2))
    code, printed, _ = command("truth", "method")
    assert code == 0
    (row,) = rows(here / "scores" / "slices.csv")
    assert float(row["hd95_mm_lesion"]) == 2.5  # data.pictures.spacing_mm
    assert row["dice_organ"] == ""
    assert "NSD within 2 mm" in printed


def test_colours_may_stand_for_classes_and_black_is_the_background(here: Path, command) -> None:
    for folder, top in (("truth", 3), ("method", 4)):
        colours = np.zeros((10, 10, 3), np.uint8)
        colours[..., 0] = square(top, value=255)  # blue, which is not the grey value 255
        write_picture(here / folder / "P1" / "1.png", colours)
        write_picture(here / folder / "P1" / "2.png", np.zeros((10, 10, 3), np.uint8))
    labels = ("--labels", "#0000ff=lesion,#000000=background,255=bone")
    code, _, warned = command("truth", "method", *labels, *MILLIMETRES)
    assert code == 0, warned
    (row,) = rows(here / "scores" / "patients.csv")
    assert float(row["dice_lesion"]) == 0.75  # 2 * 12 / (16 + 16)
    assert row["dice_bone"] == ""


# --- What goes wrong ------------------------------------------------------------------------------


def test_missing_and_stray_predictions_are_all_named_and_nothing_is_scored(
    here: Path, command
) -> None:
    for name in ("1", "2", "3"):
        write_picture(here / "truth" / "P1" / f"{name}.png", square())
    for name in ("3", "4"):
        write_picture(here / "method" / "P1" / f"{name}.png", square())
    code, _, warned = command("truth", "method", *LABELS, *MILLIMETRES)
    assert code == 1
    assert "3 problems, nothing was scored" in warned
    assert "truth/P1/1.png, truth/P1/2.png: found a truth without a prediction" in warned
    assert "method/P1/4.png: found a prediction without a truth" in warned
    assert not (here / "scores").exists()


def test_a_missing_prediction_counts_as_empty_on_demand_alone(here: Path, command) -> None:
    write_picture(here / "truth" / "P1" / "1.png", square())
    write_picture(here / "truth" / "P1" / "2.png", square())
    write_picture(here / "method" / "P1" / "2.png", square())
    code, _, warned = command("truth", "method", *LABELS, *MILLIMETRES, "--missing-is-empty")
    assert code == 0
    assert "1 truth without a prediction: taken as predicted empty" in warned
    assert [row["dice_lesion"] for row in rows(here / "scores" / "slices.csv")] == ["0.0", "1.0"]
    assert summary(here / "scores")["missing_taken_as_empty"] == 1


def test_names_that_agree_in_part_are_scored_with_one_warning_of_all(here: Path, command) -> None:
    for patient in ("P1", "P2"):
        write_volume(here / "truth" / f"{patient}.nii.gz", square()[None])
        write_volume(here / "method" / f"{patient}_trans.nii.gz", square()[None])
    code, _, warned = command("truth", "method", *LABELS)
    assert code == 0
    assert warned.count("names that agree in part") == 1
    assert "P1.nii.gz and P1_trans.nii.gz, P2.nii.gz and P2_trans.nii.gz: found" in warned


def test_ambiguous_names_are_an_error_that_names_the_candidates(here: Path, command) -> None:
    write_picture(here / "truth" / "P1" / "1.png", square())
    write_picture(here / "method" / "P1" / "1.png", square())
    write_picture(here / "method" / "P1" / "1_pred.tif", square())
    code, _, warned = command("truth", "method", *LABELS, *MILLIMETRES)
    assert code == 1
    assert "2 predictions (P1/1.png, P1/1_pred.tif) that fit each other" in warned


def test_every_file_that_does_not_fit_is_told_at_once(here: Path, command) -> None:
    for name in ("size", "value", "broken", "good"):
        write_picture(here / "truth" / "P1" / f"{name}.png", square())
    write_picture(here / "method" / "P1" / "size.png", np.zeros((9, 10), np.uint8))
    write_picture(here / "method" / "P1" / "value.png", square(value=7))
    broken = write_picture(here / "method" / "P1" / "broken.png", square())
    broken.write_bytes(broken.read_bytes()[:-20])
    write_picture(here / "method" / "P1" / "good.png", square())
    code, _, warned = command("truth", "method", *LABELS, *MILLIMETRES)
    assert code == 1
    assert "3 problems, nothing was scored" in warned
    both = "truth/P1/size.png and method/P1/size.png"
    assert f"{both}: found a prediction of 1 × 9 × 10, expected 1 × 10 × 10 as the t" in warned
    assert "method/P1/value.png: found the value 7, expected one of 0, 1" in warned
    assert "give --prediction-labels 0=background,7=lesion" in warned
    assert "method/P1/broken.png: found a PNG without its end marker" in warned
    assert not (here / "scores").exists()


def test_a_file_beside_a_folder_is_told_as_such(here: Path, command) -> None:
    write_picture(here / "truth" / "P1" / "1.png", square())
    write_picture(here / "1.png", square())
    code, _, warned = command("truth", "1.png", *LABELS, *MILLIMETRES)
    assert code == 1
    assert "1.png is a file and truth a folder, expected two of a kind" in warned


def test_masks_of_one_patient_need_no_rule_but_a_word(here: Path, command) -> None:
    for name in ("slice_0_mask", "slice_1_mask"):
        for folder in ("P1", "method"):
            write_picture(here / folder / f"{name}.png", square())
    code, _, warned = command("P1", "method", *LABELS, *MILLIMETRES)
    assert code == 1
    assert "--patient: `one` if all masks are of one patient" in warned
    rule = ("--patient", "(?P<patient>[^/_]+)_[0-9]+[.]png$")
    _, _, warned = command("P1", "method", *LABELS, *MILLIMETRES, *rule)
    assert "Mend it so that it fits the path slice_0_mask.png" in warned
    code, _, warned = command("P1", "method", *LABELS, *MILLIMETRES, "--patient", "one")
    assert code == 0, warned
    assert [row["patient"] for row in rows(here / "scores" / "patients.csv")] == ["P1"]


def test_labels_are_suggested_whole_and_guessed_only_where_one_guess_is_possible(
    here: Path, command
) -> None:
    labels = ("--labels", "0=background,1=organ,2=lesion")
    write_picture(here / "truth.png", square())
    write_picture(here / "method.png", square(value=7))
    _, _, warned = command("truth.png", "method.png", *labels, *MILLIMETRES)
    assert "--prediction-labels 0=background,1=organ,2=lesion,7=CLASS." in warned
    both = square(value=7)
    both[0, 0] = 9
    write_picture(here / "method.png", both)
    _, _, warned = command("truth.png", "method.png", *labels, *MILLIMETRES)
    assert "--prediction-labels 0=background,7=organ,9=lesion." in warned
    more = square(value=7)
    more[0, :3] = 1, 2, 2
    write_picture(here / "method.png", more)
    _, _, warned = command("truth.png", "method.png", *labels, *MILLIMETRES)
    assert "method.png: found the value 7, expected one of 0, 1, 2" in warned
    assert "--prediction-labels 0=background,1=organ,2=lesion,7=CLASS." in warned


def test_unknown_values_of_many_files_are_told_once_for_each_cause(here: Path, command) -> None:
    labels = ("--labels", "0=background,1=organ,2=lesion")
    image = np.arange(100, dtype=np.uint8).reshape(10, 10)
    for number, mask in enumerate((square(value=7), square(value=9), image, image.T), start=1):
        write_picture(here / "truth" / "P1" / f"{number}.png", square())
        write_picture(here / "method" / "P1" / f"{number}.png", mask)
    code, _, warned = command("truth", "method", *labels, *MILLIMETRES)
    assert code == 1
    assert "4 problems, nothing was scored" in warned
    one = "method/P1/1.png, method/P1/2.png: found the values 7, 9, expected one of 0, 1, 2."
    assert f"{one} If that is what they mean, give --prediction-labels 0=background,7=o" in warned
    other = "method/P1/3.png, method/P1/4.png: found the values 3, 4, 5, 6, 7, 8, 9, 10, …"
    assert f"{other} (97 values), expected one of 0, 1, 2. 100 values for 3 classes look" in warned


def test_a_volume_of_another_spacing_is_refused(here: Path, command) -> None:
    write_volume(here / "truth.nii.gz", square()[None])
    write_volume(here / "method.nii.gz", square()[None], spacing=(0.5, 0.9, 3.0))
    code, _, warned = command("truth.nii.gz", "method.nii.gz", *LABELS)
    assert code == 1
    assert "a prediction with spacing 3, 0.9, 0.5, expected spacing 3, 0.75, 0.5" in warned
    write_picture(here / "truth.png", square())
    code, _, warned = command("truth.png", "method.nii.gz", *LABELS, *MILLIMETRES)
    assert code == 1
    assert "found pixels of 0.9 x 0.5 mm, expected 2 x 1 mm" in warned


def test_pictures_need_a_spacing_labels_and_a_patient(here: Path, command) -> None:
    for name in ("1", "2"):
        write_picture(here / "truth" / f"{name}.png", square())
        write_picture(here / "method" / f"{name}.png", square())
    code, _, warned = command("truth", "method")
    assert code == 1
    assert "no params.yaml here" in warned
    assert "--labels 0=background,1=lesion" in warned
    code, _, warned = command("truth", "method", *LABELS, *MILLIMETRES)
    assert code == 1
    assert "Say who the patient is with --patient" in warned
    code, _, warned = command("truth", "method", *LABELS, "--patient", "(?P<patient>.)")
    assert code == 1
    assert "Give --spacing-mm Y X" in warned


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--labels", "lesion"), "found 'lesion', expected VALUE=CLASS"),
        (("--labels", "0=background"), "expected the background and at least one class"),
        (("--labels", "0=background,0=lesion"), "found 0 twice"),
        (("--labels", "#ffffff=background,255=lesion"), "found #ffffff and 255, which are the sa"),
        (("--labels", "0=background,#ff0000=a,#FF0000=b"), "found #ff0000 and #FF0000, which"),
        (("--labels", "0=background,1=mean_foreground"), "--labels: found a class 'mean_foregr"),
        ((*LABELS, "--prediction-labels", "1=organ"), "names organ, expected classes of the truth"),
        ((*LABELS, "--patient", "[^/]+"), "expected a group named patient"),
        ((*LABELS, "--patient", "(?P<patient>"), "missing ), unterminated subpattern"),
        ((*LABELS, "--spacing-mm", "0", "1"), "--spacing-mm must be above 0"),
        ((*LABELS, "--tolerance-mm", "-1"), "--tolerance-mm must be 0 or more"),
        ((*LABELS, "--name", "nnunet"), "there is no params.yaml here"),
        ((*LABELS, "--name", "unet"), "networks of this repository"),
        ((*LABELS, "--name", "../a"), "expected letters, digits"),
    ],
)
def test_options_that_make_no_sense_are_told(
    here: Path, command, options: tuple[str, ...], message: str
) -> None:
    code, _, warned = command("truth", "method", *options)
    assert code == 1
    assert message in warned


def test_a_folder_that_is_not_there_is_told_and_a_wrong_option_is_wrong_use(
    here: Path, command
) -> None:
    code, _, warned = command("truth", "method", *LABELS)
    assert code == 1
    assert "truth: no such file or folder" in warned
    assert command("truth", "method", "--colour")[0] == 2


def test_earlier_tables_are_replaced_on_demand_and_other_files_never(here: Path, command) -> None:
    write_volume(here / "P1.nii.gz", square()[None])
    again = ("P1.nii.gz", "P1.nii.gz", *LABELS)
    assert command(*again)[0] == 0
    code, _, warned = command(*again)
    assert code == 1
    assert "--out scores: the folder is not empty. Name another one, or add --overwrite" in warned
    assert command(*again, "--overwrite")[0] == 0
    (here / "scores" / "mine.txt").write_text("kept", encoding="utf-8")
    code, _, warned = command(*again, "--overwrite")
    assert code == 1
    assert "Name another one." in warned
    assert (here / "scores" / "mine.txt").is_file()


# --- The comparison -------------------------------------------------------------------------------


def prepare(here: Path, sides: dict[str, str], **changes: object) -> None:
    """What the stages audit and split leave in prepared/."""
    params = load_params(here / "params.yaml")
    settings = params.data.model_dump(exclude={"pictures"}) | changes
    pictures = PictureScale(**params.data.pictures.model_dump())
    cases, _, findings = build_cases(here / "data", **settings, pictures=pictures, workers=1)
    assert not findings
    write_cases(cases.assign(group=cases["patient"]), here / "prepared" / "cases.csv")
    table = pd.DataFrame({"patient": sides.keys(), "fold": 0, "subset": sides.values()})
    table.to_csv(here / "prepared" / "split.csv", index=False)


@pytest.fixture
def repository(here: Path) -> Path:
    """Four patients of two slices, of which Doe and Roe are tested; a method that saw these two."""
    shutil.copy(ROOT / "params.yaml", here)
    for number, patient in enumerate(("Doe", "Loe", "Moe", "Roe")):
        for place in (1, 2):
            write_ct_picture(here / "data/images/a" / patient / f"{place}.png", 10 * number + place)
            whole = np.zeros((40, 40), np.uint8)
            whole[10:20, 10 : 20 + number] = 1 + place % 2
            write_picture(here / "data/masks/a" / patient / f"{place}.png", whole)
            if patient in ("Doe", "Roe"):
                write_picture(here / "method" / f"{patient}_{place}.png", np.roll(whole, 1, axis=0))
    prepare(here, {"Doe": "test", "Loe": "train", "Moe": "validation", "Roe": "test"})
    return here


def test_a_named_method_joins_the_comparison_under_pseudonyms(repository: Path, command) -> None:
    code, printed, warned = command("data", "method", "--name", "nnunet")
    assert code == 0, warned
    folder = repository / "external" / "nnunet"
    assert sorted(path.name for path in folder.iterdir()) == ["counts.csv", "scores.json"]
    for path in folder.iterdir():
        assert not any(name in path.read_text(encoding="utf-8") for name in ("Doe", "Roe"))
    cases = pd.read_csv(repository / "prepared" / "cases.csv")
    tested = cases[cases["patient"].isin(["Doe", "Roe"])]
    counts = read_counts(folder / "counts.csv")
    assert counts["case"].tolist() == tested["case_pseudonym"].tolist()
    assert counts["source"].tolist() == ["a"] * 4
    # 10 columns of 10 rows, moved by one: 90 are shared.
    assert counts["true_positives_lesion"].tolist() == [90, 0, 117, 0]
    assert counts["hd95_mm_lesion"].dropna().tolist() == [2.5, 2.5]
    content = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert content["test"]["dice"]["lesion"] == pytest.approx(0.9)
    assert content["tolerance_mm"] == 2.0
    assert len(content["split_hash"]) == 32
    again = scores_of(counts, ("background", "organ", "lesion"), seed=2026, resamples=10_000)
    assert again.summary.to_dict() == content["test"]
    slices = rows(repository / "scores" / "slices.csv")
    assert [row["file"] for row in slices] == tested["case_id"].tolist()
    assert "nnunet: 2 patients, 4 slices" in printed
    assert "external/nnunet" in printed


def test_compare_takes_the_named_methods_of_todays_data_and_split(
    repository: Path, command
) -> None:
    command("data", "method", "--name", "nnunet")
    params = load_params(repository / "params.yaml")
    found, left_out = read_external(repository, params)
    assert (list(found), left_out) == (["nnunet"], [])
    assert found["nnunet"]["true_positives_lesion"].tolist() == [90, 0, 117, 0]
    labels = {0: "background", 1: "lesion", 2: "organ"}
    for changed, words in (
        ({"data": params.data.model_copy(update={"labels": labels})}, "other classes or labels"),
        ({"evaluate": params.evaluate.model_copy(update={"tolerance_mm": 3.0})},
         "another evaluate.tolerance_mm"),
    ):  # fmt: skip
        found, left_out = read_external(repository, params.model_copy(update=changed))
        assert found == {}
        assert f"external/nnunet was scored under {words}, and is left out" in left_out[0]
    split = repository / "prepared" / "split.csv"
    split.write_text(split.read_text(encoding="utf-8").replace("train", "validation"), "utf-8")
    found, left_out = read_external(repository, params)
    assert found == {}
    (sentence,) = left_out
    assert "external/nnunet was scored under another split" in sentence


def test_a_named_method_is_scored_by_the_labels_of_the_networks(repository: Path, command) -> None:
    swapped = ("--labels", "0=background,1=lesion,2=organ")
    code, _, warned = command("data", "method", "--name", "nnunet", *swapped)
    assert code == 1
    assert "--name nnunet: found --labels {0: 'background', 1: 'lesion'" in warned
    assert not (repository / "external").exists()


def test_a_folder_within_data_may_be_the_truth(repository: Path, command) -> None:
    code, _, warned = command("data/masks", "method", "--name", "nnunet")
    assert code == 0, warned


def test_a_dicom_seg_of_the_data_and_a_nifti_prediction_lie_on_the_same_slices(
    here: Path, command
) -> None:
    shutil.copy(ROOT / "params.yaml", here)
    # The files are named against their order, and the second slice has no segment.
    sets = write_series(here / "data" / "P1" / "ct", ct(1, depth=3), names=["c", "b", "a"])
    drawn = np.zeros((3, 40, 40, 2), bool)
    drawn[0, 5:10, 5:10, 1] = drawn[2, 20:30, 20:30, 1] = True
    drawn[2, :5, :5, 0] = True
    kept = [sets[0], sets[2]]
    write_segmentation(here / "data" / "P1" / "seg.dcm", kept, drawn[[0, 2]])
    labels = (drawn[..., 0] + 2 * drawn[..., 1]).astype(np.uint8)
    write_volume(here / "method" / "P1.nii.gz", labels, spacing=(0.75, 0.5, 2.5))
    prepare(here, {"P1": "test"}, source=None)
    code, _, warned = command("data", "method", "--name", "nnunet")
    assert code == 0, warned
    found = rows(here / "scores" / "slices.csv")
    # In the order of the case table, which is that of the file names.
    assert [row["truth_pixels_lesion"] for row in found] == ["100", "0", "25"]
    assert [row["dice_lesion"] for row in found] == ["1.0", "", "1.0"]


def test_predictions_of_other_patients_are_left_out_aloud(repository: Path, command) -> None:
    write_picture(repository / "method" / "Loe_1.png", np.zeros((40, 40), np.uint8))
    code, printed, _ = command("data", "method", "--name", "nnunet")
    assert code == 0
    assert "1 prediction of patients who are not tested left out" in printed
    assert len(rows(repository / "scores" / "slices.csv")) == 4


def test_test_patients_that_are_missing_are_listed_and_nothing_is_written(
    repository: Path, command
) -> None:
    (repository / "method" / "Roe_2.png").unlink()
    code, _, warned = command("data", "method", "--name", "nnunet")
    assert code == 1
    assert "for 1 of 2 test patients: Roe (1 of 2 slices)" in warned
    code, _, warned = command("data/masks/a/Doe", "method", "--name", "nnunet")
    assert code == 1
    assert not (repository / "external").exists()
    assert not (repository / "scores").exists()


def test_a_truth_from_elsewhere_or_one_that_changed_is_refused(repository: Path, command) -> None:
    shutil.copytree(repository / "data" / "masks", repository / "copy")
    code, _, warned = command("copy", "method", "--name", "nnunet")
    assert code == 1
    assert "a truth that is not in prepared/cases.csv" in warned
    write_picture(repository / "data/masks/a/Doe/1.png", np.zeros((40, 40), np.uint8))
    code, _, warned = command("data", "method", "--name", "nnunet")
    assert code == 1
    assert "masks/a/Doe/1.png: found another mask than prepared/cases.csv was made of" in warned


def test_a_comparison_is_held_to_the_tolerance_and_the_classes_of_the_networks(
    repository: Path, command
) -> None:
    code, _, warned = command("data", "method", "--name", "nnunet", "--tolerance-mm", "5")
    assert code == 1
    assert "found --tolerance-mm 5.0, expected 2.0 as the networks have it" in warned
    code, _, warned = command("data", "method", "--name", "nnunet", *("--labels", "0=air,1=bone"))
    assert code == 1
    assert "found classes" in warned


def test_without_a_case_table_the_command_that_makes_it_is_named(repository: Path, command) -> None:
    shutil.rmtree(repository / "prepared")
    code, _, warned = command("data", "method", "--name", "nnunet")
    assert code == 1
    assert "Make it with `dvc repro audit`" in warned


# --- Real CT --------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.is_dir(), reason="the real CT is not beside this repository")
def test_a_real_truth_scored_against_itself_is_perfect(here: Path, command) -> None:
    for patient in ("STS_002", "STS_003"):
        source = REAL / patient / "CT_mask.nii.gz"
        (here / "truth" / patient).mkdir(parents=True)
        shutil.copy(source, here / "truth" / patient)
        (here / "method").mkdir(exist_ok=True)
        shutil.copy(source, here / "method" / f"{patient}.nii.gz")
    code, _, warned = command("truth", "method", *LABELS)
    assert code == 0, warned
    scores = summary(here / "scores")["scores"]
    assert scores["dice"]["lesion"] == 1
    assert scores["hd95_mm"]["lesion"] == scores["assd_mm"]["lesion"] == 0
    assert scores["nsd"]["lesion"] == 1
    assert scores["num_one_empty_cases"]["lesion"] == 0
    assert scores["num_scored"]["lesion"] == 2
