"""Whether two stacks lie on one grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from src.data.findings import Finding
from src.data.scans import ScanFile
from src.data.volumes import Scan


def compared(
    image: ScanFile,
    values: Scan,
    mask: ScanFile,
    drawn: Scan,
    sides: tuple[str, str] = ("image", "mask"),
) -> list[Finding]:
    """Whether a mask lies on its image: sizes, and where both files say it, place in space.

    Args:
        image: The file that is taken for right.
        values: What it holds.
        mask: The other file.
        drawn: What it holds.
        sides: What the two are called in a message.
    """
    paths = (image.path, mask.path)
    one, other = sides
    if values.array.shape != drawn.array.shape:
        return [
            Finding(
                "size-mismatch", "error", paths, f"a {other} of {_size(drawn)}",
                f"{_size(values)} as the {one} has",
                f"Export the {other} on the grid of its {one}.",
            )
        ]  # fmt: skip
    if values.origin is None or values.direction is None:
        return []
    if drawn.origin is None or drawn.direction is None:
        return []
    spacing = np.array(values.spacing_mm)
    depth_known = len(values.array) > 1  # the depth of a single slice is no distance
    same = {
        "spacing": np.allclose(
            spacing[not depth_known :], drawn.spacing_mm[not depth_known :], rtol=1e-3, atol=1e-3
        ),
        # Half a voxel: what is less does not move a label to another voxel.
        "origin": np.abs(np.subtract(values.origin, drawn.origin)).max() < 0.5 * spacing.min(),
        "direction": np.allclose(values.direction, drawn.direction, atol=1e-3),
    }
    if all(same.values()):
        return []
    if np.allclose(drawn.spacing_mm, 1) and not np.any(drawn.origin):
        return [
            Finding(
                "geometry-missing", "warning", paths, f"a {other} without spacing and origin",
                f"spacing {_numbers(values.spacing_mm)} mm, origin {_numbers(values.origin)}",
                "Voxels are taken to correspond one by one. Look at an overlay, or export the "
                f"{other} with its geometry.",
            )
        ]  # fmt: skip
    wrong = [name for name, equal in same.items() if not equal]
    found, expected = (
        "; ".join(
            f"{name} {_numbers(scan.spacing_mm if name == 'spacing' else getattr(scan, name))}"
            for name in wrong
        )
        for scan in (drawn, values)
    )
    return [
        Finding(
            "geometry-mismatch", "error", paths, f"a {other} with {found}",
            f"{expected} of the {one}",
            f"Resample the {other} onto the {one} with nearest neighbour, or export it again.",
        )
    ]  # fmt: skip


def _size(scan: Scan) -> str:
    return " × ".join(str(length) for length in scan.array.shape)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
