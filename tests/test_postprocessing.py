import numpy as np
import pytest

from src.postprocessing import (
    Postprocessing,
    choose,
    largest_component,
    majority,
    postprocess,
)

RING = [
    [1, 1, 1, 0, 1],
    [1, 0, 1, 0, 0],
    [1, 1, 1, 0, 0],
]


def mask(rows):
    return np.array(rows, np.uint8)


def test_without_steps_a_mask_stays():
    predicted = mask(RING)
    assert postprocess(predicted, Postprocessing()) is predicted
    assert not Postprocessing()


def test_of_a_class_only_the_largest_part_is_kept():
    found = postprocess(mask(RING), Postprocessing(largest_component=(1,)))
    assert found.tolist() == [[1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 0, 0]]


def test_a_hole_is_filled_and_a_bay_is_not():
    found = postprocess(mask([*RING, [0, 0, 0, 0, 0]]), Postprocessing(filled_holes=(1,)))
    assert found.tolist() == [[1, 1, 1, 0, 1], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0] * 5]
    bay = mask([[1, 1, 1], [1, 0, 1], [1, 0, 1]])
    np.testing.assert_array_equal(postprocess(bay, Postprocessing(filled_holes=(1,))), bay)


def test_another_class_inside_a_hole_stays():
    predicted = mask([[1, 1, 1, 1], [1, 2, 0, 1], [1, 1, 1, 1]])
    found = postprocess(predicted, Postprocessing(filled_holes=(1, 2)))
    assert found.tolist() == [[1, 1, 1, 1], [1, 2, 1, 1], [1, 1, 1, 1]]


def test_only_the_classes_named_are_touched_and_the_argument_is_not():
    predicted = mask([[1, 0, 1, 1], [2, 0, 2, 2]])
    before = predicted.copy()
    found = postprocess(predicted, Postprocessing(largest_component=(2,)))
    assert found.tolist() == [[1, 0, 1, 1], [0, 0, 2, 2]]
    np.testing.assert_array_equal(predicted, before)


def test_parts_are_connected_over_the_slices_of_a_scan():
    scan = np.zeros((3, 4, 4), np.uint8)
    scan[0, 0, 0] = scan[1, 1, 1] = scan[2, 2, 2] = 1  # they touch at corners: one part of 3
    scan[0, 3, 2:] = 1  # a part of 2, the largest of its slice
    found = postprocess(scan, Postprocessing(largest_component=(1,)))
    assert np.argwhere(found).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


def test_a_hole_of_a_scan_is_closed_on_all_sides():
    scan = np.ones((3, 3, 3), np.uint8)
    scan[1, 1, 1] = 0
    assert postprocess(scan, Postprocessing(filled_holes=(1,))).all()
    scan[2, 1, 1] = 0  # open at the end of the scan
    np.testing.assert_array_equal(postprocess(scan, Postprocessing(filled_holes=(1,))), scan)


def test_of_parts_of_one_size_the_first_is_kept_and_nothing_stays_nothing():
    assert largest_component(np.array([[1, 0, 1]], bool)).tolist() == [[True, False, False]]
    assert not largest_component(np.zeros((2, 2), bool)).any()
    steps = Postprocessing(largest_component=(1,), filled_holes=(1,))
    assert not postprocess(np.zeros((2, 2), np.uint8), steps).any()


def test_a_step_is_chosen_where_it_raises_the_dice_of_its_class():
    # Class 1 is predicted with a hole and a speck; class 2 in two parts, both right.
    truth = mask([[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 2, 0, 2], [1, 1, 1, 0, 0, 0, 0]])
    predicted = mask([[1, 1, 1, 0, 1, 0, 0], [1, 0, 1, 0, 2, 0, 2], [1, 1, 1, 0, 0, 0, 0]])
    found = choose([("a", truth, predicted)], num_classes=3)
    assert found.postprocessing == Postprocessing(largest_component=(1,), filled_holes=(1,))
    # Class 1: 8 of 9 hit and a speck, 16 / 18; without it 16 / 17; filled as well, 18 / 18.
    dice = {steps: round(values[1], 6) for steps, values in found.dice.items()}
    assert dice[False, False] == pytest.approx(16 / 18, abs=1e-6)
    assert dice[True, False] == pytest.approx(16 / 17, abs=1e-6)
    assert dice[False, True] == pytest.approx(18 / 19, abs=1e-6)
    assert dice[True, True] == 1


def test_a_step_that_changes_nothing_is_not_taken():
    whole = mask([[0, 1, 1], [0, 1, 1]])
    assert not choose([("a", whole, whole)], num_classes=2).postprocessing


def test_the_mean_over_patients_decides_not_that_over_scans():
    speck = mask([[1, 1, 0, 1]])
    without, with_it = mask([[1, 1, 0, 0]]), speck
    # Patient a, with three scans, gains by removing the speck; b and c lose by it.
    scans = [("a", without, speck)] * 3 + [("b", with_it, speck), ("c", with_it, speck)]
    found = choose(scans, num_classes=2)
    assert not found.postprocessing
    # Removed: a has 1, b and c 2 x 2 / (2 + 3) = 0.8; kept: a 0.8, b and c 1.
    assert found.dice[True, False][1] == pytest.approx((1 + 0.8 + 0.8) / 3)
    assert found.dice[False, False][1] == pytest.approx((0.8 + 1 + 1) / 3)


def test_a_class_that_no_patient_has_and_no_scans_at_all_choose_nothing():
    empty = np.zeros((2, 2), np.uint8)
    found = choose([("a", empty, empty)], num_classes=3)
    assert not found.postprocessing
    assert np.isnan(found.dice[True, True][1:]).all()
    assert not choose([], num_classes=3).postprocessing


def test_a_step_is_taken_where_more_than_half_of_the_models_chose_it():
    choices = [Postprocessing((1, 2), (2,)), Postprocessing((1,), ()), Postprocessing((), (2,))]
    assert majority(choices) == Postprocessing(largest_component=(1,), filled_holes=(2,))
    assert majority([*choices, Postprocessing()]) == Postprocessing()  # two of four are no majority
    assert majority([]) == Postprocessing()
