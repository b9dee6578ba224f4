"""What all figures share: colours, type and grid, and how they are written."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.files import whole_file

if TYPE_CHECKING:
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
DARK = "#333333"
STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "normal",
    "axes.edgecolor": "#888888",
    "axes.labelcolor": DARK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "xtick.color": DARK,
    "ytick.color": DARK,
    "text.color": DARK,
    "legend.frameon": False,
    "figure.titlesize": 13,
}


def rgb(class_index: int) -> NDArray[np.uint8]:
    """Return the (3,) colour of a foreground class."""
    return np.array(COLOURS[1 + (class_index - 1) % (len(COLOURS) - 1)][:3], np.uint8)


def line_colour(name: str, class_names: Sequence[str]) -> Any:
    """Return the colour of a class on white paper; grey for background and for means."""
    if name not in class_names[1:]:
        return "#666666"
    return tuple(rgb(list(class_names).index(name)) / 255)


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG; a file that stands there is replaced at once or not at all.

    Args:
        figure: What a function of this package returned.
        path: Ends in .png; missing folders are made.

    Raises:
        ValueError: If the path does not end in .png.
    """
    if path.suffix != ".png":
        raise ValueError(f"figures are written as PNG, got {path.name}. Let the name end in .png.")
    with whole_file(path) as aside:
        # Without the version of matplotlib inside, the same figure gives the same bytes.
        figure.savefig(aside, format="png", dpi=150, metadata={"Software": None})
