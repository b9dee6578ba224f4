"""Charts of how far a model can be trusted: reliability, risk against coverage, Dice by stratum."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from src.figures.style import DARK, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _GREY, _ORANGE, _GREEN = "#0072b2", "#888888", "#e69f00", "#009e73"
_REGIONS = {"all_pixels": "all pixels", "boundary": "within 5 mm of a boundary"}
_WAYS = {
    "entropy": "entropy",
    "dropout": "entropy of dropout runs",
    "dropout_disagreement": "disagreement of dropout runs",
    "flips": "entropy of flips",
    "flips_disagreement": "disagreement of flips",
}


def reliability_diagram(calibration: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """Draw the share of right pixels against confidence, before and after temperature scaling.

    Args:
        calibration: "all_pixels" and "boundary" -> "before" and "after" -> ece and bins, each with
            confidence, accuracy (None where no pixel fell) and count.

    Returns:
        The figure: a panel a region; the area of a point is the share of its bin.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 4.6), layout="constrained")
        for axes, (region, title) in zip(figure.subplots(1, 2), _REGIONS.items(), strict=True):
            axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle=":")
            for state, colour in (("before", _GREY), ("after", _BLUE)):
                _draw_bins(axes, calibration[region][state], state, colour)
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=title)
            axes.set_xlabel("confidence")
            axes.set_ylabel("share of pixels that are right")
            axes.legend(fontsize=9, loc="upper left")
        figure.suptitle("Reliability on the test side, before and after temperature scaling")
    return figure


def _draw_bins(axes: "Axes", numbers: Mapping[str, Any], state: str, colour: str) -> None:
    filled = [one for one in numbers["bins"] if one["count"]]
    if not filled:
        return
    most = max(one["count"] for one in filled)
    x = [one["confidence"] for one in filled]
    y = [one["accuracy"] for one in filled]
    label = f"{state}: ECE {numbers['ece']:.3f}"
    axes.plot(x, y, color=colour, linewidth=1.5, label=label)
    areas = [12 + 90 * one["count"] / most for one in filled]
    axes.scatter(x, y, s=areas, color=colour, alpha=0.6, linewidths=0)


def risk_coverage_curves(asked: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """Draw the mean error of the slices that remain when the least sure ones are set aside.

    Args:
        asked: Way of asking -> coverage, risk, aurc, aurc_ideal, aurc_random (None without a case).

    Returns:
        The figure; empty but for its axes where no slice is scored.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        axes = figure.subplots()
        random = ideal = None
        for way, found in asked.items():
            if found["aurc"] is None:
                continue
            random, ideal = found["aurc_random"], found["aurc_ideal"]
            label = f"{_WAYS.get(way, way)}: AURC {found['aurc']:.3f}"
            kind = way.removesuffix("_disagreement")
            colour = {"dropout": _ORANGE, "flips": _GREEN}.get(kind, _BLUE)
            line = "--" if kind != way else "-"
            curve = (found["coverage"], found["risk"])
            axes.plot(*curve, color=colour, linewidth=1.8, linestyle=line, label=label)
        if random is not None:
            axes.axhline(random, color=_GREY, linewidth=1, linestyle=":")
            words = f"no order: {random:.3f}; ideal order: AURC {ideal:.3f}"
            axes.plot([], [], color=_GREY, linewidth=1, linestyle=":", label=words)
            figure.legend(fontsize=9, loc="outside lower center", ncols=2)
        axes.set_xlabel("share of slices kept, the surest first")
        axes.set_ylabel("mean of 1 - Dice of the slices kept")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(bottom=0)
        figure.suptitle("Does uncertainty find the errors?", fontsize=11)
    return figure


def dice_by_stratum(strata: Mapping[str, Any]) -> "Figure":
    """Draw the mean Dice of slices by the size of the class, and by source where one is told.

    Args:
        strata: class; by_size and by_source, each a list of name, slices, patients, mean, low,
            high (None where there is no interval).

    Returns:
        The figure; a panel without a stratum says so.
    """
    import matplotlib
    from matplotlib.figure import Figure

    panels = {"by_size": "by size in the slice"}
    if not strata["by_source"] or any(row["name"] for row in strata["by_source"]):
        panels["by_source"] = "by source"
    with matplotlib.rc_context(STYLE):
        rows = max(1, *(len(strata[key]) for key in panels))
        size = (4.6 * len(panels), 1.6 + 0.5 * rows)
        figure = Figure(figsize=size, layout="constrained")
        every = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (key, title) in zip(every, panels.items(), strict=True):
            _draw_strata(axes, strata[key])
            axes.set_title(title)
        figure.suptitle(f"{strata['class']} Dice of slices, mean over patients", fontsize=11)
    return figure


def _draw_strata(axes: "Axes", rows: Sequence[Mapping[str, Any]]) -> None:
    shown = [row for row in rows if row["mean"] is not None]
    places = range(len(shown), 0, -1)
    for place, row in zip(places, shown, strict=True):
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [place] * 2, color=DARK, linewidth=1.6)
        axes.plot(row["mean"], place, color=_BLUE, marker="D", markersize=6)
    names = [f"{row['name'] or 'unknown'}\n{row['slices']} slices, {row['patients']} patients"
             for row in shown]  # fmt: skip
    axes.set_yticks(list(places), names, fontsize=8)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(0.4, len(shown) + 0.6)
    axes.set_xlabel("Dice")
    axes.grid(axis="y", visible=False)
    if not shown:
        axes.text(0.5, 0.5, "no slice is scored", ha="center", transform=axes.transAxes)
