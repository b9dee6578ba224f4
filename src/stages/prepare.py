"""Stage `prepare`: the windowed, sized, normalised, memory-mapped arrays of a fold."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from src import terminal
from src.config import Params, load_params
from src.data.arrays import write_arrays
from src.data.cases import read_cases
from src.data.masks import class_indices
from src.data.preprocessing import Preprocessing, Spacing, window_limits
from src.data.readers import PictureScale, read_image_slice, read_slices
from src.data.splits import fold_folder
from src.files import whole_folder

if TYPE_CHECKING:
    import pandas as pd

# Columns of the case table that say nothing about how to read a slice: of very many slices they
# take half of the memory.
NOT_USED = ("sha256_image", "sha256_mask", "stored_dtype",
            "hu_min", "hu_p01", "hu_p50", "hu_p99", "hu_max")  # fmt: skip


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
    columns = (cases[name].to_list() for name in ("image_path", "mask_path", "slice"))
    wanted = [*zip(*columns, strict=True)]

    def slices(rows: range) -> Iterator[tuple[NDArray[Any], NDArray[np.uint8]]]:
        part = wanted[rows.start : rows.stop]
        for image, labels in read_slices(data, part, pictures):
            yield image, class_indices(labels, params.data.labels, params.data.classes)

    def images(rows: pd.DataFrame) -> Iterator[NDArray[np.float32]]:
        for row in rows.itertuples():
            yield read_image_slice(data, row.image_path, row.slice, pictures)

    training = cases[cases["subset"] == "train"]
    window = window_limits(params.prepare.window.model_dump(), lambda: images(training))
    plain = Preprocessing(
        *window,
        mean=0.0,
        deviation=1.0,
        size_mode=params.prepare.size_mode,
        size=params.prepare.image_size,
        multiple=params.prepare.pad_to_multiple,
        spacing_mm=common_spacing(params.prepare.spacing_mm, training),
    )
    with whole_folder(folder) as aside:
        return write_arrays(
            aside,
            cases,
            slices,
            plain=plain,
            normalise=params.prepare.normalise,
            classes=params.data.classes,
            workers=os.cpu_count() or 1,
            tick=tick,
        )


def common_spacing(wanted: Spacing | str | None, training: pd.DataFrame) -> Spacing | None:
    """The spacing that all slices get.

    Args:
        wanted: `prepare.spacing_mm`: (y, x) in mm, "median", or None.
        training: The rows of the case table of the training side.

    Returns:
        (y, x) in mm, for "median" that of the training slices; None where each keeps its own.
    """
    if not isinstance(wanted, str):
        return wanted
    y, x = training[["spacing_y_mm", "spacing_x_mm"]].median().tolist()
    return y, x


def cases_with_sides(prepared: Path, fold: int, *, without: Container[str] = ()) -> pd.DataFrame:
    """The case table with the column subset of a fold, in the order of the table.

    Args:
        prepared: The folder of the table and the split.
        fold: One of those of the split.
        without: Columns that are not wanted.

    Raises:
        FileNotFoundError: There is no split.
        ValueError: The split does not hold this fold.
    """
    import pandas as pd

    path = prepared / "split.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Make it with `dvc repro split`.")
    sides = pd.read_csv(path, dtype=str, keep_default_na=False)
    held = sides["fold"].unique().tolist() if "fold" in sides else []
    if str(fold) not in held:
        raise ValueError(
            f"{path} holds the folds {held}, not {fold}. Add it to split.fold in params.yaml, then "
            "run `dvc repro split`."
        )
    sides = sides.loc[sides["fold"] == str(fold), ["patient", "subset"]]
    return read_cases(prepared / "cases.csv", without=without).merge(
        sides, on="patient", how="left", validate="many_to_one"
    )


def main(fold: Annotated[int, typer.Argument(help="one of split.fold in params.yaml")] = 0) -> None:
    """Turns the slices into arrays that training reads without unpacking a file again.

    Window and normalisation are fitted on the training side of the fold alone.

    Example: python -m src.stages.prepare 0
    """
    params = load_params(Path("params.yaml"))
    cases = cases_with_sides(Path("prepared"), fold, without=NOT_USED)
    folder = fold_folder(Path("prepared/arrays"), fold)
    with terminal.progress("preparing slices", len(cases)) as tick:
        settings = prepare(Path("data"), cases, params, folder, tick)
    terminal.console.print(
        f"{len(cases)} slices in {folder}: window {settings.window_low:g} to "
        f"{settings.window_high:g} HU, {settings.size_mode}"
        + (f" to {settings.size[0]} x {settings.size[1]}" if settings.size_mode != "native" else "")
        + (
            f" at {settings.spacing_mm[0]:g} x {settings.spacing_mm[1]:g} mm"
            if settings.spacing_mm
            else ""
        )
        + f", mean {settings.mean:.4f}, deviation {settings.deviation:.4f} of training slices"
    )


if __name__ == "__main__":
    terminal.run(main)
