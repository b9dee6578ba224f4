import shutil
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from src.stages.train import code_hash
from src.stages.training_log import write_curves

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
