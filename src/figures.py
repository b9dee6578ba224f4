"""Every picture the project draws: overlays, learning curves and scores by patient.

The only importer of matplotlib, and that inside the functions that draw: figures are objects of
their own, never pyplot's, so nothing stays open after a long run and no display is needed.
`overlay_picture` does without matplotlib, for the pictures taken during training.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008: told apart by people with any colour blindness, on grey and on white. Red,
# green, blue and opacity in 0..255, by class index; after the last the foreground begins again.
COLOURS: tuple[tuple[int, int, int, int], ...] = (
    (0, 0, 0, 0),  # background: transparent
    (86, 180, 233, 255),  # sky blue
    (230, 159, 0, 255),  # orange
    (0, 158, 115, 255),  # bluish green
    (204, 121, 167, 255),  # reddish purple
    (213, 94, 0, 255),  # vermilion
    (0, 114, 178, 255),  # blue
    (240, 228, 66, 255),  # yellow
)
PANELS = ("image", "truth", "prediction")

_FILL_OPACITY = 0.35
_DARK = "#333333"
_STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "normal",
    "axes.edgecolor": "#888888",
    "axes.labelcolor": _DARK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "xtick.color": _DARK,
    "ytick.color": _DARK,
    "text.color": _DARK,
    "legend.frameon": False,
    "figure.titlesize": 13,
}


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
    """

    image: NDArray[Any]
    truth: NDArray[np.integer]
    prediction: NDArray[np.integer]
    spacing_mm: tuple[float, float]
    name: str
    score: str = ""


def overlay(
    image: NDArray[Any],
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    *,
    class_names: Sequence[str],
    spacing_mm: tuple[float, float],
    window: tuple[float, float],
    title: str,
) -> "Figure":
    """Draw one slice as image | truth | prediction.

    Classes are filled and outlined in their colours. The third panel shows the errors: the truth
    is a dashed white outline, so what lies inside it without colour was missed, and colour outside
    it is false.

    Args:
        image: (H, W) numbers, HU or any grey scale.
        truth: (H, W) integer class indices.
        prediction: (H, W) integer class indices.
        class_names: Names of the classes, background first.
        spacing_mm: Height and width of a pixel in mm.
        window: Values of the image shown black and white, in its unit.
        title: One line, "P-3f9c1e2a slice 012 - lesion Dice 0.87".

    Returns:
        The figure. Empty masks give panels without colour.

    Raises:
        ValueError: If shapes differ, a label is out of range, the image is not finite, or spacing
            or window are not ascending positive ranges.
    """
    case = OverlayCase(image, truth, prediction, spacing_mm, name=PANELS[0])
    return overlay_sheet([case], class_names=class_names, window=window, title=title)


def overlay_sheet(
    cases: Sequence[OverlayCase],
    *,
    class_names: Sequence[str],
    window: tuple[float, float],
    title: str,
) -> "Figure":
    """Draw several slices below each other, each as image | truth | prediction.

    Args:
        cases: At least one, for instance of the best, the median and the worst patient; their
            sizes may differ.
        class_names: Names of the classes, background first.
        window: Values of the images shown black and white, in their unit.
        title: One line over the sheet.

    Returns:
        The figure.

    Raises:
        ValueError: As `overlay`, and without a case.
    """
    import matplotlib
    from matplotlib.figure import Figure

    _check_cases(cases, class_names, window)
    panel_inches = 3.4
    ratios = [_height_mm(case) / _width_mm(case) for case in cases]
    height = sum(panel_inches * ratio + 0.35 for ratio in ratios) + 0.9
    with matplotlib.rc_context({**_STYLE, "axes.grid": False}):
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
        ValueError: As `overlay`, and without a case.
    """
    _check_cases(cases, class_names, window)
    rows = [_picture_row(case, len(class_names), window) for case in cases]
    width = max(row.shape[1] for row in rows)
    bar = np.full((30, width, 3), 30, np.uint8)
    left = 24 + _write(bar, heading, 6, size=0.5)
    for index in range(1, len(class_names)):
        if left + 40 > width:
            break  # the names that fit; the picture keeps the width of its panels
        bar[9:21, left : left + 12] = _rgb(index)
        left = 16 + _write(bar, class_names[index], left + 18, size=0.45)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    return np.vstack([bar, *padded])


def learning_curves(
    history: Mapping[str, Sequence[float]],
    *,
    class_names: Sequence[str],
    best_epoch: int | None,
) -> "Figure":
    """Draw what was recorded at each epoch, one panel a quantity.

    Args:
        history: Name -> one number an epoch, all of the same length; NaN leaves a gap.
            `train/loss` and `validation/loss` share the panel "loss"; `validation/iou/lesion`
            becomes a line of "IoU by class", `validation/iou/mean_foreground` of "mean IoU"; any
            other name has a panel of its own.
        class_names: Names of the classes, background first, for their colours.
        best_epoch: The epoch whose weights were kept, from 1; None marks none.

    Returns:
        The figure. Train is dashed, validation solid.

    Raises:
        ValueError: If the history is empty, its lengths differ or best_epoch is not within it.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    num_epochs = _check_history(history, best_epoch)
    panels: dict[str, list[str]] = {}
    for key in history:
        panels.setdefault(_panel_of(key, class_names), []).append(key)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.2 * columns, 3.0 * rows + 0.5), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (panel, keys) in zip(grid, panels.items(), strict=False):
            _draw_curves(axes, panel, {key: history[key] for key in keys}, class_names)
            axes.set_xlim(0.5, num_epochs + 0.5)
            if best_epoch is not None:
                axes.axvline(best_epoch, color=_DARK, linewidth=1, linestyle=":")
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        handles = [
            Line2D([], [], color=_DARK, linestyle="--", label="train"),
            Line2D([], [], color=_DARK, linestyle="-", label="validation"),
        ]
        if best_epoch is not None:
            label = f"best epoch ({best_epoch})"
            handles.append(Line2D([], [], color=_DARK, linestyle=":", label=label))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def patient_scores(
    values: Mapping[str, ArrayLike],
    intervals: Mapping[str, tuple[float, float, float]],
    *,
    class_names: Sequence[str],
    quantity: str,
) -> "Figure":
    """Draw one point a patient for each class, a box, and the mean with its interval.

    Args:
        values: Class name (or `mean_foreground`) -> (N,) one number a patient, NaN where the class
            is not scored; those are counted below the axis.
        intervals: Class name -> mean and lower and upper end of its interval; NaN is not drawn.
        class_names: Names of the classes, background first, for their colours.
        quantity: Label of the axis with its unit, "Dice" or "HD95 (mm)".

    Returns:
        The figure. A class without a scored patient keeps its place, empty.

    Raises:
        ValueError: If there is no class, or values and intervals are of different classes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if not values or set(values) != set(intervals):
        raise ValueError(
            f"values and intervals must be of the same classes, at least one, got {list(values)} "
            f"and {list(intervals)}. Pass an interval for each class drawn."
        )
    labels = []
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(max(4.0, 1.9 * len(values) + 0.9), 4.6), layout="constrained")
        axes = figure.subplots()
        highest = 0.0
        for position, (name, numbers) in enumerate(values.items()):
            array = np.asarray(numbers, dtype=np.float64)
            scored = np.sort(array[~np.isnan(array)])
            colour = _line_colour(name, class_names)
            mean, low, high = intervals[name]
            _draw_strip(axes, position, scored, colour)
            _draw_mean(axes, position, mean, low, high)
            labels.append(_strip_label(name, mean, low, high, scored.size, array.size))
            highest = max(highest, scored.max(initial=0.0))
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlim(-0.6, len(labels) - 0.4)
        axes.set_ylabel(quantity)
        axes.grid(axis="x", visible=False)
        if highest <= 1.0:
            axes.set_ylim(-0.03, 1.03)
        else:
            axes.set_ylim(bottom=0)
        figure.suptitle(f"{quantity} by patient\nwith mean and 95 % interval", fontsize=11)
    return figure


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG; a file that stands there is replaced at once or not at all.

    Args:
        figure: What a function of this module returned.
        path: Ends in .png; missing folders are made.

    Raises:
        ValueError: If the path does not end in .png.
    """
    if path.suffix != ".png":
        raise ValueError(f"figures are written as PNG, got {path.name}. Let the name end in .png.")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # Without the version of matplotlib inside, the same figure gives the same bytes.
        figure.savefig(aside, format="png", dpi=150, metadata={"Software": None})
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


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


def _check_history(history: Mapping[str, Sequence[float]], best_epoch: int | None) -> int:
    """Return the number of epochs of a history that can be drawn."""
    lengths = {key: len(numbers) for key, numbers in history.items()}
    if not lengths or 0 in lengths.values():
        raise ValueError(f"history must hold at least one epoch, got {lengths}. Train first.")
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"every entry of the history must have one number an epoch, got {lengths}. "
            "Fill missing epochs with NaN."
        )
    num_epochs = next(iter(lengths.values()))
    if best_epoch is not None and not 1 <= best_epoch <= num_epochs:
        raise ValueError(
            f"best_epoch must be in 1..{num_epochs}, got {best_epoch}. Count epochs from 1."
        )
    return num_epochs


def _height_mm(case: OverlayCase) -> float:
    return float(case.image.shape[0] * case.spacing_mm[0])


def _width_mm(case: OverlayCase) -> float:
    return float(case.image.shape[1] * case.spacing_mm[1])


def _rgb(class_index: int) -> NDArray[np.uint8]:
    """Return the (3,) colour of a foreground class."""
    return np.array(COLOURS[1 + (class_index - 1) % (len(COLOURS) - 1)][:3], np.uint8)


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
            fill[shown == index] = (*_rgb(index), round(255 * _FILL_OPACITY))
            _contour(panel, shown == index, case.spacing_mm, colors=[_rgb(index) / 255])
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
        Patch(facecolor=(*_rgb(index) / 255, 0.5), edgecolor=_rgb(index) / 255)
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
        cv2.resize(labels.astype(np.int16), size, interpolation=cv2.INTER_NEAREST)
        for labels in (case.truth, case.prediction)
    )
    dashes = np.add.outer(np.arange(height), np.arange(width)) % 8 < 5
    panels = []
    for name, shown in ((case.name, None), ("truth", truth), ("prediction", prediction)):
        panel = np.repeat(grey[..., np.newaxis], 3, axis=2)
        for index in range(1, num_classes) if shown is not None else ():
            inside = np.asarray(shown) == index
            mixed = (1 - _FILL_OPACITY) * panel[inside] + _FILL_OPACITY * _rgb(index)
            panel[inside] = np.rint(mixed)
            panel[_border(inside)] = _rgb(index)
        if shown is prediction:
            for index in range(1, num_classes):
                panel[_border(truth == index) & dashes] = 255
            name = f"prediction {case.score}".strip()
        bar = np.full((24, width, 3), 30, np.uint8)
        _write(bar, name, 6, size=0.45)
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


def _panel_of(key: str, class_names: Sequence[str]) -> str:
    """Return the title of the panel in which an entry of the history is drawn."""
    quantity, _, name = key.removeprefix("train/").removeprefix("validation/").rpartition("/")
    words = {"iou": "IoU", "dice": "Dice"}.get(quantity, quantity)
    if quantity and name in class_names:
        return f"{words} by class"
    if quantity and name.startswith("mean"):
        return f"mean {words}"
    return f"{quantity} {name}".strip().replace("_", " ")


def _draw_curves(
    axes: "Axes", panel: str, curves: Mapping[str, Sequence[float]], class_names: Sequence[str]
) -> None:
    """Draw the lines of one panel: classes in their colours, else validation blue, train grey."""
    from matplotlib.ticker import MaxNLocator

    by_class = panel.endswith(" by class")
    named: set[str] = set()
    for key, numbers in curves.items():
        split, name = key.partition("/")[0], key.rpartition("/")[2]
        colour = {"train": "#888888", "validation": "#0072b2"}.get(split, "#009e73")
        axes.plot(
            range(1, len(numbers) + 1),
            numbers,
            color=_line_colour(name, class_names) if by_class else colour,
            linestyle="--" if split == "train" else "-",
            linewidth=1.2 if split == "train" else 1.8,
            marker="o" if len(numbers) < 10 else None,
            markersize=4,
        )
        if by_class and name not in named:
            named.add(name)
            axes.plot([], [], color=_line_colour(name, class_names), label=name)
    if panel == "learning rate" and min(min(numbers) for numbers in curves.values()) > 0:
        axes.set_yscale("log")
    if panel in ("mean IoU", "IoU by class", "mean Dice", "Dice by class"):
        axes.set_ylim(-0.03, 1.03)
    labels = {"accuracy": "share of pixels", "seconds": "time (s)", "learning rate": "step size"}
    axes.set_ylabel(labels.get(panel, panel.removesuffix(" by class")))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(panel)
    if by_class:
        axes.legend(fontsize=9)


def _line_colour(name: str, class_names: Sequence[str]) -> Any:
    """Return the colour of a class on white paper; grey for background and for means."""
    if name not in class_names[1:]:
        return "#666666"
    return tuple(_rgb(list(class_names).index(name)) / 255)


def _draw_strip(axes: "Axes", position: int, scored: NDArray[np.float64], colour: Any) -> None:
    """Draw sorted values as points over a box; nothing when there are none."""
    if not scored.size:
        return
    line = {"color": colour, "linewidth": 1.2}
    axes.boxplot(
        scored,
        positions=[position],
        widths=0.5,
        showfliers=False,
        manage_ticks=False,
        patch_artist=True,
        boxprops={"facecolor": "none", "edgecolor": colour, "linewidth": 1.2},
        medianprops=line,
        whiskerprops=line,
        capprops=line,
    )
    # Neighbours in value stand apart by the golden ratio: no two on one spot, and no chance in it.
    aside = (np.arange(scored.size) * 0.618034) % 1 - 0.5
    axes.scatter(
        position - 0.02 + 0.36 * aside, scored, s=20, color=colour, alpha=0.65, linewidths=0
    )


def _draw_mean(axes: "Axes", position: int, mean: float, low: float, high: float) -> None:
    """Draw a mean and its interval beside the box."""
    x = position + 0.36
    axes.plot([x, x], [low, high], color=_DARK, linewidth=1.8, solid_capstyle="butt")
    axes.plot([x], [mean], color=_DARK, marker="D", markersize=6)


def _strip_label(name: str, mean: float, low: float, high: float, scored: int, total: int) -> str:
    """Return what stands below a strip."""
    number = "not scored" if np.isnan(mean) else f"{mean:.2f}"
    interval = "" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    left_out = f", {total - scored} not scored" if total > scored else ""
    return f"{name.replace('_', ' ')}\n{number}{interval}\nn = {scored}{left_out}"
