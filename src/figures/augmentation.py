"""The contact sheet of augmented cases: people look, and see at once what a number hides."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.figures.style import STYLE, rgb

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def augmentation_sheet(
    rows: Sequence[Sequence[tuple[NDArray[np.floating[Any]], NDArray[np.integer]]]],
    *,
    num_classes: int,
    window: tuple[float, float],
) -> "Figure":
    """Draw cases beside what training makes of them, the truth outlined.

    Args:
        rows: A row a case: the slice as it is, then its changed versions, each an image (H, W) and
            its mask (H, W) of class indices; their sizes may differ. At least one row, all of the
            same number.
        num_classes: Number of classes, background included.
        window: Values shown black and white, in the unit of the images.

    Returns:
        The figure.

    Raises:
        ValueError: There is no case, or the rows differ in length.
    """
    import matplotlib
    from matplotlib.figure import Figure

    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"rows must be one or more, of one length above 0, got {sorted(lengths)}.")
    columns = lengths.pop()
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(2.2 * columns, 2.3 * len(rows) + 0.4), layout="constrained")
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes, row in zip(grid, rows, strict=True):
            for place, (panel, (image, mask)) in enumerate(zip(axes, row, strict=True)):
                panel.imshow(image, cmap="gray", vmin=window[0], vmax=window[1])
                panel.set_axis_off()
                for index in range(1, num_classes):
                    if (mask == index).any():
                        panel.contour(
                            mask == index, levels=[0.5], colors=[rgb(index) / 255], linewidths=1.1
                        )
                panel.set_title("as it is" if place == 0 else f"epoch {place}", fontsize=9)
        figure.suptitle("training cases and what augmentation makes of them")
    return figure
