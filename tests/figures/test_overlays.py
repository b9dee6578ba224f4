import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from src import figures
from src.figures import OverlayCase
from tests.figures.conftest import (
    CLASS_NAMES,
    ORANGE,
    SKY_BLUE,
    WINDOW,
    draw_overlay,
    draw_picture,
    is_grey,
    make_case,
    pixel_at,
    pixels_of,
)


class TestSheetOfOneCase:
    def test_three_panels_are_named_and_titled(self):
        figure = draw_overlay(make_case(), title="P-3f9c1e2a slice 012 - lesion Dice 0.87")

        assert [axes.get_title() for axes in figure.axes] == [
            "P-3f9c1e2a slice 012", "truth", "prediction, Dice 0.50",
        ]  # fmt: skip
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
            panel: np.array([pixel_at(figure, axes, 8, y) for y in range(18, 31)])
            for panel, axes in zip(("image", "truth", "prediction"), figure.axes, strict=True)
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


class TestSheetOfSeveralCases:
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

    def test_an_uncertainty_is_a_fourth_panel_from_black_to_yellow(self):
        case = make_case()
        unsure = np.zeros((64, 64), np.float32)
        unsure[32:] = 1.0
        panel = draw_picture(dataclasses.replace(case, uncertainty=unsure))[54:, 3 * 258 :]

        assert panel.shape == (256, 256, 3)
        assert panel[20].max() < 10
        red, green, blue = panel[230, 100]
        assert min(red, green) > 240 > 200 > blue

    def test_an_uncertainty_of_another_size_is_refused(self):
        case = dataclasses.replace(make_case(), uncertainty=np.zeros((8, 8), np.float32))

        with pytest.raises(ValueError, match=r"uncertainty of .* must have the shape"):
            draw_picture(case)

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
