import math
import subprocess
import sys

import cv2
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from src import figures
from src.figures import OverlayCase

CLASS_NAMES = ["background", "organ", "lesion"]
WINDOW = (-100.0, 100.0)
SKY_BLUE, ORANGE = np.array(figures.COLOURS[1][:3]), np.array(figures.COLOURS[2][:3])


def make_case(height=64, width=64, spacing_mm=(1.0, 1.0)):
    """A grey image of 0 HU; a lesion in the truth, and 8 columns further in the prediction."""
    truth = np.zeros((height, width), np.uint8)
    truth[16:32, 8:24] = 2
    prediction = np.roll(truth, 8, axis=1)
    image = np.zeros((height, width), np.float32)
    return OverlayCase(image, truth, prediction, spacing_mm, "P-3f9c1e2a slice 012", "Dice 0.50")


def draw_overlay(case, class_names=CLASS_NAMES, window=WINDOW, title="a title"):
    return figures.overlay(
        case.image,
        case.truth,
        case.prediction,
        class_names=class_names,
        spacing_mm=case.spacing_mm,
        window=window,
        title=title,
    )


def draw_picture(*cases, class_names=CLASS_NAMES, window=WINDOW):
    return figures.overlay_picture(cases, class_names=class_names, window=window, heading="epoch 3")


def pixels_of(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def pixel_at(figure, axes, x_mm, y_mm):
    """The colour of a drawn figure at a point of one of its panels."""
    rendered = pixels_of(figure)
    column, row = axes.transData.transform((x_mm, y_mm))
    return rendered[rendered.shape[0] - 1 - int(row), int(column)]


def is_grey(pixels):
    return (np.ptp(np.asarray(pixels, dtype=int), axis=-1) == 0).all()


def texts_of(figure):
    return [text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text"))]


class TestOverlay:
    def test_three_panels_are_named_and_titled(self):
        figure = draw_overlay(make_case(), title="P-3f9c1e2a slice 012 - lesion Dice 0.87")

        assert [axes.get_title() for axes in figure.axes] == ["image", "truth", "prediction"]
        assert figure.get_suptitle() == "P-3f9c1e2a slice 012 - lesion Dice 0.87"

    def test_the_legend_names_the_foreground_classes_and_the_dashes(self):
        legend = draw_overlay(make_case()).legends[0]

        names = [text.get_text() for text in legend.get_texts()]
        assert names == ["organ", "lesion", "outline of the truth"]

    def test_a_lesion_is_coloured_where_it_is_and_the_rest_is_grey(self):
        # Truth holds columns 8 to 23, the prediction 16 to 31: at 12 the lesion is missed, at 20
        # it is found, at 28 it is false, at 48 there is none.
        figure = draw_overlay(make_case())
        image, truth, prediction = figure.axes

        # Grey 128 under 35 % of orange (230, 159, 0): 0.65 * 128 + 0.35 * colour.
        coloured = 0.65 * 128 + 0.35 * ORANGE
        for axes, x_mm, expected in (
            (image, 12, 128),
            (image, 20, 128),
            (truth, 12, coloured),
            (truth, 28, 128),
            (prediction, 12, 128),
            (prediction, 20, coloured),
            (prediction, 28, coloured),
            (prediction, 48, 128),
        ):
            np.testing.assert_allclose(pixel_at(figure, axes, x_mm, 24), expected, atol=3)

    def test_the_truth_is_outlined_in_white_in_the_prediction_alone(self):
        figure = draw_overlay(make_case())
        # The left border of the truth, at x = 8 mm, y = 18 to 30 mm; nothing is predicted there.
        left_border = {
            axes.get_title(): np.array([pixel_at(figure, axes, 8, y) for y in range(18, 31)])
            for axes in figure.axes
        }

        assert (left_border["prediction"].min(axis=1) > 180).any()
        assert (left_border["prediction"].max(axis=1) < 180).any()  # dashed: with gaps
        assert not (left_border["truth"].min(axis=1) > 180).any()
        np.testing.assert_allclose(left_border["image"], 128, atol=1)

    def test_pixels_keep_their_proportions(self):
        # 64 rows of 3 mm by 64 columns of 1 mm: three times as high as wide.
        case = make_case(spacing_mm=(3.0, 1.0))
        figure = draw_overlay(case)
        pixels_of(figure)

        box = figure.axes[1].get_window_extent()
        assert box.height / box.width == pytest.approx(3.0, rel=0.01)

    def test_panels_are_of_one_size(self):
        figure = draw_overlay(make_case(height=50, width=70))
        pixels_of(figure)

        sizes = [axes.get_window_extent().size for axes in figure.axes]
        np.testing.assert_allclose(sizes[1:], [sizes[0], sizes[0]], rtol=1e-3)

    def test_empty_masks_give_three_grey_panels(self):
        empty = np.zeros((64, 64), np.uint8)
        case = OverlayCase(make_case().image, empty, empty, (1.0, 1.0), "P-1")
        figure = draw_overlay(case)

        for axes in figure.axes:
            np.testing.assert_allclose(pixel_at(figure, axes, 20, 24), 128, atol=1)

    def test_a_mask_that_fills_the_image_is_coloured_to_its_edge(self):
        full = np.full((64, 64), 1, np.uint8)
        figure = draw_overlay(OverlayCase(make_case().image, full, full, (1.0, 1.0), "P-1"))

        red, _, blue = pixel_at(figure, figure.axes[1], 63, 32)
        assert blue > red + 30  # sky blue (86, 180, 233)

    def test_a_single_class_needs_no_other(self):
        truth = (make_case().truth > 0).astype(np.uint8)
        case = OverlayCase(make_case().image, truth, truth, (1.0, 1.0), "P-1")
        figure = draw_overlay(case, class_names=["background", "lesion"])

        assert not is_grey(pixel_at(figure, figure.axes[1], 12, 24))

    def test_more_classes_than_colours_begin_again(self):
        num_foreground = len(figures.COLOURS) - 1
        names = ["background", *(f"class {i}" for i in range(1, num_foreground + 2))]
        last = make_case().truth // 2 * (num_foreground + 1)
        case = OverlayCase(make_case().image, last, last, (1.0, 1.0), "P-1")
        figure = draw_overlay(case, class_names=names)

        expected = 0.65 * 128 + 0.35 * SKY_BLUE
        np.testing.assert_allclose(pixel_at(figure, figure.axes[1], 12, 24), expected, atol=3)

    def test_the_window_decides_what_is_black_and_white(self):
        case = make_case()
        case.image[40:, :20], case.image[40:, 20:40], case.image[40:, 40:] = -1000, 50, 3000
        figure = draw_overlay(case)
        truth = figure.axes[1]

        shades = [pixel_at(figure, truth, x_mm, 50)[0] for x_mm in (10, 30, 60)]
        assert shades == [0, 191, 255]  # (50 + 100) / 200 * 255 = 191

    def test_drawing_leaves_no_figure_open(self):
        draw_overlay(make_case())
        from matplotlib import pyplot

        assert pyplot.get_fignums() == []


class TestOverlaySheet:
    def test_each_case_is_a_row_with_its_name_and_score(self):
        cases = [make_case(), make_case(40, 90), make_case(spacing_mm=(2.0, 0.5))]
        figure = figures.overlay_sheet(cases, class_names=CLASS_NAMES, window=WINDOW, title="unet")

        assert [axes.get_title() for axes in figure.axes] == [
            "P-3f9c1e2a slice 012",
            "truth",
            "prediction, Dice 0.50",
        ] * 3
        assert len(figure.legends) == 1

    def test_no_text_of_the_sheet_is_cut_off(self):
        cases = [make_case(), make_case(40, 90)]
        figure = figures.overlay_sheet(cases, class_names=CLASS_NAMES, window=WINDOW, title="unet")
        pixels_of(figure)

        width, height = figure.canvas.get_width_height()
        for artist in (*figure.legends, *(axes.title for axes in figure.axes), *figure.texts):
            box = artist.get_window_extent()
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= width
            assert box.y1 <= height

    def test_no_case_is_an_error(self):
        with pytest.raises(ValueError, match="got no cases to draw"):
            figures.overlay_sheet([], class_names=CLASS_NAMES, window=WINDOW, title="unet")


class TestOverlayPicture:
    def test_a_small_case_is_enlarged_to_256_rows(self):
        # A heading of 30 rows, a caption of 24, the panels; two gaps of 2 columns between three.
        picture = draw_picture(make_case())

        assert picture.shape == (30 + 24 + 256, 3 * 256 + 2 * 2, 3)
        assert picture.dtype == np.uint8

    def test_a_big_case_keeps_its_size(self):
        assert draw_picture(make_case(300, 280)).shape == (30 + 24 + 300, 3 * 280 + 2 * 2, 3)

    def test_pixels_keep_their_proportions(self):
        # 64 mm high and 64 * 0.5 = 32 mm wide: panels of 256 x 128.
        assert draw_picture(make_case(spacing_mm=(1.0, 0.5))).shape[1] == 3 * 128 + 2 * 2

    def test_cases_of_different_sizes_are_rows_of_one_picture(self):
        picture = draw_picture(make_case(), make_case(300, 280))

        assert picture.shape == (30 + 24 + 256 + 24 + 300, 3 * 280 + 2 * 2, 3)

    def test_a_lesion_is_coloured_where_it_is_and_the_rest_is_grey(self):
        # Enlarged by 4: row 24 of the case is row 96 of a panel, below 54 rows of text.
        picture = draw_picture(make_case())
        image, truth, prediction = (picture[54:, start : start + 256] for start in (0, 258, 516))
        coloured = np.rint(0.65 * 128 + 0.35 * ORANGE)

        assert (image == 128).all()
        np.testing.assert_array_equal(truth[96, 12 * 4], coloured)
        np.testing.assert_array_equal(truth[96, 28 * 4], [128] * 3)
        np.testing.assert_array_equal(prediction[96, 12 * 4], [128] * 3)  # missed
        np.testing.assert_array_equal(prediction[96, 20 * 4], coloured)  # found
        np.testing.assert_array_equal(prediction[96, 28 * 4], coloured)  # false
        assert is_grey(truth[200:])

    def test_outlines_are_drawn_in_full_colour_and_the_truth_dashed(self):
        picture = draw_picture(make_case())
        truth, prediction = picture[54:, 258:514], picture[54:, 516:]

        # The left border of the truth is column 8 * 4, rows 16 * 4 to 32 * 4.
        assert (truth[64:128, 32] == ORANGE).all()
        dashed = (prediction[64:128, 32] == 255).all(axis=1)
        assert dashed.mean() == pytest.approx(5 / 8, abs=0.05)

    def test_empty_masks_give_grey_panels(self):
        empty = np.zeros((64, 64), np.uint8)
        picture = draw_picture(OverlayCase(make_case().image, empty, empty, (1.0, 1.0), "P-1"))

        assert is_grey(picture[54:])

    def test_a_caption_too_long_for_its_panel_stays_within_it(self):
        case = make_case()
        long = OverlayCase(
            case.image, case.truth, case.prediction, (1.0, 1.0), "a long name " * 9, ""
        )
        caption = draw_picture(long)[30:54]

        assert caption[:, :256].max() > 100  # written
        assert (caption[:, 256:258] == 0).all()  # the gap beside it is clean

    def test_a_panel_too_narrow_for_any_text_is_drawn_without(self):
        thin = make_case(spacing_mm=(10.0, 0.1))

        assert draw_picture(thin).shape == (30 + 24 + 256, 3 * 3 + 2 * 2, 3)

    def test_the_picture_leaves_the_case_as_it_was(self):
        case = make_case()
        before = case.image.copy(), case.truth.copy(), case.prediction.copy()
        draw_picture(case)

        for now, then in zip((case.image, case.truth, case.prediction), before, strict=True):
            np.testing.assert_array_equal(now, then)

    def test_the_picture_is_drawn_without_matplotlib(self):
        program = (
            "import sys, numpy as np; from src.figures import *\n"
            "m = np.zeros((8, 8), int)\n"
            "case = OverlayCase(m, m, m, (1, 1), 'P-1')\n"
            "overlay_picture([case], class_names=['b', 'l'], window=(0, 1), heading='')\n"
            "sys.exit('matplotlib' in sys.modules)"
        )

        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


class TestRefusals:
    @pytest.mark.parametrize("draw", [draw_overlay, draw_picture])
    @pytest.mark.parametrize("label", [3, 255])
    def test_a_label_without_a_class_is_an_error(self, draw, label):
        case = make_case()
        case.prediction[0, 0] = label

        with pytest.raises(
            ValueError, match=rf"prediction of .* labels 0..2, got also \[{label}\]"
        ):
            draw(case)

    def test_probabilities_in_place_of_labels_are_an_error(self):
        case = make_case()
        soft = case.prediction.astype(np.float32)

        with pytest.raises(TypeError, match="integer class indices, got dtype float32"):
            draw_picture(OverlayCase(case.image, case.truth, soft, (1.0, 1.0), "P-1"))

    def test_a_prediction_of_another_size_is_an_error(self):
        case = make_case()
        small = case.prediction[:32]

        with pytest.raises(
            ValueError, match=r"share one shape.*\(64, 64\), \(64, 64\) and \(32, 64\)"
        ):
            draw_picture(OverlayCase(case.image, case.truth, small, (1.0, 1.0), "P-1"))

    def test_a_colour_image_is_an_error(self):
        colour = np.zeros((8, 8, 3), np.uint8)

        with pytest.raises(ValueError, match=r"one shape \(H, W\)"):
            draw_picture(OverlayCase(colour, colour, colour, (1.0, 1.0), "P-1"))

    def test_an_image_with_nan_is_an_error(self):
        case = make_case()
        case.image[0, 0] = np.nan

        with pytest.raises(ValueError, match="must be finite"):
            draw_picture(case)

    @pytest.mark.parametrize("spacing_mm", [(0.0, 1.0), (1.0, -1.0), (1.0, 1.0, 1.0)])
    def test_a_spacing_that_is_not_two_positive_numbers_is_an_error(self, spacing_mm):
        with pytest.raises(ValueError, match=r"spacing_mm of .* two positive numbers"):
            draw_picture(make_case(spacing_mm=spacing_mm))

    def test_a_window_upside_down_is_an_error(self):
        with pytest.raises(ValueError, match=r"low < high, got \(240, -160\)"):
            draw_picture(make_case(), window=(240, -160))


class TestLearningCurves:
    HISTORY = {  # noqa: RUF012 - read only
        "train/loss": [0.9, 0.5, 0.3],
        "validation/loss": [1.0, 0.6, 0.5],
        "train/accuracy": [0.8, 0.9, 0.95],
        "validation/accuracy": [0.7, 0.85, 0.9],
        "validation/iou/mean_foreground": [0.1, 0.4, 0.5],
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


class TestSave:
    def test_a_png_is_written_and_nothing_beside_it(self, tmp_path):
        path = tmp_path / "figures" / "overlay.png"
        figure = draw_overlay(make_case())
        figures.save(figure, path)

        height, width = np.rint(figure.get_size_inches()[::-1] * 150)
        assert cv2.imread(str(path)).shape[:2] == pytest.approx((height, width), abs=1)
        assert [file.name for file in path.parent.iterdir()] == ["overlay.png"]

    def test_the_same_figure_gives_the_same_bytes(self, tmp_path):
        for name in ("one.png", "two.png"):
            figures.save(draw_overlay(make_case()), tmp_path / name)

        assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()

    def test_a_failure_leaves_the_old_file_and_no_rest(self, tmp_path):
        path = tmp_path / "overlay.png"
        path.write_bytes(b"old")
        figure = draw_overlay(make_case(), title="$\\unknown_command$")

        with pytest.raises(ValueError, match="unknown_command"):
            figures.save(figure, path)
        assert path.read_bytes() == b"old"
        assert [file.name for file in tmp_path.iterdir()] == ["overlay.png"]

    def test_another_ending_is_an_error(self, tmp_path):
        with pytest.raises(ValueError, match=r"as PNG, got overlay.jpg"):
            figures.save(draw_overlay(make_case()), tmp_path / "overlay.jpg")
