"""Stage `prepare`: windowed, sized, normalised, memory-mapped arrays in prepared/arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src import terminal
from src.config import Params, load_params
from src.data.arrays import Preprocessing, window_limits, write_arrays
from src.data.cases import read_cases
from src.data.masks import class_indices
from src.data.readers import PictureScale, read_image_slice, read_mask_slice
from src.files import whole_folder

if TYPE_CHECKING:
    import pandas as pd


def prepare(
    data: Path,
    cases: pd.DataFrame,
    params: Params,
    folder: Path,
    tick: Callable[[], None] = lambda: None,
) -> Preprocessing:
    """Writes the arrays of all slices.

    Args:
        data: The folder data/.
        cases: The case table with the column subset.
        params: All parameters; `data` and `prepare` are used.
        folder: Becomes the folder of arrays, whole or not at all.
        tick: Called after every slice.

    Returns:
        What was done to the slices, fitted on the training side alone.
    """
    pictures = PictureScale(**params.data.pictures.model_dump())

    def images(rows: pd.DataFrame) -> Iterator[NDArray[np.float32]]:
        for row in rows.itertuples():
            yield read_image_slice(data, row.image_path, row.slice, pictures)

    def slices() -> Iterator[tuple[NDArray[Any], NDArray[np.uint8]]]:
        for row in cases.itertuples():
            image = read_image_slice(data, row.image_path, row.slice, pictures)
            labels = read_mask_slice(data, row.mask_path, row.slice, row.image_path)
            yield image, class_indices(labels, params.data.labels, params.data.classes)
            tick()

    training = cases[cases["subset"] == "train"]
    window = window_limits(params.prepare.window.model_dump(), lambda: images(training))
    with whole_folder(folder) as aside:
        return write_arrays(
            aside,
            cases,
            slices(),
            window=window,
            size_mode=params.prepare.size_mode,
            size=params.prepare.size,
            multiple=params.prepare.pad_to_multiple,
            normalise=params.prepare.normalise,
            classes=params.data.classes,
        )


def cases_with_sides(prepared: Path) -> pd.DataFrame:
    """The case table with the column subset, in the order of the table."""
    import pandas as pd

    path = prepared / "split.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Make it with `dvc repro split`.")
    sides = pd.read_csv(path, dtype=str, keep_default_na=False)
    return read_cases(prepared / "cases.csv").merge(
        sides, on="patient", how="left", validate="many_to_one"
    )


def main() -> None:
    """Turns the slices into arrays that training reads without unpacking a file again.

    Example: python -m src.stages.prepare
    """
    params = load_params(Path("params.yaml"))
    cases = cases_with_sides(Path("prepared"))
    with terminal.progress("preparing slices", len(cases)) as tick:
        settings = prepare(Path("data"), cases, params, Path("prepared/arrays"), tick)
    terminal.console.print(
        f"{len(cases)} slices in prepared/arrays: window {settings.window_low:g} to "
        f"{settings.window_high:g} HU, {settings.size_mode}"
        + (f" to {settings.size[0]} x {settings.size[1]}" if settings.size_mode != "native" else "")
        + f", mean {settings.mean:.4f}, deviation {settings.deviation:.4f} of training slices"
    )


if __name__ == "__main__":
    terminal.run(main)
