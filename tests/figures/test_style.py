import cv2
import numpy as np
import pytest

from src import figures
from tests.figures.conftest import draw_overlay, make_case


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
