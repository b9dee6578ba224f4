"""Charts: learning curves, and scores by patient."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.figures.style import DARK, STYLE, line_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
            becomes a line of "IoU by class", `validation/mean_iou` of "mean IoU"; any other name
            has a panel of its own.
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
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * columns, 3.0 * rows + 0.5), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (panel, keys) in zip(grid, panels.items(), strict=False):
            _draw_curves(axes, panel, {key: history[key] for key in keys}, class_names)
            axes.set_xlim(0.5, num_epochs + 0.5)
            if best_epoch is not None:
                axes.axvline(best_epoch, color=DARK, linewidth=1, linestyle=":")
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        handles = [
            Line2D([], [], color=DARK, linestyle="--", label="train"),
            Line2D([], [], color=DARK, linestyle="-", label="validation"),
        ]
        if best_epoch is not None:
            label = f"best epoch ({best_epoch})"
            handles.append(Line2D([], [], color=DARK, linestyle=":", label=label))
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
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(4.0, 1.9 * len(values) + 0.9), 4.6), layout="constrained")
        axes = figure.subplots()
        highest = 0.0
        for position, (name, numbers) in enumerate(values.items()):
            array = np.asarray(numbers, dtype=np.float64)
            scored = np.sort(array[~np.isnan(array)])
            colour = line_colour(name, class_names)
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


def _panel_of(key: str, class_names: Sequence[str]) -> str:
    """Return the title of the panel in which an entry of the history is drawn."""
    quantity, _, name = key.removeprefix("train/").removeprefix("validation/").rpartition("/")
    words = {"iou": "IoU", "dice": "Dice"}
    if quantity and name in class_names:
        return f"{words.get(quantity, quantity)} by class"
    if not quantity and name.startswith("mean_"):
        of = name.removeprefix("mean_")
        return f"mean {words.get(of, of)}"
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
            color=line_colour(name, class_names) if by_class else colour,
            linestyle="--" if split == "train" else "-",
            linewidth=1.2 if split == "train" else 1.8,
            marker="o" if len(numbers) < 10 else None,
            markersize=4,
        )
        if by_class and name not in named:
            named.add(name)
            axes.plot([], [], color=line_colour(name, class_names), label=name)
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
    axes.plot([x, x], [low, high], color=DARK, linewidth=1.8, solid_capstyle="butt")
    axes.plot([x], [mean], color=DARK, marker="D", markersize=6)


def _strip_label(name: str, mean: float, low: float, high: float, scored: int, total: int) -> str:
    """Return what stands below a strip."""
    number = "not scored" if np.isnan(mean) else f"{mean:.2f}"
    interval = "" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    left_out = f", {total - scored} not scored" if total > scored else ""
    return f"{name.replace('_', ' ')}\n{number}{interval}\nn = {scored}{left_out}"
