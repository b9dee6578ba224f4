from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.config import load_params
from src.data.arrays import Arrays
from src.inference import Segmenter, load_segmenter
from src.postprocessing import Postprocessing
from src.stages.trained_model import settled
from tests.tiny_models import CLASSES, NATIVE, save_threshold_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def threshold(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    """Says organ where a normalised value lies above 0, and lesion above 0.25."""
    found = load_segmenter(save_threshold_model(tmp_path_factory.mktemp("model")), "keras")
    assert isinstance(found, Segmenter)
    return found


def one_scan(*, speck: bool = True) -> Arrays:
    """An organ of four pixels that is found, and a speck that is none."""
    truth = np.zeros((4, 4), np.uint8)
    truth[:2, :2] = 1
    image = np.where(truth, 0.1, -0.4).astype(np.float16)
    if speck:
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
    assert found.card.calibration == ("fitted" if calibration else "off")
    if postprocessing or calibration:
        assert dice is not None
        assert dice[1] == pytest.approx(2 * 4 / (4 + 5))  # before the speck is removed
    else:
        assert dice is None


def test_a_temperature_at_a_limit_is_not_used_and_the_card_says_so(threshold: Segmenter) -> None:
    params = load_params(ROOT / "params.yaml")
    # No pixel is wrong: the surer the better, without end.
    found, _ = settled(params, threshold, one_scan(speck=False))
    assert (found.card.temperature, found.card.calibration) == (1.0, "at_limit")
