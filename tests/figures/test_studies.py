import numpy as np

from src import figures
from src.figures import StudyTrial
from src.figures.studies import short
from tests.figures.conftest import pixels_of, texts_of


def trial(number, value, state="complete", **point):
    return StudyTrial(number, state, value, {"train.learning_rate": 10.0 ** (number - 3), **point})


TRIALS = [
    trial(0, 0.5, architecture="unet", depth=2),
    trial(1, 0.7, architecture="unetpp", depth=3),
    trial(2, 0.2, "pruned", architecture="unet", depth=4),
    trial(3, 0.6, architecture="unetpp", depth=2),
]


def test_the_history_has_a_point_a_trial_and_the_best_so_far():
    (axes,) = figures.study_history(TRIALS, baseline=0.5).axes
    complete, pruned = (np.asarray(points.get_offsets()) for points in axes.collections)
    np.testing.assert_allclose(complete, [[0, 0.5], [1, 0.7], [3, 0.6]])
    np.testing.assert_allclose(pruned, [[2, 0.2]])
    best = axes.lines[0]
    np.testing.assert_allclose(best.get_ydata(), [0.5, 0.7, 0.7])
    assert axes.lines[1].get_ydata()[0] == 0.5
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("trial", "validation mean IoU")


def test_importances_are_ranked_from_the_top():
    (axes,) = figures.study_importances({"train.model.depth": 0.2, "architecture": 0.8}).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["depth", "architecture"]
    assert [bar.get_width() for bar in axes.patches] == [0.2, 0.8]


def test_too_few_trials_for_importances_are_told_of():
    assert "too few trials are complete" in texts_of(figures.study_importances({}))


def test_a_slice_has_a_panel_a_parameter_with_its_scale_and_words():
    axes = figures.study_slices(TRIALS, ["train.learning_rate"]).axes
    panels = {one.get_xlabel(): one for one in axes if one.get_xlabel()}
    assert list(panels) == ["learning rate", "architecture", "depth"]
    assert panels["learning rate"].get_xscale() == "log"
    words = [text.get_text() for text in panels["architecture"].get_xticklabels()]
    assert words == ["unet", "unetpp"]
    points = np.asarray(panels["architecture"].collections[0].get_offsets())
    np.testing.assert_allclose(points, [[0, 0.5], [1, 0.7], [1, 0.6]])


def test_parallel_coordinates_have_a_line_a_complete_trial_the_best_on_top():
    axes = figures.study_parallel(TRIALS, ["train.learning_rate"]).axes[0]
    lines = [line for line in axes.lines if len(line.get_ydata()) == 3]
    assert len(lines) == 3
    # The best, trial 1: a rate of 1e-2 between 1e-3 and 1 (a third), unetpp, the deepest.
    np.testing.assert_allclose(lines[-1].get_ydata(), [1 / 3, 1, 1])
    assert lines[-1].get_linewidth() > lines[0].get_linewidth()


def test_a_parameter_that_was_never_varied_is_drawn():
    same = [trial(0, 0.5, depth=2), trial(0, 0.6, depth=2)]
    for draw in (figures.study_slices, figures.study_parallel):
        assert pixels_of(draw(same, ["train.learning_rate"])).size


def test_names_are_short_on_an_axis():
    assert short("train.model.depth") == "depth"
    assert short("train.loss.name") == "loss"
    assert short("augmentation_strength") == "augmentation strength"
