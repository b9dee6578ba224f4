import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from src.config import load_params
from src.data.arrays import Arrays
from src.inference import Segmenter, load_segmenter
from src.postprocessing import Postprocessing
from src.stages.train import code_hash, settled
from src.stages.training_log import write_curves
from tests.tiny_models import CLASSES, NATIVE, save_threshold_model

ROOT = Path(__file__).parents[2]
HISTORY = [
    {
        "epoch": epoch,
        "train/loss": 1.0 / epoch,
        "train/iou/lesion": 0.25,
        "validation/loss": 2.0 / epoch,
        "validation/iou/lesion": float("nan"),
        "learning_rate": 1e-3,
    }
    for epoch in (1, 2)
]


def test_each_quantity_becomes_a_file_with_train_beside_validation(tmp_path: Path) -> None:
    write_curves(tmp_path / "unet", HISTORY)
    assert sorted(path.name for path in (tmp_path / "unet").iterdir()) == [
        "iou_lesion.csv",
        "loss.csv",
    ]
    loss = (tmp_path / "unet" / "loss.csv").read_text(encoding="utf-8")
    assert loss == "epoch,train,validation\n1,1.0,2.0\n2,0.5,1.0\n"
    lesion = pd.read_csv(tmp_path / "unet" / "iou_lesion.csv")
    assert lesion["train"].tolist() == [0.25, 0.25]
    assert lesion["validation"].isna().all()


def test_the_curves_have_the_columns_that_dvc_draws(tmp_path: Path) -> None:
    (definition,) = YAML(typ="safe").load(ROOT / "dvc.yaml")["plots"]
    write_curves(tmp_path, HISTORY)
    columns = [definition["reports/curves"]["x"], *definition["reports/curves"]["y"]]
    for path in tmp_path.glob("*.csv"):
        assert pd.read_csv(path).columns.tolist() == columns


def test_curves_of_an_earlier_run_do_not_stay(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "iou_tumour.csv").write_text("old")
    write_curves(tmp_path / "unet", HISTORY)
    assert not (tmp_path / "unet" / "iou_tumour.csv").exists()


@pytest.mark.parametrize(
    ("changed", "differs"),
    [("models/unet.py", True), ("data/sampling.py", True), ("training.py", True), ("ui.py", False)],
)
def test_a_checkpoint_is_held_to_the_code_that_trains(
    tmp_path: Path, changed: str, differs: bool
) -> None:
    source = shutil.copytree(ROOT / "src", tmp_path / "src")
    before = code_hash(source)
    with (source / changed).open("a", encoding="utf-8") as stream:
        stream.write("# changed\n")
    assert (code_hash(source) != before) is differs


@pytest.fixture(scope="module")
def threshold(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    """Says organ where a normalised value lies above 0, and lesion above 0.25."""
    found = load_segmenter(save_threshold_model(tmp_path_factory.mktemp("model")), "keras")
    assert isinstance(found, Segmenter)
    return found


def one_scan() -> Arrays:
    """An organ of four pixels that is found, and a speck that is none."""
    truth = np.zeros((4, 4), np.uint8)
    truth[:2, :2] = 1
    image = np.where(truth, 0.1, -0.4).astype(np.float16)
    image[3, 3] = 0.1
    index = pd.DataFrame(
        {"pseudonym": "a", "subset": "validation", "volume": 0, "position": 0, "offset": 0,
         "height": 4, "width": 4}, index=[0],
    )  # fmt: skip
    return Arrays(image.ravel(), truth.ravel(), index, NATIVE, CLASSES)


@pytest.mark.parametrize("postprocessing", [False, True])
@pytest.mark.parametrize("calibration", [False, True])
def test_what_is_chosen_on_validation_patients_is_what_was_asked_for(
    threshold: Segmenter, postprocessing: bool, calibration: bool
) -> None:
    params = load_params(ROOT / "params.yaml")
    wanted = {"postprocessing": postprocessing, "calibration": calibration}
    inference = params.inference.model_copy(update=wanted)
    found, dice = settled(params.model_copy(update={"inference": inference}), threshold, one_scan())
    expected = Postprocessing(largest_component=(1,)) if postprocessing else Postprocessing()
    assert found.postprocessing == expected
    assert (found.card.temperature != 1) == calibration
    if postprocessing or calibration:
        assert dice is not None
        assert dice[1] == pytest.approx(2 * 4 / (4 + 5))  # before the speck is removed
    else:
        assert dice is None
