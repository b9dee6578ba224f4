from collections import Counter

import numpy as np
import pandas as pd
import pytest

from src.data.arrays import Arrays
from src.data.preprocessing import Preprocessing
from src.data.sampling import Sampling, classes_held, place_view, plan_epoch

EVERY_SLICE = Sampling(patch_size=None, foreground=0.0, cases_per_epoch=None)
ROWS = np.arange(10, 20)
# Of ten slices, six hold class 1 and one, row 17, holds class 2.
HELD = np.ones((10, 3), bool)
HELD[6:, 1] = False
HELD[:, 2] = False
HELD[7, 2] = True


def plan(sampling, seed=0, epoch=0, held=HELD):
    return plan_epoch(ROWS, held, sampling, seed=seed, epoch=epoch)


def test_without_foreground_every_slice_comes_once_in_an_order_of_seed_and_epoch():
    orders = [
        tuple(plan(EVERY_SLICE, seed, epoch).rows.tolist())
        for seed, epoch in ((1, 2), (1, 3), (2, 2))
    ]
    assert all(sorted(order) == ROWS.tolist() for order in orders)
    assert len(set(orders)) == 3
    assert orders[0] == tuple(plan(EVERY_SLICE, 1, 2).rows.tolist())
    assert not plan(EVERY_SLICE).classes.any()


def test_more_cases_than_slices_show_each_slice_again_before_any_a_third_time():
    counts = Counter(plan(Sampling(None, 0.0, 25)).rows.tolist())
    assert sum(counts.values()) == 25
    assert set(counts.values()) == {2, 3}


def test_fewer_cases_than_slices_show_none_twice():
    assert len(set(plan(Sampling(None, 0.0, 7)).rows.tolist())) == 7


@pytest.mark.parametrize(("share", "number"), [(0.25, 25), (0.33, 33), (0.5, 50), (1.0, 100)])
def test_the_share_of_foreground_cases_is_met_and_spread_evenly(share, number):
    found = plan(Sampling((16, 16), share, 100)).classes > 0
    assert found.sum() == number
    batches = found.reshape(-1, 4).sum(axis=1)
    assert batches.max() - batches.min() <= 1


def test_a_rare_class_is_drawn_as_often_as_a_common_one():
    found = plan(Sampling((16, 16), 0.5, 200))
    assert Counter(found.classes.tolist()) == {0: 100, 1: 50, 2: 50}
    assert set(found.rows[found.classes == 2].tolist()) == {17}
    assert set(found.rows[found.classes == 1].tolist()) == set(range(10, 16))


def test_the_same_seed_and_epoch_give_the_same_plan_and_others_another():
    sampling = Sampling((16, 16), 0.5, 50)
    first, again = plan(sampling, 3, 4), plan(sampling, 3, 4)
    np.testing.assert_array_equal(first.rows, again.rows)
    np.testing.assert_array_equal(first.classes, again.classes)
    for seed, epoch in [(3, 5), (4, 4)]:
        assert not np.array_equal(first.rows, plan(sampling, seed, epoch).rows)


def test_foreground_where_there_is_none_is_refused():
    with pytest.raises(ValueError, match=r"no training slice holds foreground.*is 0.5"):
        plan(Sampling(None, 0.5, None), held=HELD & np.array([True, False, False]))


def test_no_slice_is_refused():
    with pytest.raises(ValueError, match="at least one training slice, got none"):
        plan_epoch(np.array([], int), HELD[:0], EVERY_SLICE, seed=0, epoch=0)


def test_the_classes_of_each_slice_are_found():
    masks = np.array([0, 0, 0, 1, 2, 2, 1, 1], np.uint8)
    index = pd.DataFrame({"offset": [0, 2, 4], "height": [1, 1, 2], "width": [2, 2, 2]})
    settings = Preprocessing(0, 1, 0, 1, "native", (16, 16), 1)
    arrays = Arrays(masks.astype(np.float16), masks, index, settings, ("a", "b", "c"))
    assert classes_held(arrays, np.array([2, 0, 1])).tolist() == [
        [False, True, True],
        [True, False, False],
        [True, True, False],
    ]


def views(mask, wanted, patch_size, number=200):
    random = np.random.default_rng(0)
    return [place_view(mask, wanted, patch_size, random) for _ in range(number)]


def test_without_patches_the_whole_slice_is_shown():
    [view] = views(np.zeros((5, 9), np.uint8), 0, None, 1)
    assert (view.top, view.left, view.height, view.width) == (0, 0, 5, 9)
    assert view.anchor == (2, 4)


def test_patches_lie_anywhere_in_the_slice_and_nowhere_else():
    found = {(view.top, view.left) for view in views(np.zeros((6, 9), np.uint8), 0, (4, 8))}
    assert found == {(top, left) for top in (0, 1, 2) for left in (0, 1)}


def test_a_patch_larger_than_the_slice_has_it_in_its_middle():
    mask = np.zeros((6, 9), np.uint8)
    mask[0, 0] = 1
    for wanted in (0, 1):
        [view] = views(mask, wanted, (10, 16), 1)
        assert (view.top, view.left) == (-2, -3)  # 4 rows too many, 7 columns


@pytest.mark.parametrize("pixel", [(50, 40), (0, 0), (99, 79)])
def test_a_foreground_patch_holds_the_pixel_and_has_it_as_anchor(pixel):
    mask = np.zeros((100, 80), np.uint8)
    mask[pixel] = 2
    found = views(mask, 2, (16, 24))
    for view in found:
        assert (view.top + view.anchor[0], view.left + view.anchor[1]) == pixel
        assert 0 <= view.anchor[0] < 16
        assert 0 <= view.anchor[1] < 24
        assert 0 <= view.top <= 84
        assert 0 <= view.left <= 56
    if pixel == (50, 40):  # far from the edges: the central half, all of it
        assert {view.anchor[0] for view in found} == set(range(4, 12))
        assert {view.anchor[1] for view in found} == set(range(6, 18))


def test_every_pixel_of_the_class_is_chosen():
    mask = np.zeros((20, 20), np.uint8)
    mask[8, 8:12] = 1
    found = {view.left + view.anchor[1] for view in views(mask, 1, (4, 4))}
    assert found == {8, 9, 10, 11}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"foreground": 1.5}, "foreground must be from 0 to 1, got 1.5"),
        ({"foreground": -0.1}, "foreground must be from 0 to 1, got -0.1"),
        ({"cases_per_epoch": 0}, "cases_per_epoch must be at least 1, got 0"),
        ({"patch_size": (0, 16)}, r"patch_size must be at least 1 x 1, got \[0, 16\]"),
    ],
)
def test_a_value_out_of_range_is_refused(change, message):
    values = {"patch_size": None, "foreground": 0.0, "cases_per_epoch": None}
    with pytest.raises(ValueError, match=message):
        Sampling(**(values | change))
