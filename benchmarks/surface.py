"""Time of HD95, ASSD and NSD of many masks: this project beside DeepMind's surface-distance.

    python benchmarks/surface.py --peer FOLDER

Both are run on the same masks in the same process, in turn, with the same NumPy and SciPy. Where
their definitions agree their numbers must, too: the benchmark fails otherwise. README.md beside
this file says how to install the peer.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this is started as a file, and the project is not installed

from src import terminal  # noqa: E402
from src.evaluation.surface import (  # noqa: E402
    assd_mm,
    hausdorff_mm,
    nsd,
    surface_distances,
)

PEER = ROOT / "benchmarks" / "peers" / ".surface-distance"
RADII = (4.0, 10.0, 30.0, 80.0, 150.0)  # pixels; between each two a row of the table
OFF = 3.0  # pixels, how far the waves of a prediction's contour go
SAME = 1e-9  # of numbers that are read from the same distances

Mask = NDArray[np.bool_]
Scores = tuple[float, float, float]


@dataclass(frozen=True)
class Case:
    """A pair of masks.

    Attributes:
        radius: Of the lesion in the truth, in pixels.
        truth: (H, W) mask.
        prediction: Likewise.
    """

    radius: float
    truth: Mask
    prediction: Mask


def lesions(number: int, size: int, seed: int) -> list[Case]:
    """Lesions with wavy contours, of radii spread evenly over the orders of magnitude.

    Half of a prediction's contour is within about a pixel of the truth's and nearly all within
    three, whatever the radius; every eighth prediction has a second part elsewhere.

    Args:
        number: Of pairs of masks.
        size: Height and width of the masks, in pixels.
        seed: Of all that is drawn.
    """
    generator = np.random.default_rng(seed)
    smallest, largest = np.log(RADII[0]), np.log(RADII[-1])
    cases = []
    for index in range(number):
        radius = float(np.exp(generator.uniform(smallest, largest)))
        truth, prediction = _lesion(generator, size, radius)
        if index % 8 == 0:
            prediction = prediction | _lesion(generator, size, 5.0)[0]
        cases.append(Case(radius, truth, prediction))
    return cases


def _lesion(generator: np.random.Generator, size: int, radius: float) -> tuple[Mask, Mask]:
    """A lesion and its prediction, somewhere in the image, or in its middle where it fits badly."""
    y, x = np.ogrid[:size, :size]
    room = 1.6 * radius
    centre = generator.uniform(room, size - room, 2) if 2 * room < size else (size / 2, size / 2)
    distance, angle = (
        np.hypot(y - centre[0], x - centre[1]),
        np.arctan2(y - centre[0], x - centre[1]),
    )

    def wave(height: float) -> NDArray[np.float64]:
        parts = [
            generator.normal(0, height) / k * np.cos(k * angle + generator.uniform(0, 2 * np.pi))
            for k in range(2, 8)
        ]
        return np.sum(parts, axis=0)

    contour = radius * (1 + wave(0.15))
    predicted = contour + 1 + wave(OFF) * min(1.0, radius / 15)
    return distance <= contour, distance <= predicted


def peer_package(folder: Path) -> ModuleType:
    """DeepMind's surface_distance from the folder that it is installed in.

    Raises:
        FileNotFoundError: It is not there; the message says how to install it.
    """
    if not (folder / "surface_distance").is_dir():
        raise FileNotFoundError(
            f"{folder}: no surface_distance there. Install it as benchmarks/README.md says, or "
            "name its folder in --peer."
        )
    sys.path.append(str(folder))  # at the end: NumPy and SciPy stay this project's
    import surface_distance

    # It calls SciPy's filters by a name that goes away in SciPy 2.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="surface_distance")
    return surface_distance


def ours(case: Case, spacing_mm: float, tolerance_mm: float) -> Scores:
    """HD95, ASSD and NSD by this project."""
    found = surface_distances(case.truth, case.prediction, (spacing_mm, spacing_mm))
    return hausdorff_mm(found), assd_mm(found), nsd(found, tolerance_mm)


def peers(package: ModuleType, case: Case, spacing_mm: float, tolerance_mm: float) -> Scores:
    """The same by DeepMind's package; ASSD of its two directions, by the lengths of both."""
    found = package.compute_surface_distances(case.truth, case.prediction, (spacing_mm, spacing_mm))
    lengths = found["surfel_areas_gt"].sum(), found["surfel_areas_pred"].sum()
    both = package.compute_average_surface_distance(found)
    return (
        package.compute_robust_hausdorff(found, 95),
        float(np.average(both, weights=lengths)),
        package.compute_surface_dice_at_tolerance(found, tolerance_mm),
    )


def differences(
    package: ModuleType, cases: list[Case], spacing_mm: float, tolerance_mm: float
) -> dict[str, float]:
    """The largest differences between the two programs, and to SciPy's way to the HD95.

    Returns:
        What is compared -> largest absolute difference over the cases. The last entry is of two
        definitions and need not be small.
    """
    largest: dict[str, float] = {}

    def compare(name: str, one: NDArray[np.float64] | float, two: object) -> None:
        gap = float(np.max(np.abs(np.asarray(one) - np.asarray(two))))
        largest[name] = max(largest.get(name, 0.0), gap)

    for case in cases:
        spacing = (spacing_mm, spacing_mm)
        found = surface_distances(case.truth, case.prediction, spacing)
        theirs = package.compute_surface_distances(case.truth, case.prediction, spacing)
        compare("ASSD (mm)", assd_mm(found), peers(package, case, spacing_mm, tolerance_mm)[1])
        share = package.compute_surface_dice_at_tolerance(theirs, tolerance_mm)
        compare("NSD", nsd(found, tolerance_mm), share)
        for side, name in ((found.from_truth, "gt_to_pred"), (found.from_prediction, "pred_to_gt")):
            compare("each distance (mm)", np.sort(side.elements_mm), theirs[f"distances_{name}"])
        compare("HD95 by SciPy (mm)", hausdorff_mm(found), _hd95_by_scipy(case, spacing))
        # Last, for these are two definitions.
        weighted = package.compute_robust_hausdorff(theirs, 95)
        compare("HD95, weighted or not (mm)", hausdorff_mm(found), weighted)
    return largest


def _hd95_by_scipy(case: Case, spacing: tuple[float, float]) -> float:
    """HD95 of boundary pixels, by erosion and maps of distances over the whole image."""
    from scipy.ndimage import binary_erosion, distance_transform_edt

    edges = [mask & ~binary_erosion(mask) for mask in (case.truth, case.prediction)]
    maps = [distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    return max(float(np.percentile(maps[1 - i][edges[i]], 95)) for i in (0, 1))


def timed(programs: Sequence[Callable[[Case], Scores]], case: Case, repeats: int) -> list[float]:
    """Median processor time of each program for a case, in seconds.

    The programs take turns, and the masks are in the processor's cache for all of them, as where
    they have just been made. Each uses one core, so on an idle machine this is what a clock on the
    wall shows; on a busy one that clock would mostly show the others.
    """
    seconds: list[list[float]] = [[] for _ in programs]
    for _ in range(repeats):
        np.logical_or(case.truth, case.prediction)  # reads both
        for run, found in zip(programs, seconds, strict=True):
            started = time.process_time()
            run(case)
            found.append(time.process_time() - started)
    return [statistics.median(found) for found in seconds]


def main(
    peer: Annotated[Path, typer.Option(help="folder that surface-distance is installed in")] = PEER,
    masks: Annotated[int, typer.Option(min=8, help="pairs of truth and prediction")] = 200,
    size: Annotated[int, typer.Option(min=64, help="height and width in pixels")] = 512,
    spacing_mm: Annotated[float, typer.Option(help="of the pixels")] = 0.7,
    tolerance_mm: Annotated[float, typer.Option(help="of the NSD")] = 1.0,
    repeats: Annotated[int, typer.Option(min=1, help="the median of them is told")] = 15,
    seed: Annotated[int, typer.Option(min=0, help="of the masks")] = 1,
) -> None:
    """Times HD95, ASSD and NSD of the same masks by this project and DeepMind's surface-distance.

    Example: python benchmarks/surface.py --repeats 15
    """
    package = peer_package(peer)
    cases = lesions(masks, size, seed)
    found = differences(package, cases, spacing_mm, tolerance_mm)
    *same, definitions = found
    wrong = {name: found[name] for name in same if not found[name] <= SAME}
    if wrong:
        terminal.fail(f"the two programs differ by {wrong}, more than {SAME:g}")

    programs = (
        lambda case: peers(package, case, spacing_mm, tolerance_mm),
        lambda case: ours(case, spacing_mm, tolerance_mm),
    )
    with terminal.progress("timing", masks) as step:
        milliseconds = np.empty((masks, 2))
        for row, case in zip(milliseconds, cases, strict=True):
            row[:] = [1000 * seconds for seconds in timed(programs, case, repeats)]
            step()
    table = Table("radius (pixels)", "masks", "surface-distance (ms)", "this project (ms)", "ratio")
    radii = np.array([case.radius for case in cases])
    for low, high in (*pairwise(RADII), (RADII[0], RADII[-1])):
        members = milliseconds[(radii >= low) & (radii <= high)]
        if len(members):
            theirs, own = members.mean(axis=0)
            table.add_row(
                f"{low:g} to {high:g}", str(len(members)), f"{theirs:.2f}", f"{own:.2f}",
                f"{theirs / own:.1f}",
            )  # fmt: skip
    terminal.console.print(table)
    terminal.console.print(
        f"processor time a mask of {size} x {size} pixels of {spacing_mm:g} mm, NSD at "
        f"{tolerance_mm:g} mm, each the median of {repeats}; surface-distance "
        f"{version('surface-distance')}, NumPy {version('numpy')}, SciPy {version('scipy')}"
    )
    equal = ", ".join(f"{name} {found[name]:.1e}" for name in same)
    terminal.console.print(f"largest differences: {equal}")
    terminal.console.print(f"of two definitions: {definitions} {found[definitions]:.2f}")


if __name__ == "__main__":
    terminal.run(main)
