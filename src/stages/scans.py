"""The scans of a case table, read again at their own size: images, truth and spacing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.config import Params
from src.data.masks import class_indices
from src.data.readers import PictureScale, read_image_slice, read_mask_slice
from src.data.stacks import volumes_and_positions

if TYPE_CHECKING:
    import pandas as pd


def scans_of(cases: pd.DataFrame) -> list[list[Any]]:
    """The rows of the case table scan by scan, each in the order of its slices."""
    volumes, positions = volumes_and_positions(cases)
    ordered = cases.assign(volume=volumes, position=positions).sort_values(["volume", "position"])
    return [list(part.itertuples()) for _, part in ordered.groupby("volume")]


def spacings_of(rows: list[Any]) -> list[tuple[float, float]]:
    """(y, x) in mm of the pixels of each row of the case table."""
    return [(row.spacing_y_mm, row.spacing_x_mm) for row in rows]


def read_images_and_truths(
    data: Path, rows: list[Any], params: Params
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.uint8]]]:
    """The slices of a scan in HU, and their masks as class indices, each (H, W).

    Args:
        data: The data folder.
        rows: Of the case table, such as one of `scans_of`.
        params: All parameters; `data` is used.
    """
    scale = PictureScale(**params.data.pictures.model_dump())
    images = [read_image_slice(data, row.image_path, row.slice, scale) for row in rows]
    truths = [
        class_indices(
            read_mask_slice(data, row.mask_path, row.slice, row.image_path),
            params.data.labels,
            params.data.classes,
        )
        for row in rows
    ]
    return images, truths
