"""The synthetic CT patients of the demo: drawn from geometry, so that nobody's data is shown.

Each patient is a short stack of abdominal slices in Hounsfield units (HU): body with a rim of fat,
spine and ribs, an organ (a liver) with vessels and cysts, and one to three lesions. Everything is
drawn in 3-D, so that a lesion enters and leaves through the stack. Three scanners differ in
noise, sharpness, table and a slight bias. A lesion shares its HU with muscle, bowel and the edges
of cysts: a threshold cannot find it, context can.

    python -m src.data.phantom data

Repeatable: every patient has a PCG64 stream of its own, seeded by (seed, index), and is drawn in
float64. Machines may differ in the last bits of a cosine; the final rounding to whole steps of
`HU_STEP` takes that away, so the pixels are the same everywhere (but for a value that lies on a
rounding edge to its last bits, less likely than one in a million). The bytes of the PNG files also
depend on the compression library inside OpenCV.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import track
from scipy import ndimage

from src import terminal
from src.data.phantom_anatomy import Canvas, Volume, draw_anatomy

STORED_OFFSET = 1024  # stored value = HU + 1024, the usual choice of CT archives
HU_STEP = 2  # noise is what a 16-bit PNG spends its bytes on; finer steps than this show nothing
BACKGROUND, ORGAN, LESION = 0, 1, 2


@dataclass(frozen=True)
class Scanner:
    """How one scanner renders the same anatomy.

    Attributes:
        name: Folder name, e.g. "scanner_a".
        noise_hu: Standard deviation of the noise inside the body, HU.
        grain: Standard deviation of the noise's correlation kernel, pixels.
        blur: Standard deviation of the point spread function, pixels.
        bias_hu: Calibration error added everywhere, HU.
        table_sag_mm: How deep the table is hollowed, mm: 0 is a flat board.
        table_mm: Thickness of the table, mm; a thick one is a shell around foam.
    """

    name: str
    noise_hu: float
    grain: float
    blur: float
    bias_hu: float
    table_sag_mm: float
    table_mm: float


SCANNERS = (
    Scanner("scanner_a", 9.0, 0.5, 0.5, 0.0, 26.0, 7.0),
    Scanner("scanner_b", 13.0, 0.7, 0.7, 4.0, 0.0, 28.0),
    Scanner("scanner_c", 8.0, 1.0, 0.9, -3.0, 12.0, 21.0),
)


@dataclass(frozen=True)
class PhantomPatient:
    """One synthetic patient.

    Attributes:
        name: E.g. "patient_001".
        scanner: Name of the scanner, e.g. "scanner_a".
        hu: float32 (D, H, W), HU in [-1024, 3071], multiples of `HU_STEP`.
        mask: uint8 (D, H, W), 0 background, 1 organ (with its vessels and cysts), 2 lesion.
    """

    name: str
    scanner: str
    hu: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint8]


def make_patient(index: int, seed: int) -> PhantomPatient:
    """Draw one patient; the same (index, seed) always gives the same one.

    Args:
        index: Position of the patient in the data set, from 0. Scanners take turns.
        seed: Seed of the data set, at least 0.

    Returns:
        The patient, 6 to 10 slices of 128 x 128 at 2.5 mm, 5 mm apart.

    Raises:
        ValueError: The index or the seed is negative.
    """
    if index < 0 or seed < 0:
        raise ValueError(f"index and seed must be at least 0, got index {index} and seed {seed}.")
    scanner = SCANNERS[index % len(SCANNERS)]
    canvas = Canvas(np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index]))))

    anatomy = draw_anatomy(canvas)
    _table(canvas, anatomy.body, scanner)

    mask = np.where(anatomy.organ < 0, ORGAN, BACKGROUND).astype(np.uint8)
    mask[(anatomy.organ < 0) & (anatomy.lesion < 0)] = LESION
    hu = _scan(canvas, anatomy.body, scanner)
    return PhantomPatient(f"patient_{index + 1:03d}", scanner.name, hu, mask)


def _table(canvas: Canvas, body: Volume, scanner: Scanner) -> None:
    """The table under the back, flat or hollowed, in the scanner's own axes."""
    room, half = canvas.room, scanner.table_mm / 2
    top = float(room.y[body < 0].max()) + 4 - scanner.table_sag_mm * (room.x / 120) ** 2
    board = np.maximum(np.abs(room.y - top - half) - half, np.abs(room.x) - 120)
    canvas.paint(np.maximum(board, 1 - body), 300)
    canvas.paint(np.maximum(board + 6.5, 1 - body), -900)


def _scan(canvas: Canvas, body: Volume, scanner: Scanner) -> npt.NDArray[np.float32]:
    """Blur, correlated noise, bias, and rounding to whole steps of HU."""
    white = canvas.rng.normal(size=canvas.hu.shape)
    noise = ndimage.gaussian_filter(white, (0, scanner.grain, scanner.grain))
    # Noise is strongest where the rays cross most tissue: a third in air, all of it deep inside.
    amount = np.clip(0.35 - body / 60, 0.35, 1.0) * (scanner.noise_hu / noise.std())
    blurred = ndimage.gaussian_filter(canvas.hu, (0, scanner.blur, scanner.blur))
    steps = np.round((blurred + noise * amount + scanner.bias_hu) / HU_STEP) * HU_STEP
    return np.asarray(np.clip(steps, -STORED_OFFSET, 3071), np.float32)


def write_phantom(folder: Path, *, patients: int = 30, seed: int = 2026) -> None:
    """Write the data set as PNG files, whole or not at all, with a progress bar on a terminal.

    The tree is `images/SCANNER/PATIENT/slice_000.png` (16-bit, HU + 1024) and
    `masks/SCANNER/PATIENT/slice_000_mask.png` (8-bit, 0 to 2).

    Args:
        folder: Where to write; must be absent or empty. Its parent folders are made.
        patients: Number of patients, at least 1.
        seed: Seed of the data set, at least 0.

    Raises:
        FileExistsError: `folder` is a file or holds something already.
        ValueError: Fewer than one patient, or a negative seed.
    """
    if patients < 1:
        raise ValueError(f"patients must be at least 1, got {patients}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} is not empty; the phantom is written to a new or an empty folder only. "
            "Name another folder, or delete this one first."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed, so that a killed run never leaves half a data set behind.
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as aside:
        written = Path(aside) / folder.name
        for index in track(
            range(patients),
            description="Drawing patients",
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        ):
            _write_patient(written, make_patient(index, seed))
        if folder.exists():
            folder.rmdir()
        written.rename(folder)


def _write_patient(folder: Path, patient: PhantomPatient) -> None:
    images = folder / "images" / patient.scanner / patient.name
    masks = folder / "masks" / patient.scanner / patient.name
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    stored = np.clip(patient.hu + STORED_OFFSET, 0, None).astype(np.uint16)
    for position, (image, mask) in enumerate(zip(stored, patient.mask, strict=True)):
        _write_png(images / f"slice_{position:03d}.png", image)
        _write_png(masks / f"slice_{position:03d}_mask.png", mask)


def _write_png(path: Path, picture: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
    import cv2

    settings = [
        cv2.IMWRITE_PNG_COMPRESSION,
        9,
        cv2.IMWRITE_PNG_STRATEGY,
        cv2.IMWRITE_PNG_STRATEGY_FILTERED,
    ]
    _, encoded = cv2.imencode(".png", picture, settings)
    path.write_bytes(encoded.tobytes())  # unlike cv2.imwrite: any path, and an error where it fails


def main(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder, e.g. data.")],
    patients: Annotated[int, typer.Option(min=1, help="Number of patients.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the data set.")] = 2026,
) -> None:
    """Write the synthetic CT patients of the demo into FOLDER.

    Example: python -m src.data.phantom data --patients 30 --seed 2026
    """
    write_phantom(folder, patients=patients, seed=seed)
    people = "1 patient" if patients == 1 else f"{patients} patients"
    terminal.console.print(f"Wrote {people} to {folder}: look at {folder / 'images'}.")


if __name__ == "__main__":
    terminal.run(main)
