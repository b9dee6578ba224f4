import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from src.evaluation.overlap import MEAN_FOREGROUND, Counts, summarise
from src.evaluation.surface import assd_mm, hausdorff_mm, nsd, surface_distances
from src.evaluation.surface_scores import (
    SURFACE_QUANTITIES,
    SurfaceScores,
    patient_mean,
    summarise_surfaces,
    surface_scores,
)

CLASS_NAMES = ["background", "organ", "lesion"]
NAN = math.nan

# Organ 1 in truth and prediction, a pixel apart; lesion 2 in the truth alone.
TRUTH = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 2]], np.uint8)
PREDICTION = np.array([[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], np.uint8)

labels = hnp.arrays(np.uint8, (5, 7), elements=st.integers(0, 2))


def scores_of(hd95_mm, num_scored, num_one_empty):
    """Scores whose three quantities all have the values of the first."""
    values = np.array(hd95_mm, float)
    return SurfaceScores(values, values, values, np.array(num_scored), np.array(num_one_empty))


class TestSurfaceScores:
    def test_each_class_is_scored_by_itself(self):
        scores = surface_scores(TRUTH, PREDICTION, 3, spacing_mm=(5.0, 5.0), tolerance_mm=1.0)

        # Organ: one pixel of 5 mm apart; half of the four corners coincide. Lesion: the diagonal
        # of 15 by 20 mm.
        np.testing.assert_allclose(scores.hd95_mm, [NAN, 5.0, 25.0])
        np.testing.assert_allclose(scores.assd_mm, [NAN, 2.5, 25.0])
        np.testing.assert_allclose(scores.nsd, [NAN, 0.5, 0.0])
        assert scores.num_scored.tolist() == [0, 1, 1]
        assert scores.num_one_empty.tolist() == [0, 0, 1]

    def test_a_class_that_neither_mask_has_is_not_scored(self):
        scores = surface_scores(TRUTH, PREDICTION, 4, spacing_mm=(1.0, 1.0), tolerance_mm=1.0)

        for quantity in SURFACE_QUANTITIES:
            assert math.isnan(getattr(scores, quantity)[3])
        assert scores.num_scored[3] == scores.num_one_empty[3] == 0

    def test_a_volume_is_scored_as_one(self):
        truth, prediction = np.zeros((2, 4, 3, 3), np.uint8)
        truth[1, 1, 1] = prediction[2, 1, 1] = 1
        scores = surface_scores(truth, prediction, 2, spacing_mm=(5.0, 0.7, 0.7), tolerance_mm=1.0)

        assert scores.hd95_mm[1] == 5.0
        assert scores.num_one_empty[1] == 0

    @settings(max_examples=30, deadline=None)
    @given(labels, labels)
    def test_scores_are_read_from_the_distances(self, truth, prediction):
        scores = surface_scores(truth, prediction, 3, spacing_mm=(0.8, 1.5), tolerance_mm=2.0)

        found = surface_distances(truth == 2, prediction == 2, (0.8, 1.5))
        expected = [hausdorff_mm(found), assd_mm(found), nsd(found, 2.0)]
        values = [getattr(scores, quantity)[2] for quantity in SURFACE_QUANTITIES]
        np.testing.assert_array_equal(values, expected)

    def test_a_label_too_high_is_an_error(self):
        with pytest.raises(ValueError, match=r"truth must hold labels 0..1, got also \[2\]"):
            surface_scores(TRUTH, PREDICTION, 2, spacing_mm=(1.0, 1.0), tolerance_mm=1.0)

    def test_probabilities_are_an_error(self):
        with pytest.raises(TypeError, match="prediction must hold integer class indices"):
            surface_scores(TRUTH, PREDICTION * 0.5, 3, spacing_mm=(1.0, 1.0), tolerance_mm=1.0)


class TestPatientMean:
    def test_each_class_is_averaged_over_the_slices_that_are_scored(self):
        patient = patient_mean(
            [
                scores_of([NAN, 2.0, NAN], [0, 1, 0], [0, 0, 0]),
                scores_of([NAN, 4.0, 30.0], [0, 1, 1], [0, 0, 1]),
                scores_of([NAN, NAN, NAN], [0, 0, 0], [0, 0, 0]),
            ]
        )

        np.testing.assert_allclose(patient.hd95_mm, [NAN, 3.0, 30.0])
        np.testing.assert_allclose(patient.nsd, [NAN, 3.0, 30.0])
        assert patient.num_scored.tolist() == [0, 2, 1]
        assert patient.num_one_empty.tolist() == [0, 0, 1]

    def test_a_mean_weighs_as_many_slices_as_it_stands_for(self):
        slices = [scores_of([NAN, value], [0, 1], [0, 0]) for value in (1.0, 2.0, 6.0)]
        in_two_steps = patient_mean([patient_mean(slices[:2]), slices[2]])

        np.testing.assert_allclose(in_two_steps.hd95_mm, [NAN, 3.0])  # (1 + 2 + 6) / 3
        assert in_two_steps.num_scored.tolist() == [0, 3]

    def test_a_single_case_is_its_own_mean(self):
        scores = scores_of([NAN, 2.0, NAN], [0, 1, 0], [0, 0, 0])

        np.testing.assert_array_equal(patient_mean([scores]).assd_mm, scores.assd_mm)

    def test_no_case_is_an_error(self):
        with pytest.raises(ValueError, match=r"at least one case.*got 0 cases"):
            patient_mean([])

    def test_cases_of_different_classes_are_an_error(self):
        two, three = scores_of([NAN, 1.0], [0, 1], [0, 0]), scores_of([NAN] * 3, [0] * 3, [0] * 3)

        with pytest.raises(ValueError, match=r"2 cases of \[2, 3\] classes"):
            patient_mean([two, three])


class TestSummarise:
    # Patient A: organ 2 and 4 in two slices, lesion missed in the second (30). Patient B: organ 9.
    PATIENTS = {  # noqa: RUF012 - read only
        "A": [
            scores_of([NAN, 2.0, NAN], [0, 1, 0], [0, 0, 0]),
            scores_of([NAN, 4.0, 30.0], [0, 1, 1], [0, 0, 1]),
        ],
        "B": [scores_of([NAN, 9.0, NAN], [0, 1, 0], [0, 0, 0])],
    }

    def summary(self):
        return summarise_surfaces(self.PATIENTS, class_names=CLASS_NAMES, seed=0)

    @pytest.mark.parametrize("quantity", SURFACE_QUANTITIES)
    def test_the_headline_is_the_mean_over_patients(self, quantity):
        organ = self.summary().scores[quantity]["organ"]

        assert organ.patients.mean == pytest.approx(6.0)  # (3 + 9) / 2
        assert (organ.patients.low, organ.patients.high) == (3.0, 9.0)
        assert organ.slice_mean == pytest.approx(5.0)  # (2 + 4 + 9) / 3

    def test_a_patient_that_is_not_scored_is_left_out_and_counted(self):
        lesion = self.summary().scores["hd95_mm"]["lesion"].patients

        assert (lesion.mean, lesion.n, lesion.num_dropped) == (30.0, 1, 1)

    def test_the_foreground_is_averaged_within_a_patient_first(self):
        foreground = self.summary().scores["hd95_mm"][MEAN_FOREGROUND]

        assert foreground.patients.mean == pytest.approx(((3 + 30) / 2 + 9) / 2)
        assert foreground.slice_mean == pytest.approx((2 + (4 + 30) / 2 + 9) / 3)

    def test_scored_slices_and_those_with_one_mask_empty_are_counted(self):
        summary = self.summary()

        assert summary.num_scored == {"background": 0, "organ": 3, "lesion": 1, MEAN_FOREGROUND: 3}
        assert summary.num_one_empty == {
            "background": 0,
            "organ": 0,
            "lesion": 1,
            MEAN_FOREGROUND: 1,
        }

    def test_the_dictionary_is_json_grouped_by_quantity_and_class(self):
        numbers = json.loads(json.dumps(self.summary().to_dict(), allow_nan=False))

        assert numbers["hd95_mm"]["organ"] == pytest.approx(6.0)
        assert numbers["nsd_low"]["organ"] == 3.0
        assert numbers["assd_mm_slice_mean"]["organ"] == pytest.approx(5.0)
        assert numbers["num_one_empty_cases"]["lesion"] == 1
        assert numbers["num_surface_cases"]["organ"] == 3
        assert numbers["hd95_mm"]["background"] is None
        assert numbers["hd95_mm_high"]["lesion"] is None  # of one patient alone

    def test_its_groups_have_other_names_than_those_of_the_overlap(self):
        counts = [Counts(*np.ones((3, 3), np.int64))]
        overlaps = summarise(counts, counts, class_names=CLASS_NAMES, seed=0).to_dict()

        assert not overlaps.keys() & self.summary().to_dict().keys()
        assert overlaps["dice"].keys() == self.summary().to_dict()["nsd"].keys()

    def test_the_same_seed_gives_the_same_summary(self):
        assert self.summary().to_dict() == self.summary().to_dict()

    def test_the_names_of_patients_are_not_looked_at(self):
        listed = summarise_surfaces(self.PATIENTS.values(), class_names=CLASS_NAMES, seed=0)

        assert listed.to_dict() == self.summary().to_dict()

    def test_no_patient_is_an_error(self):
        with pytest.raises(ValueError, match="at least one patient to summarise, got 0"):
            summarise_surfaces({}, class_names=CLASS_NAMES, seed=0)

    def test_a_patient_without_a_slice_is_an_error(self):
        with pytest.raises(ValueError, match=r"at least one case.*got 0 cases"):
            summarise_surfaces({"A": []}, class_names=CLASS_NAMES, seed=0)

    def test_patients_of_different_classes_are_an_error(self):
        other = {"C": [scores_of([NAN, 1.0], [0, 1], [0, 0])]}

        with pytest.raises(ValueError, match="must name the 2 classes"):
            summarise_surfaces({**self.PATIENTS, **other}, class_names=CLASS_NAMES, seed=0)

    def test_too_few_class_names_is_an_error(self):
        with pytest.raises(ValueError, match=r"the 3 classes counted, got \['background'\]"):
            summarise_surfaces(self.PATIENTS, class_names=["background"], seed=0)
