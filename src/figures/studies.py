"""Pictures of a study: its history, and what its parameters had to do with the value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from src.figures.style import COLOURS, DARK, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VALUE = "validation mean IoU"
_BLUE, _ORANGE = (tuple(part / 255 for part in COLOURS[index][:3]) for index in (6, 2))
_STYLES: dict[str, dict[str, Any]] = {
    "complete": {"color": _BLUE, "marker": "o"},
    "pruned": {"color": "#999999", "marker": "x"},
}


@dataclass(frozen=True)
class StudyTrial:
    """A trial as it is drawn.

    Attributes:
        number: Its place on the axis.
        state: "complete" or "pruned"; others are not drawn.
        value: The higher the better; of a pruned trial, that of its last epoch.
        point: Name of a parameter -> number, word or None.
    """

    number: int
    state: str
    value: float
    point: Mapping[str, Any]


def study_history(trials: Sequence[StudyTrial], *, baseline: float | None) -> "Figure":
    """Draw the value of each trial in the order they were begun, and the best so far.

    Args:
        trials: In any order; may be empty.
        baseline: Value of the parameters that the study began with; None draws no line.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 4.2), layout="constrained")
        axes = figure.subplots()
        _scatter(axes, trials, lambda trial: trial.number)
        done = sorted((t for t in trials if t.state == "complete"), key=lambda t: t.number)
        if done:
            best = np.maximum.accumulate([trial.value for trial in done])
            numbers = [trial.number for trial in done]
            axes.step(numbers, best, where="post", color=_ORANGE, label="best so far", zorder=1)
        if baseline is not None:
            axes.axhline(
                baseline, color=DARK, linestyle=":", linewidth=1, label="present parameters"
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("trial")
        axes.set_ylabel(VALUE)
        figure.legend(loc="outside lower center", ncols=4)
    return figure


def study_importances(importances: Mapping[str, float]) -> "Figure":
    """Draw the share of the differences among trials that each parameter explains.

    Args:
        importances: Name -> share in [0, 1]; may be empty.
    """
    import matplotlib
    from matplotlib.figure import Figure

    ranked = sorted(importances.items(), key=lambda item: item[1])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 0.45 * max(3, len(ranked)) + 1.2), layout="constrained")
        axes = figure.subplots()
        bars = axes.barh([short(name) for name, _ in ranked], [s for _, s in ranked], color=_BLUE)
        axes.bar_label(bars, fmt="%.2f", padding=3, color=DARK)
        axes.set_xlim(0, 1.08)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"share of the differences in {VALUE} that it explains")
        if not ranked:
            axes.set_title("too few trials are complete")
    return figure


def study_slices(trials: Sequence[StudyTrial], logarithmic: Sequence[str]) -> "Figure":
    """Draw the value over each parameter, one panel a parameter.

    Args:
        trials: In any order.
        logarithmic: Names of parameters with a logarithmic axis.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = _names(trials)
    columns = min(3, max(1, len(names)))
    rows = max(1, -(-len(names) // columns))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.0 * columns, 3.0 * rows + 0.4), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for axes, name in zip(grid, names, strict=False):
            places, ticks = _places(trials, name)
            _scatter(axes, trials, lambda trial, at=places, name=name: at(trial.point.get(name)))
            axes.set_xlabel(short(name))
            if ticks:
                axes.set_xticks(range(len(ticks)), ticks)
                axes.set_xlim(-0.5, len(ticks) - 0.5)
            elif name in logarithmic:
                axes.set_xscale("log")
            elif all(isinstance(trial.point.get(name), int) for trial in trials):
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in grid[len(names) :]:
            axes.set_axis_off()
        for row in range(rows):
            grid[row * columns].set_ylabel(VALUE)
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def study_parallel(trials: Sequence[StudyTrial], logarithmic: Sequence[str]) -> "Figure":
    """Draw each complete trial as a line through its parameters, coloured by its value.

    Args:
        trials: In any order.
        logarithmic: Names of parameters whose logarithm is drawn.
    """
    import matplotlib
    from matplotlib.figure import Figure

    done = sorted((t for t in trials if t.state == "complete"), key=lambda t: t.value)
    names = _names(done)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(6.0, 1.6 * len(names) + 2), 4.8), layout="constrained")
        axes = figure.subplots()
        axes.grid(visible=False)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-0.08, 1.08)
        heights = {name: _heights(axes, place, done, name, name in logarithmic)
                   for place, name in enumerate(names)}  # fmt: skip
        axes.set_xticks(range(len(names)), [short(name) for name in names], rotation=20, ha="right")
        values = [trial.value for trial in done] or [0.0, 1.0]
        norm = matplotlib.colors.Normalize(min(values), max(values))
        shades: Any = matplotlib.cm.ScalarMappable(norm, "viridis_r")
        for trial in done:  # the best last, on top
            line = [heights[name](trial.point.get(name)) for name in names]
            best = trial is done[-1]
            axes.plot(line, color=shades.to_rgba(trial.value), linewidth=2.5 if best else 1.2,
                      alpha=1.0 if best else 0.7)  # fmt: skip
        figure.colorbar(shades, ax=axes, label=VALUE)
    return figure


def short(name: str) -> str:
    """The name of a parameter for an axis: train.model.depth -> depth, train.loss.name -> loss."""
    parts = name.split(".")
    return " ".join(parts[-2:-1] if parts[-1] == "name" and len(parts) > 1 else parts[-1:]).replace(
        "_", " "
    )


def _names(trials: Sequence[StudyTrial]) -> list[str]:
    return list(dict.fromkeys(name for trial in trials for name in trial.point))


def _scatter(axes: "Axes", trials: Sequence[StudyTrial], place: Any) -> None:
    for state, style in _STYLES.items():
        some = [trial for trial in trials if trial.state == state]
        where = [place(trial) for trial in some]
        axes.scatter(where, [trial.value for trial in some], s=28, label=state, **style)


def _places(trials: Sequence[StudyTrial], name: str) -> tuple[Any, list[str]]:
    """How values become places on an axis, and the ticks of one that holds words."""
    values = [trial.point[name] for trial in trials if name in trial.point]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return (lambda value: np.nan if value is None else value), []
    words = sorted({str(value) for value in values})
    return (lambda value: words.index(str(value))), [word.replace("_", "\n") for word in words]


def _heights(
    axes: "Axes", place: int, trials: Sequence[StudyTrial], name: str, logarithmic: bool
) -> Any:
    """Draws one upright axis; returns how values become heights from 0 to 1 on it."""
    where, words = _places(trials, name)
    values = [trial.point[name] for trial in trials if name in trial.point]
    scale = np.log if logarithmic and not words else float
    numbers = [scale(where(value)) for value in values]
    low, high = min(numbers), max(numbers)
    span = high - low

    def height(value: Any) -> float:
        return float((scale(where(value)) - low) / span) if span else 0.5

    axes.axvline(place, color="#888888", linewidth=0.8)
    for value in dict.fromkeys(values) if words else {min(values), max(values)}:
        text = str(value).replace("_", "\n") if words else f"{value:.3g}"
        axes.annotate(
            text, (place, height(value)), xytext=(4, 0), textcoords="offset points",
            fontsize=9, va="center", zorder=5,
            bbox={"facecolor": "white", "alpha": 0.9, "lw": 0, "pad": 1},
        )  # fmt: skip
    return height
