import math

import numpy as np
import pytest

from src import figures
from tests.figures.conftest import CLASS_NAMES, ORANGE, pixels_of, texts_of


class TestLearningCurves:
    HISTORY = {  # noqa: RUF012 - read only
        "train/loss": [0.9, 0.5, 0.3],
        "validation/loss": [1.0, 0.6, 0.5],
        "train/accuracy": [0.8, 0.9, 0.95],
        "validation/accuracy": [0.7, 0.85, 0.9],
        "train/mean_iou": [0.2, 0.5, 0.6],
        "validation/mean_iou": [0.1, 0.4, 0.5],
        "train/iou/lesion": [0.2, 0.4, 0.6],
        "validation/iou/background": [0.9, 0.95, 0.97],
        "validation/iou/lesion": [math.nan, 0.3, 0.4],
        "learning_rate": [1e-3, 1e-3, 1e-4],
    }

    def draw(self, history=None, best_epoch=2):
        return figures.learning_curves(
            self.HISTORY if history is None else history,
            class_names=CLASS_NAMES,
            best_epoch=best_epoch,
        )

    def panels(self, figure):
        return {axes.get_title(): axes for axes in figure.axes if axes.get_title()}

    def test_each_quantity_has_a_panel_over_epochs(self):
        panels = self.panels(self.draw())

        assert list(panels) == ["loss", "accuracy", "mean IoU", "IoU by class", "learning rate"]
        assert {axes.get_xlabel() for axes in panels.values()} == {"epoch"}
        assert all(axes.get_ylabel() for axes in panels.values())

    def test_train_is_dashed_and_validation_solid_from_epoch_1(self):
        train, validation = self.panels(self.draw(best_epoch=None))["loss"].lines

        assert (train.get_linestyle(), validation.get_linestyle()) == ("--", "-")
        assert list(train.get_xdata()) == [1, 2, 3]
        assert list(validation.get_ydata()) == [1.0, 0.6, 0.5]

    def test_classes_have_the_colours_of_the_overlays_and_are_named_once(self):
        axes = self.panels(self.draw())["IoU by class"]

        names = [text.get_text() for text in axes.get_legend().get_texts()]
        assert names == ["lesion", "background"]
        np.testing.assert_allclose(axes.lines[0].get_color(), ORANGE / 255)

    def test_the_best_epoch_is_marked_in_every_panel_and_named(self):
        figure = self.draw(best_epoch=2)

        for axes in self.panels(figure).values():
            assert list(axes.lines[-1].get_xdata()) == [2, 2]
        assert "best epoch (2)" in texts_of(figure)

    def test_without_a_best_epoch_none_is_marked(self):
        assert not any("best epoch" in text for text in texts_of(self.draw(best_epoch=None)))

    def test_the_mean_iou_of_training_and_validation_share_a_panel_from_0_to_1(self):
        axes = self.panels(self.draw(best_epoch=None))["mean IoU"]

        assert [list(line.get_ydata()) for line in axes.lines] == [[0.2, 0.5, 0.6], [0.1, 0.4, 0.5]]
        assert axes.get_ylabel() == "mean IoU"
        assert axes.get_ylim() == (-0.03, 1.03)

    def test_the_learning_rate_has_a_logarithmic_axis(self):
        assert self.panels(self.draw())["learning rate"].get_yscale() == "log"

    def test_any_other_quantity_has_a_panel_of_its_own(self):
        figure = self.draw({"seconds": [9.0, 8.0], "system/memory_mb": [5.0, 6.0]})

        assert list(self.panels(figure)) == ["seconds", "system memory mb"]
        assert figure.axes[0].get_ylabel() == "time (s)"

    def test_a_single_epoch_is_drawn_as_points(self):
        figure = self.draw({"train/loss": [0.9]}, best_epoch=1)

        assert figure.axes[0].lines[0].get_marker() == "o"
        assert pixels_of(figure).std() > 0

    def test_no_epoch_is_an_error(self):
        with pytest.raises(ValueError, match=r"at least one epoch, got \{'train/loss': 0\}"):
            self.draw({"train/loss": []})

    def test_lengths_that_differ_are_an_error(self):
        with pytest.raises(ValueError, match=r"one number an epoch, got .*Fill missing"):
            self.draw({"train/loss": [1.0, 2.0], "validation/loss": [1.0]})

    @pytest.mark.parametrize("best_epoch", [0, 4])
    def test_a_best_epoch_that_was_not_run_is_an_error(self, best_epoch):
        with pytest.raises(ValueError, match=rf"must be in 1..3, got {best_epoch}"):
            self.draw(best_epoch=best_epoch)


class TestPatientScores:
    def draw(self, values, intervals, quantity="Dice"):
        return figures.patient_scores(values, intervals, class_names=CLASS_NAMES, quantity=quantity)

    def test_each_class_is_named_with_its_mean_interval_and_numbers(self):
        figure = self.draw(
            {"lesion": [0.5, math.nan, 0.9], "mean_foreground": [0.6, 0.7, 0.8]},
            {"lesion": (0.7, 0.5, 0.9), "mean_foreground": (0.7, 0.6, 0.8)},
        )

        assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [
            "lesion\n0.70 [0.50, 0.90]\nn = 2, 1 not scored",
            "mean foreground\n0.70 [0.60, 0.80]\nn = 3",
        ]

    def test_every_scored_patient_is_a_point(self):
        figure = self.draw({"lesion": [0.5, math.nan, 0.9, 0.5]}, {"lesion": (0.63, 0.5, 0.9)})

        points = figure.axes[0].collections[0].get_offsets()
        assert sorted(points[:, 1]) == [0.5, 0.5, 0.9]
        assert len(set(points[:, 0])) == 3  # equal values stand side by side

    def test_a_class_that_nobody_has_keeps_its_place_empty(self):
        nothing = (math.nan, math.nan, math.nan)
        figure = self.draw({"lesion": [math.nan, math.nan]}, {"lesion": nothing})

        assert figure.axes[0].get_xticklabels()[0].get_text() == (
            "lesion\nnot scored\nn = 0, 2 not scored"
        )
        assert pixels_of(figure).std() > 0

    def test_a_share_is_drawn_from_0_to_1_and_a_distance_as_far_as_it_goes(self):
        share = self.draw({"lesion": [0.5, 0.6]}, {"lesion": (0.55, 0.5, 0.6)})
        distance = self.draw({"lesion": [5, 60]}, {"lesion": (32.5, 5, 60)}, "HD95 (mm)")

        assert share.axes[0].get_ylim() == (-0.03, 1.03)
        assert distance.axes[0].get_ylim()[0] == 0
        assert distance.axes[0].get_ylim()[1] > 60
        assert distance.axes[0].get_ylabel() == "HD95 (mm)"

    def test_a_class_without_an_interval_is_an_error(self):
        with pytest.raises(ValueError, match=r"same classes.*\['lesion'\] and \['organ'\]"):
            self.draw({"lesion": [0.5]}, {"organ": (0.5, 0.4, 0.6)})
