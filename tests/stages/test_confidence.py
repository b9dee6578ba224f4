import math

import numpy as np
import pytest

from src.evaluation.uncertainty import CaseUncertainty
from src.stages.confidence import CalibrationTally, Doubt, of_class, worth


def test_calibration_is_tallied_over_all_pixels_and_over_the_ring() -> None:
    # Sure and right everywhere but at the two columns of the border, where it is 0.6 and right.
    truth = np.zeros((4, 40), np.uint8)
    truth[:, 20:] = 1
    confidence = np.ones((4, 40), np.float32)
    confidence[:, 19:21] = 0.6
    probabilities = np.where(
        truth[..., None] == np.arange(2), confidence[..., None], 1 - confidence[..., None]
    ).astype(np.float32)
    tally = CalibrationTally()
    for _ in range(2):
        tally.add(probabilities, probabilities, truth, (1.0, 5.0))
    found = tally.to_dict()
    # Pixels are 5 mm wide: the ring is the two columns and one more on either side.
    assert found["boundary"]["before"]["num_pixels"] == 2 * 4 * 4
    assert found["boundary"]["before"]["ece"] == pytest.approx(0.4 / 2, abs=1e-6)
    assert found["all_pixels"]["before"]["ece"] == pytest.approx(0.4 * 2 / 40, abs=1e-6)
    assert found["all_pixels"]["after"] == found["all_pixels"]["before"]
    assert found["boundary"]["before"]["bins"][0]["confidence"] is None  # no pixel there


def test_a_picture_of_one_class_has_an_empty_ring() -> None:
    truth = np.zeros((3, 3), np.uint8)
    certain = np.stack([np.ones((3, 3)), np.zeros((3, 3))], axis=-1).astype(np.float32)
    tally = CalibrationTally()
    tally.add(certain, certain, truth, (1.0, 1.0))
    ring = tally.to_dict()["boundary"]["before"]
    assert (ring["num_pixels"], ring["ece"], ring["nll"]) == (0, None, None)


def test_doubt_of_one_class_leaves_the_others_out() -> None:
    # Half organ, half background; lesion at 0.5 in one pixel.
    probabilities = np.zeros((2, 2, 3), np.float32)
    probabilities[...] = (0.5, 0.5, 0.0)
    probabilities[0, 0] = (0.25, 0.25, 0.5)
    assert of_class(probabilities, 2) == CaseUncertainty(pytest.approx(1.0), 1)


def test_only_the_making_of_an_item_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Made from 0 to 1 s and from 5 to 7 s, used in between; the end is found from 10 to 11 s.
    clock = iter([0.0, 1.0, 5.0, 7.0, 10.0, 11.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    doubt = Doubt(runs=1)
    assert list(doubt.timed("ab")) == ["a", "b"]
    assert doubt.seconds == 1.0 + 2.0 + 1.0


def test_patients_have_the_mean_over_the_pixels_of_all_their_slices() -> None:
    doubt = Doubt(1, {"a": CaseUncertainty(1.0, 1), "b": CaseUncertainty(0.0, 3)})
    doubt.cases["c"] = CaseUncertainty(0.0, 0)
    assert doubt.of_patients(["a", "b", "c"], ["P", "P", "Q"]) == {"P": 0.25, "Q": 0.0}


def test_the_worth_of_uncertainty_is_read_off_the_scored_cases() -> None:
    cases = ["a", "b", "c", "d"]
    unsure = (0.1, 0.2, 0.3, 0.9)
    doubt = Doubt(4, {c: CaseUncertainty(u, 1) for c, u in zip(cases, unsure, strict=True)})
    doubt.seconds = 2.0
    found = worth({"flips": doubt}, cases, np.array([1.0, 0.5, 0.25, math.nan]))["flips"]
    assert (found["samples"], found["cases"], found["seconds_per_slice"]) == (4, 3, 0.5)
    assert found["spearman"] == pytest.approx(1.0)
    # Errors 0, 0.5, 0.75 in the ideal order: risks 0, 0.25, 1.25 / 3.
    assert found["risk"] == pytest.approx([0.0, 0.25, 0.416667])
    assert found["aurc"] == found["aurc_ideal"] == pytest.approx(0.222222, abs=1e-6)
    assert found["aurc_random"] == pytest.approx(0.416667)


def test_without_a_scored_case_nothing_is_claimed() -> None:
    doubt = Doubt(1, {"a": CaseUncertainty(0.1, 1)})
    found = worth({"entropy": doubt}, ["a"], np.array([math.nan]))["entropy"]
    assert (found["aurc"], found["spearman"], found["risk"]) == (None, None, [])
