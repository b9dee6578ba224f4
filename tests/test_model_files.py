import shutil
from pathlib import Path

import numpy as np
import pytest

from src.inference import Ensemble, Segmenter, load_segmenter
from src.model_files import check_network, model_folders, model_hash
from src.postprocessing import Postprocessing
from tests.tiny_models import NATIVE, card, save_threshold_model, save_unet


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds, numbered so that their names and their numbers have different orders."""
    folder = tmp_path_factory.mktemp("models") / "unet"
    save_unet(folder / "fold2", NATIVE, bias=(0.0, 1.0, 0.0), postprocessing=Postprocessing((1,)))
    save_unet(
        folder / "fold10", NATIVE, bias=(0.0, 0.0, 5.0), postprocessing=Postprocessing((1, 2))
    )
    (folder / ".fold3-unfinished").mkdir()
    return folder


def test_the_folds_below_a_folder_are_found_in_the_order_of_their_numbers(unet: Path) -> None:
    assert model_folders(unet) == [unet / "fold2", unet / "fold10"]
    assert model_folders(unet / "fold2") == [unet / "fold2"]


def test_a_folder_of_folds_is_the_ensemble_of_them(unet: Path) -> None:
    ensemble = load_segmenter(unet)
    assert isinstance(ensemble, Ensemble)
    assert ensemble.postprocessing == Postprocessing((1,))
    image = np.zeros((1, 8, 8), np.float32)
    # Softmax of (0, 1, 0) and of (0, 0, 5) at every pixel.
    each = [np.exp(logits) / np.exp(logits).sum() for logits in ([0, 1, 0], [0, 0, 5])]
    found = ensemble.probabilities(image)[0][3, 4]
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-5)
    assert (ensemble.masks(image)[0] == 2).all()  # 0.50 of lesion, 0.29 of organ


def test_a_folder_of_a_single_fold_is_that_model(unet: Path, tmp_path: Path) -> None:
    shutil.copytree(unet / "fold2", tmp_path / "unet" / "fold2")
    assert isinstance(load_segmenter(tmp_path / "unet"), Segmenter)
    assert model_hash(tmp_path / "unet") == model_hash(unet / "fold2")


def test_the_hash_of_an_ensemble_is_that_of_its_members(unet: Path, tmp_path: Path) -> None:
    shutil.copytree(unet, tmp_path / "unet")
    assert model_hash(tmp_path / "unet") == model_hash(unet)
    save_threshold_model(tmp_path / "unet" / "fold10")
    assert model_hash(tmp_path / "unet") != model_hash(unet)
    assert len({model_hash(unet), *map(model_hash, model_folders(unet))}) == 3


def test_folds_of_an_earlier_run_are_no_members(unet: Path, tmp_path: Path) -> None:
    shutil.copytree(unet, tmp_path / "unet")
    save_unet(tmp_path / "unet" / "fold0", NATIVE, recipe="3f9c1e")
    with pytest.raises(ValueError, match=r"no ensemble: fold0; fold2, fold10\. Remove") as error:
        load_segmenter(tmp_path / "unet")
    assert str(error.value).endswith(f"such as {tmp_path / 'unet' / 'fold0'}.")


def test_a_fold_without_a_model_is_not_passed_over(unet: Path, tmp_path: Path) -> None:
    shutil.copytree(unet, tmp_path / "unet")
    (tmp_path / "unet" / "fold2" / "model.json").unlink()
    with pytest.raises(FileNotFoundError, match="fold2: no model there"):
        load_segmenter(tmp_path / "unet")


def test_a_network_that_its_card_describes_passes() -> None:
    described = card(context=2)
    check_network(Path("m"), described, architecture="unet", in_channels=5, num_classes=3)


@pytest.mark.parametrize(
    ("change", "described"),
    [
        ({"architecture": "unetpp"}, "a unetpp of 1 channels and 3 classes"),
        ({"context": 1}, "a unet of 3 channels and 3 classes"),
        ({"classes": ("background", "lesion")}, "a unet of 1 channels and 2 classes"),
    ],
)
def test_a_network_of_another_card_is_refused(change: dict[str, object], described: str) -> None:
    message = f"m: model.json describes {described}, model.keras holds a unet of 1 channels and 3"
    with pytest.raises(ValueError, match=message):
        check_network(Path("m"), card(**change), architecture="unet", in_channels=1, num_classes=3)
