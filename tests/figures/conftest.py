"""A case to draw, and readers of what was drawn."""

import numpy as np
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
    """A sheet of one case."""
    return figures.overlay_sheet([case], class_names=class_names, window=window, title=title)


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
