"""What the crop of a scan gives away: a mask that is made without reading a pixel of the image.

Where scans were cropped around what is sought, at a margin that is the same for all, its place and
size stand in the borders. A network can learn that, and scans that are not cropped would not bear
it out. This control says how far one comes with the borders alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.setting import Setting
from src.files import write_text

MARGIN_MM = 50.0  # the sarcoma collection is cropped 5 cm around the tumour


def inscribed_ellipsoid(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], margin_mm: float
) -> NDArray[np.bool_]:
    """The ellipsoid that touches all six borders of a volume, less a margin.

    Args:
        shape: (D, H, W).
        spacing_mm: Of its voxels, (z, y, x).
        margin_mm: Taken off on every side; at least the voxels in the middle stay.

    Returns:
        (D, H, W) bool.
    """
    squares: list[Any] = []
    for length, spacing in zip(shape, spacing_mm, strict=True):
        half = (length - 1) / 2 * spacing
        distance = (np.arange(length) - (length - 1) / 2) * spacing
        squares.append((distance / max(half - margin_mm, spacing)) ** 2)
    z, y, x = np.ix_(*squares)
    return np.asarray(z + y + x <= 1)


def write_masks(folder: Path, setting: Setting, sides: tuple[str, ...]) -> None:
    """Writes such a mask of class 1 for each patient, and training.json."""
    import SimpleITK as sitk  # noqa: N813

    for side in sides:
        for name in setting.patients[side]:
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(setting.folder / side / "images" / f"{name}.nii.gz"))
            reader.ReadImageInformation()  # the header alone
            size, spacing = reader.GetSize(), reader.GetSpacing()
            inside = inscribed_ellipsoid(
                (size[2], size[1], size[0]), (spacing[2], spacing[1], spacing[0]), MARGIN_MM
            )
            mask = sitk.GetImageFromArray(inside.astype(np.uint8))
            mask.SetSpacing(spacing)
            mask.SetOrigin(reader.GetOrigin())
            mask.SetDirection(reader.GetDirection())
            target = folder / side / f"{name}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(mask, str(target), useCompression=True)
    summary = {
        "seconds": 0.0, "steps": None, "images": None, "epochs": None, "parameters": None,
        "checkpoint": f"ellipsoid, {MARGIN_MM:g} mm from the borders", "precision": "",
        "versions": f"SimpleITK {sitk.Version.VersionString()}", "settings": {},
    }  # fmt: skip
    write_text(folder / "training.json", json.dumps(summary, indent=2) + "\n")
