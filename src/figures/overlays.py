"""Image, truth and prediction side by side: for print with matplotlib, or as a quick small picture.

`overlay_picture` does without matplotlib, for the pictures taken during training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.figures.style import STYLE, rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FILL_OPACITY = 0.35


@dataclass(frozen=True, eq=False)
class OverlayCase:
    """One slice to be shown as image | truth | prediction.

    Attributes:
        image: (H, W) numbers, HU or any grey scale.
        truth: (H, W) integer class indices.
        prediction: (H, W) integer class indices.
        spacing_mm: Height and width of a pixel in mm.
        name: What stands over the image, a pseudonym: "P-3f9c1e2a slice 012".
        score: What stands beside the prediction, "lesion Dice 0.87"; may be empty.
        uncertainty: (H, W) from 0 to 1, a fourth panel of `overlay_picture`; None for none.
    """

    image: NDArray[Any]
    truth: NDArray[np.integer]
    prediction: NDArray[np.integer]
    spacing_mm: tuple[float, float]
    name: str
    score: str = ""
    uncertainty: NDArray[np.floating] | None = None


def overlay_sheet(
    cases: Sequence[OverlayCase],
    *,
    class_names: Sequence[str],
    window: tuple[float, float],
    title: str,
) -> "Figure":
    """Draw slices below each other, each as image | truth | prediction.

    Classes are filled and outlined in their colours. The third panel shows the errors: the truth
    is a dashed white outline, so what lies inside it without colour was missed, and colour outside
    it is false.

    Args:
        cases: At least one, for instance of the best, the median and the worst patient; their
            sizes may differ.
        class_names: Names of the classes, background first.
        window: Values of the images shown black and white, in their unit.
        title: One line over the sheet.

    Returns:
        The figure. Empty masks give panels without colour.

    Raises:
        ValueError: If there is no case, shapes differ, a label is out of range, an image is not
            finite, or spacing or window are not ascending positive ranges.
    """
    import matplotlib
    from matplotlib.figure import Figure

    _check_cases(cases, class_names, window)
    panel_inches = 3.4
    ratios = [_height_mm(case) / _width_mm(case) for case in cases]
    height = sum(panel_inches * ratio + 0.35 for ratio in ratios) + 0.9
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(3 * panel_inches + 0.3, height), layout="constrained")
        rows = figure.subplots(len(cases), 3, squeeze=False, height_ratios=ratios)
        for axes, case in zip(rows, cases, strict=True):
            _draw_row(axes, case, len(class_names), window)
        figure.suptitle(title)
        _class_legend(figure, class_names)
    return figure


def overlay_picture(
    cases: Sequence[OverlayCase],
    *,
    class_names: Sequence[str],
    window: tuple[float, float],
    heading: str,
) -> NDArray[np.uint8]:
    """Draw slices as one small picture, quickly: a row a case, image | truth | prediction.

    Where a case has an uncertainty, that is a fourth panel: black is sure, yellow is not.

    Made for the same fixed cases after every epoch. Panels are at least 256 pixels high, in true
    proportions; the same cases always give a picture of the same size. Characters should be ASCII.

    Args:
        cases: At least one; their sizes may differ.
        class_names: Names of the classes, background first.
        window: Values of the images shown black and white, in their unit.
        heading: What stands over the picture, "epoch 12".

    Returns:
        (height, width, 3) uint8, red, green, blue.

    Raises:
        ValueError: As `overlay_sheet`.
    """
    _check_cases(cases, class_names, window)
    rows = [_picture_row(case, len(class_names), window) for case in cases]
    width = max(row.shape[1] for row in rows)
    bar = np.full((30, width, 3), 30, np.uint8)
    left = 24 + _write(bar, heading, 6, size=0.5)
    for index in range(1, len(class_names)):
        if left + 40 > width:
            break  # the names that fit; the picture keeps the width of its panels
        bar[9:21, left : left + 12] = rgb(index)
        left = 16 + _write(bar, class_names[index], left + 18, size=0.45)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    return np.vstack([bar, *padded])


def _check_cases(
    cases: Sequence[OverlayCase], class_names: Sequence[str], window: tuple[float, float]
) -> None:
    """Refuse what cannot be drawn truthfully."""
    if not cases:
        raise ValueError("got no cases to draw, expected at least one. Check the split.")
    if not window[0] < window[1]:
        raise ValueError(f"window must be (low, high) with low < high, got {window}. Swap them.")
    for case in cases:
        if (
            case.image.ndim != 2
            or not case.truth.shape == case.image.shape == case.prediction.shape
        ):
            raise ValueError(
                f"image, truth and prediction of {case.name!r} must share one shape (H, W), got "
                f"{case.image.shape}, {case.truth.shape} and {case.prediction.shape}. "
                "Bring all three to the size of the image."
            )
        if case.uncertainty is not None and case.uncertainty.shape != case.image.shape:
            raise ValueError(
                f"uncertainty of {case.name!r} must have the shape {case.image.shape} of the "
                f"image, got {case.uncertainty.shape}."
            )
        if not np.isfinite(case.image).all():
            raise ValueError(
                f"image of {case.name!r} must be finite, got NaN or infinity. Run the audit stage."
            )
        if len(case.spacing_mm) != 2 or not min(case.spacing_mm) > 0:
            raise ValueError(
                f"spacing_mm of {case.name!r} must be two positive numbers (y, x), got "
                f"{case.spacing_mm}. Take them from the case table."
            )
        for role, labels in (("truth", case.truth), ("prediction", case.prediction)):
            _check_labels(f"{role} of {case.name!r}", labels, len(class_names))


def _check_labels(role: str, labels: NDArray[np.integer], num_classes: int) -> None:
    """Refuse labels that have no class, and so no colour."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(
            f"{role} must hold integer class indices, got dtype {labels.dtype}. "
            "Turn probabilities into classes with .argmax(axis=-1)."
        )
    outside = np.unique(labels[(labels < 0) | (labels >= num_classes)])
    if outside.size:
        raise ValueError(
            f"{role} must hold labels 0..{num_classes - 1}, got also {outside[:8].tolist()}. "
            "Name every class in class_names."
        )


def _height_mm(case: OverlayCase) -> float:
    return float(case.image.shape[0] * case.spacing_mm[0])


def _width_mm(case: OverlayCase) -> float:
    return float(case.image.shape[1] * case.spacing_mm[1])


def _greys(image: NDArray[Any], window: tuple[float, float]) -> NDArray[np.uint8]:
    """Return (H, W) grey values 0..255 of the image seen through a window."""
    low, high = window
    share = (np.clip(image, low, high).astype(np.float64) - low) / (high - low)
    greys: NDArray[np.uint8] = np.rint(share * 255).astype(np.uint8)
    return greys


def _draw_row(
    axes: Sequence["Axes"], case: OverlayCase, num_classes: int, window: tuple[float, float]
) -> None:
    """Draw the three panels of a case; axes are in mm, so that proportions are true."""
    extent = (0.0, _width_mm(case), _height_mm(case), 0.0)
    grey = _greys(case.image, window)
    for panel, (name, shown) in zip(
        axes,
        ((case.name, None), ("truth", case.truth), ("prediction", case.prediction)),
        strict=True,
    ):
        panel.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="nearest")
        panel.set_axis_off()
        panel.set_title(name)
        if shown is None:
            continue
        fill = np.zeros((*shown.shape, 4), np.uint8)
        for index in range(1, num_classes):
            fill[shown == index] = (*rgb(index), round(255 * _FILL_OPACITY))
            _contour(panel, shown == index, case.spacing_mm, colors=[rgb(index) / 255])
        panel.imshow(fill, extent=extent, interpolation="nearest")
    for index in range(1, num_classes):
        style = {"colors": "white", "linestyles": "dashed"}
        _contour(axes[2], case.truth == index, case.spacing_mm, **style)
    if case.score:
        axes[2].set_title(f"prediction, {case.score}")
    _scale_bar(axes[0], extent[1], extent[2])
    for panel in axes:  # outlines and bar must not widen what the image fills
        panel.set(xlim=extent[:2], ylim=extent[2:])


def _contour(
    axes: "Axes", mask: NDArray[np.bool_], spacing_mm: tuple[float, float], **style: Any
) -> None:
    """Outline a mask, along the border of the image too; nothing for an empty mask."""
    if not mask.any():
        return
    padded = np.pad(mask, 1).astype(np.float32)
    y_mm = (np.arange(padded.shape[0]) - 0.5) * spacing_mm[0]
    x_mm = (np.arange(padded.shape[1]) - 0.5) * spacing_mm[1]
    axes.contour(x_mm, y_mm, padded, levels=[0.5], linewidths=1.1, **style)


def _scale_bar(axes: "Axes", width_mm: float, height_mm: float) -> None:
    """Draw a white bar of a round length, at most a third of the width."""
    from matplotlib.patheffects import withStroke

    fitting = [length for length in (100, 50, 20, 10, 5, 2, 1) if length <= width_mm / 3]
    if not fitting:
        return
    left, y = 0.04 * width_mm, height_mm - 0.05 * width_mm
    seen: dict[str, Any] = {
        "color": "white",
        "path_effects": [withStroke(linewidth=3.5, foreground="black")],
    }
    axes.plot([left, left + fitting[0]], [y, y], linewidth=2, solid_capstyle="butt", **seen)
    axes.text(left, y - 0.02 * width_mm, f"{fitting[0]} mm", fontsize=9, va="bottom", **seen)


def _class_legend(figure: "Figure", class_names: Sequence[str]) -> None:
    """Name the colours below the panels."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(facecolor=(*rgb(index) / 255, 0.5), edgecolor=rgb(index) / 255)
        for index in range(1, len(class_names))
    ]
    # White dashes need a grey to stand on, as they have in the panel.
    dashes = Line2D([], [], color="white", linestyle=(0, (2.5, 1.5)), linewidth=1.4)
    handles.append((Patch(facecolor="#666666"), dashes))
    labels = [*class_names[1:], "outline of the truth"]
    columns = min(5, len(labels))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=2.6)


def _picture_row(
    case: OverlayCase, num_classes: int, window: tuple[float, float]
) -> NDArray[np.uint8]:
    """Return three captioned panels side by side as (height, width, 3) uint8."""
    import cv2

    scale = max(1.0, 256 / case.image.shape[0])
    height = round(case.image.shape[0] * scale)
    width = max(1, round(height * _width_mm(case) / _height_mm(case)))

    size = (width, height)
    grey = cv2.resize(_greys(case.image, window), size, interpolation=cv2.INTER_LINEAR)
    truth, prediction = (
        cv2.resize(labels.astype(np.int16), size, interpolation=cv2.INTER_NEAREST_EXACT)
        for labels in (case.truth, case.prediction)
    )
    dashes = np.add.outer(np.arange(height), np.arange(width)) % 8 < 5
    panels = []
    for name, shown in ((case.name, None), ("truth", truth), ("prediction", prediction)):
        panel = np.repeat(grey[..., np.newaxis], 3, axis=2)
        for index in range(1, num_classes) if shown is not None else ():
            inside = np.asarray(shown) == index
            mixed = (1 - _FILL_OPACITY) * panel[inside] + _FILL_OPACITY * rgb(index)
            panel[inside] = np.rint(mixed)
            panel[_border(inside)] = rgb(index)
        if shown is prediction:
            for index in range(1, num_classes):
                panel[_border(truth == index) & dashes] = 255
            name = f"prediction {case.score}".strip()
        bar = np.full((24, width, 3), 30, np.uint8)
        _write(bar, name, 6, size=0.45)
        panels += [np.vstack([bar, panel]), np.zeros((height + 24, 2, 3), np.uint8)]
    if case.uncertainty is not None:
        shown = cv2.resize(case.uncertainty.astype(np.float32), size)
        levels = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
        panel = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
        bar = np.full((24, width, 3), 30, np.uint8)
        _write(bar, "uncertainty", 6, size=0.45)
        panels += [np.vstack([bar, panel]), np.zeros((height + 24, 2, 3), np.uint8)]
    return np.hstack(panels[:-1])


def _border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a mask that touch its outside."""
    import cv2

    square = np.ones((3, 3), np.uint8)
    inner = cv2.erode(mask.astype(np.uint8), square, borderValue=0)
    border: NDArray[np.bool_] = mask & (inner == 0)
    return border


def _write(bar: NDArray[np.uint8], text: str, left: int, *, size: float) -> int:
    """Write a line of text into a bar in place, smaller where it would not fit; return its end."""
    import cv2

    font = cv2.FONT_HERSHEY_SIMPLEX
    room = bar.shape[1] - left - 4
    if room < 10:
        return left
    width = cv2.getTextSize(text, font, size, 1)[0][0]
    size = min(size, size * room / max(width, 1))
    (width, height), _ = cv2.getTextSize(text, font, size, 1)
    baseline = (bar.shape[0] + height) // 2
    cv2.putText(bar, text, (left, baseline), font, size, (235, 235, 235), 1, cv2.LINE_AA)
    return left + int(width)
