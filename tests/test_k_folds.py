"""Three folds of a tiny network through all stages, once; the tests look at what came of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from src import tracking
from src.data.phantom import write_phantom
from src.inference import load_segmenter
from src.tracking.store import pyfunc

ROOT = Path(__file__).parent.parent
FOLDS = (0, 1, 2)
STAGES = """
from src.stages import audit, compare, evaluate, prepare, split, train

audit.main()
split.main()
for fold in (0, 1, 2):
    prepare.main(fold)
    train.main("unet", fold)
    evaluate.main("unet", fold)
compare.main()
compare.main()  # once more, as `dvc repro --force compare` does
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the stages ran: six patients, folds of two."""
    root = tmp_path_factory.mktemp("repository")
    (root / "src").symlink_to(ROOT / "src")
    write_phantom(root / "data", patients=6, seed=7)
    yaml = YAML(typ="safe")
    params = yaml.load(ROOT / "params.yaml")
    params["split"] |= {"folds": len(FOLDS), "fold": list(FOLDS)}
    params["prepare"] |= {"image_size": [32, 32]}
    params["architectures"] = ["unet"]
    params["train"] |= {"epochs": 1, "warmup_epochs": 0}
    params["train"] |= {"overlay_every": 50, "precision": "float32"}
    params["train"]["model"] |= {"depth": 2, "filters": 4}
    params["evaluate"] |= {"bootstrap_resamples": 100}
    yaml.dump(params, root / "params.yaml")
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, "-c", STAGES],
        cwd=root,
        env=environment | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unet, ensemble of 3 folds" in done.stdout
    return root


@pytest.fixture(scope="module")
def store(repository: Path) -> tracking.Store:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return tracking.open_store(repository)


@pytest.fixture(scope="module")
def cases(repository: Path) -> pd.DataFrame:
    return pd.read_csv(repository / "prepared" / "cases.csv", dtype={"slice": int})


def patients(repository: Path, fold: int, subset: str) -> set[str]:
    table = pd.read_csv(repository / "prepared" / "split.csv")
    return set(table.query("fold == @fold and subset == @subset")["patient"])


def test_every_patient_is_tested_once_by_a_model_that_did_not_see_it(
    repository: Path, cases: pd.DataFrame
) -> None:
    names = cases.drop_duplicates("patient").set_index("pseudonym")["patient"]
    table = pd.read_csv(repository / "reports" / "out_of_fold" / "unet.csv")
    assert sorted(table["patient_pseudonym"]) == sorted(names.index)
    for fold in FOLDS:
        tested = set(table.loc[table["fold"] == fold, "patient_pseudonym"].map(names))
        assert tested == patients(repository, fold, "test")
        assert not tested & patients(repository, fold, "train")
        assert not tested & patients(repository, fold, "validation")
    side = json.loads((repository / "reports" / "metrics.json").read_text())["unet"]["test"]
    assert side["dice"]["organ"]["mean"] == pytest.approx(table["dice_organ"].mean(), abs=1e-6)


def test_there_is_a_predicted_mask_for_every_slice_of_every_patient(
    repository: Path, cases: pd.DataFrame
) -> None:
    found = {}
    for path in (repository / "prepared" / "predictions" / "unet").glob("fold*/*.npz"):
        with np.load(path) as masks:
            patient = path.stem.rpartition("_")[0]
            found |= {f"{patient}/{name}": masks[name].shape for name in masks.files}
    assert found == dict.fromkeys(cases["case_pseudonym"], (128, 128))


def test_the_statistics_of_a_fold_come_from_its_training_patients_alone(
    repository: Path, cases: pd.DataFrame
) -> None:
    means = set()
    for fold in FOLDS:
        rows = cases[cases["patient"].isin(patients(repository, fold, "train"))]
        stored = [
            cv2.imread(str(repository / "data" / path), cv2.IMREAD_UNCHANGED)
            for path in rows["image_path"]
        ]
        # The window of params.yaml, -160 to 240 HU; a stored value is HU + 1024.
        windowed = np.clip((np.array(stored, np.float64) - 1024 + 160) / 400, 0, 1)
        for folder in (f"prepared/arrays/fold{fold}", f"models/unet/fold{fold}"):
            settings = json.loads((repository / folder / "preprocessing.json").read_text())
            assert settings["mean"] == pytest.approx(windowed.mean(), rel=1e-6)
            assert settings["deviation"] == pytest.approx(windowed.std(), rel=1e-6)
        means.add(settings["mean"])
    assert len(means) == len(FOLDS)


def test_a_run_says_which_fold_it_is_and_shares_its_last_name_with_the_others(
    store: tracking.Store,
) -> None:
    found = store.client.search_runs([store.experiment_id], "tags.stage != 'overlays'")
    runs = {run.info.run_name.rpartition(", ")[0]: run for run in found}
    assert sorted(runs) == [
        "unet, ensemble of 3 folds", *(f"unet, fold {fold}" for fold in FOLDS),
    ]  # fmt: skip
    assert len({run.info.run_name.rpartition(", ")[2] for run in found}) == 1
    for fold in FOLDS:
        data = runs[f"unet, fold {fold}"].data
        assert data.tags["fold"] == data.params["split.fold"] == str(fold)
        assert "test/dice/organ" in data.metrics
    ensemble = runs["unet, ensemble of 3 folds"].data
    assert ensemble.params["split.fold"] == "[0, 1, 2]"
    assert "out_of_fold/dice/organ" in ensemble.metrics
    assert "validation_patients/dice/organ" in ensemble.metrics
    members = [runs[f"unet, fold {fold}"].info.run_id for fold in FOLDS]
    assert ensemble.tags["members"] == ",".join(members)


def test_the_champion_is_the_mean_of_the_folds(repository: Path, store: tracking.Store) -> None:
    champion = tracking.champion(store, "ct-segmentation")
    assert champion is not None
    assert champion.version == 1  # comparing twice made no second version
    assert champion.tags["split_hash"] == tracking.split_hash(repository / "prepared" / "split.csv")
    folders = [repository / "models" / "unet" / f"fold{fold}" for fold in FOLDS]
    images = np.random.default_rng(1).uniform(-160, 240, (2, 40, 48)).astype(np.float32)
    expected = np.mean([load_segmenter(f).probabilities(images) for f in folders], axis=0)
    model = pyfunc().load_model(champion.uri)
    found = model.predict(images, params={"output": "probabilities"})
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert model.predict(images).shape == images.shape


def test_the_score_of_the_champion_is_the_mean_over_the_patients_that_is_shown(
    repository: Path, store: tracking.Store
) -> None:
    tables = [
        pd.read_csv(folder / "validation_patients.csv")
        for folder in (repository / "reports" / "evaluation" / "unet").glob("fold*")
    ]
    patients = pd.concat(tables)[["dice_organ", "dice_lesion"]].mean(axis=1)
    champion = tracking.champion(store, "ct-segmentation")
    assert champion is not None
    score = float(champion.tags[tracking.SCORE_TAG])
    assert score == pytest.approx(patients.mean(), abs=1e-5)
    shown = json.loads((repository / "reports" / "comparison.json").read_text())["models"][0]
    assert score == pytest.approx(shown["validation_dice"])


def test_the_report_is_told_how_each_temperature_came_about(repository: Path) -> None:
    for fold in FOLDS:
        card = json.loads((repository / f"models/unet/fold{fold}/model.json").read_text())
        folder = repository / "reports" / "evaluation" / "unet" / f"fold{fold}"
        told = json.loads((folder / "calibration.json").read_text())
        assert (told["state"], told["temperature"]) == (card["calibration"], card["temperature"])
        assert told["state"] in ("fitted", "at_limit")


def test_nothing_that_is_shown_names_a_patient(repository: Path, cases: pd.DataFrame) -> None:
    shown = [p for part in ("reports", "models") for p in (repository / part).rglob("*.[cj]s*")]
    assert len(shown) > 20
    for path in shown:
        text = path.read_text(encoding="utf-8")
        assert not [name for name in cases["patient"].unique() if name in text]
