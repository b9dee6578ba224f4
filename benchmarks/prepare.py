"""Speed and memory of the stages audit and prepare beside bare decoding, and of the copy search.

    python benchmarks/prepare.py

What is read are PNG slices with PNG masks, made for it. Bare decoding is `cv2.imread` of the same
files in as many threads as there are cores: no stage that reads the files can be quicker than the
decoder but by another one. README.md beside this file holds a table.
"""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from io import StringIO
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this is started as a file, and the project is not installed

from benchmarks.machine import machine  # noqa: E402
from src import terminal  # noqa: E402
from src.config import Params, load_params  # noqa: E402

BASES = (
    24  # drawn bodies; every patient is one of them, turned, moved, scaled, with noise of its own
)
PER_PATIENT = (20, 40)  # slices
PROGRAMS = ("decoding", "audit", "prepare")
TOGETHER = 32  # files that a thread decodes before the next takes over


@dataclass(frozen=True)
class Kind:
    """What the slices of a data set are like: height and width, and bits of a stored value."""

    size: int
    bits: int

    def __str__(self) -> str:
        return f"{self.size} x {self.size}, {self.bits} bit"

    @property
    def scale(self) -> tuple[float, float]:
        """Slope and intercept: HU = slope * stored value + intercept."""
        return (1.0, -1024.0) if self.bits == 16 else (8.0, -1024.0)


def kind_of(text: str) -> Kind:
    """Size and bits of a name such as 512x16."""
    size, _, bits = text.partition("x")
    if not size.isdecimal() or bits not in ("8", "16"):
        raise ValueError(f"--kinds: got {text!r}, expected SIZExBITS such as 512x16 or 128x8.")
    return Kind(int(size), int(bits))


def make_data(folder: Path, kind: Kind, slices: int, seed: int) -> None:
    """Writes so many slices with their masks as images/PATIENT/SLICE.png and masks/… likewise.

    Args:
        folder: Becomes the data folder, whole or not at all; one that is there is kept.
        kind: Of slices.
        slices: How many, at least 20.
        seed: Of all that is drawn.
    """
    if folder.exists():
        return
    counts: list[int] = []
    generator = np.random.default_rng(seed)
    while sum(counts) < slices:
        counts.append(int(generator.integers(*PER_PATIENT, endpoint=True)))
    counts[-1] -= sum(counts) - slices
    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    bodies = _bodies(seed)
    with (
        terminal.progress(f"drawing {slices} slices of {kind}", len(counts)) as step,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        work = (
            pool.submit(_write_patient, aside, kind, bodies[number % BASES], number, count, seed)
            for number, count in enumerate(counts)
        )
        for future in [*work]:
            future.result()
            step()
    aside.rename(folder)


def _bodies(seed: int) -> list[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    from src.data.phantom import make_patient

    patients = [make_patient(index, seed) for index in range(BASES)]
    return [(patient.hu, patient.mask) for patient in patients]


def _write_patient(
    folder: Path,
    kind: Kind,
    body: tuple[NDArray[np.float32], NDArray[np.uint8]],
    number: int,
    slices: int,
    seed: int,
) -> None:
    import cv2

    generator = np.random.default_rng([seed, number])
    turn = cv2.getRotationMatrix2D(
        (63.5, 63.5), generator.uniform(-25, 25), generator.uniform(0.8, 1)
    )
    turn[:, 2] += generator.uniform(-6, 6, 2)
    turn *= kind.size / 128
    for role in ("images", "masks"):
        (folder / role / f"patient_{number:04d}").mkdir(parents=True)
    depths = np.sort(generator.uniform(0, len(body[0]) - 1, slices))
    for place, depth in enumerate(depths):
        below, share = int(depth), depth - int(depth)
        above = min(below + 1, len(body[0]) - 1)
        hu = (1 - share) * body[0][below] + share * body[0][above]
        image = cv2.warpAffine(
            hu.astype(np.float32), turn, (kind.size, kind.size), flags=cv2.INTER_CUBIC,
            borderValue=-1000,
        )  # fmt: skip
        mask = cv2.warpAffine(body[1][below], turn, (kind.size, kind.size), flags=cv2.INTER_NEAREST)
        noise = generator.standard_normal((kind.size, kind.size), np.float32)
        image += 30 * cv2.GaussianBlur(noise, (0, 0), 0.8)  # 11 HU, as fine as in a body scan
        slope, intercept = kind.scale
        stored = np.clip(np.rint((image - intercept) / slope), 0, 2**kind.bits - 1)
        name = f"patient_{number:04d}/slice_{place:03d}.png"
        for role, picture in (("images", stored.astype(f"u{kind.bits // 8}")), ("masks", mask)):
            # 6 is what zlib and most programs take.
            _, encoded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 6])
            (folder / role / name).write_bytes(encoded.tobytes())


def parameters(kind: Kind) -> Params:
    """params.yaml of the repository, with what such slices mean and at the size that they have."""
    params = load_params(ROOT / "params.yaml")
    slope, intercept = kind.scale
    pictures = params.data.pictures.model_copy(update={"slope": slope, "intercept": intercept})
    return params.model_copy(
        update={
            "data": params.data.model_copy(update={"pictures": pictures, "source": None}),
            "prepare": params.prepare.model_copy(update={"image_size": (kind.size, kind.size)}),
        }
    )


def decoding(data: Path, kind: Kind, made: Path) -> Callable[[], object]:
    """Decodes every image and mask."""
    import cv2

    images = sorted((data / "images").rglob("*.png"))
    files = [
        str(path)
        for image in images
        for path in (image, data / "masks" / image.relative_to(data / "images"))
    ]
    parts = [files[start : start + TOGETHER] for start in range(0, len(files), TOGETHER)]

    def decode(part: list[str]) -> int:
        return sum(cv2.imread(path, cv2.IMREAD_UNCHANGED).size for path in part)

    def run() -> int:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return sum(pool.map(decode, parts))

    return run


def auditing(data: Path, kind: Kind, made: Path) -> Callable[[], object]:
    """All that the stage audit does between reading its parameters and its end."""
    import pandas as pd  # noqa: F401 - start-up has a benchmark of its own
    from scipy.sparse import csgraph  # noqa: F401

    from src.data.audit import public_report
    from src.data.cases import write_cases
    from src.stages.audit import audit, report, write_findings

    params = parameters(kind)

    def run() -> None:
        table, findings = audit(data, params)
        content = public_report(table, findings, classes=params.data.classes)
        (made / "audit.json").write_text(json.dumps(content))
        write_findings(made / "findings.csv", findings)
        if report(findings, table, all_in="findings.csv"):
            raise ValueError(f"the data that were made have errors: {findings[0]}")
        write_cases(table, made / "cases.csv")

    return run


def preparing(data: Path, kind: Kind, made: Path) -> Callable[[], object]:
    """All that the stage prepare does between reading its tables and its end."""
    from src.data.cases import read_cases
    from src.stages.prepare import NOT_USED, prepare

    params = parameters(kind)
    cases = read_cases(made / "cases.csv", without=NOT_USED)
    sides = ("train", "train", "train", "validation", "test")
    cases["subset"] = [sides[code % 5] for code in cases["patient"].factorize()[0]]

    def run() -> None:
        with terminal.progress("preparing slices", len(cases)) as tick:
            prepare(data, cases, params, made / "arrays", tick)

    return run


def measured(program: str, data: Path, kind: Kind, made: Path) -> tuple[float, float]:
    """Seconds of a program, and the peak memory of its process in MB."""
    starts = dict(zip(PROGRAMS, (decoding, auditing, preparing), strict=True))
    run = starts[program](data, kind, made)
    with redirect_stdout(StringIO()):
        started = time.perf_counter()
        run()
        seconds = time.perf_counter() - started
    return seconds, peak_mb()


def peak_mb() -> float:
    """Peak resident memory of this process, MB; there are no others, for all work is threads'."""
    status = Path("/proc/self/status")
    if status.is_file():  # what the system counts elsewhere may be that of the parent
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def fresh_process() -> Iterator[ProcessPoolExecutor]:
    """A process that has done nothing yet."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


def table_of_speed(
    folder: Path, kinds: list[Kind], counts: list[int], repeats: int, seed: int
) -> Table:
    """Slices a second and peak memory of each program; they take turns."""
    table = Table(
        "slices", "of", *(f"{name} (slices/s)" for name in PROGRAMS),
        *(f"{name} / decoding" for name in PROGRAMS[1:]), *(f"{name} (MB)" for name in PROGRAMS),
    )  # fmt: skip
    for kind in kinds:
        for count in counts:
            data = folder / f"{kind.size}x{kind.bits}-{count}"
            make_data(data, kind, count, seed)
            made = folder / "made"
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
            for _ in range(repeats):
                for name in PROGRAMS:
                    made.mkdir(exist_ok=True)
                    with fresh_process() as pool:
                        found[name].append(pool.submit(measured, name, data, kind, made).result())
                shutil.rmtree(made)
            seconds = [statistics.median(time for time, _ in found[name]) for name in PROGRAMS]
            peaks = [statistics.median(peak for _, peak in found[name]) for name in PROGRAMS]
            table.add_row(
                str(count), str(kind), *(f"{count / time:.0f}" for time in seconds),
                *(f"{seconds[0] / time:.2f}" for time in seconds[1:]),
                *(f"{peak:.0f}" for peak in peaks),
            )  # fmt: skip
            terminal.console.print(
                f"{kind}, {count} slices: {dict(zip(PROGRAMS, seconds, strict=True))}"
            )
    return table


def drawn_signatures(slices: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Signatures of slices whose details correlate: 0.2 between patients, 0.6 within one.

    Every thousandth slice is a copy of one of the next patient, at a correlation of 0.9.

    Returns:
        (N, 512) bits, packed, and (N,) the patient of each.
    """
    from src.data.thumbnails import SIGNATURE_BITS

    generator = np.random.default_rng(seed)
    each = sum(PER_PATIENT) // 2
    owners = np.arange(slices) // each

    def draw(*shape: int) -> NDArray[np.float32]:
        return generator.standard_normal((*shape, SIGNATURE_BITS), np.float32)

    everybody, last, packed = draw(1), draw(1), []
    for start in range(0, slices, each):
        number = min(each, slices - start)
        details = math.sqrt(0.2) * everybody + math.sqrt(0.4) * (draw(1) + draw(number))
        if start and start // 1000 != (start - each) // 1000:
            details[0] = (0.9 * last + math.sqrt(1 - 0.81) * draw(1))[0]
        last = details[-1:]
        packed.append(np.packbits(details > 0, axis=1))
    return np.concatenate(packed), owners


def table_of_search(counts: list[int], correlation: float, repeats: int, seed: int) -> Table:
    """Seconds of the search for copies, and the power of the number of slices that they grow by."""
    from src.data.duplicates import owners_alike

    table = Table("slices", "seconds", "exponent", "copies", "found")
    times: list[float] = []
    for before, count in pairwise([0, *counts]):
        signatures, owners = drawn_signatures(count, seed)
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            found = owners_alike(signatures, owners, correlation, os.cpu_count() or 1)
            seconds.append(time.perf_counter() - started)
        times.append(statistics.median(seconds))
        power = math.log(times[-1] / times[-2]) / math.log(count / before) if before else math.nan
        copies = sum(
            1 for a, b in pairwise(range(0, count, sum(PER_PATIENT) // 2)) if a // 1000 != b // 1000
        )
        table.add_row(
            str(count), f"{times[-1]:.3f}", f"{power:.2f}" if before else "", str(copies),
            str(len(found)),
        )  # fmt: skip
    return table


def main(
    kinds: Annotated[
        str, typer.Option(help="SIZExBITS of the slices, commas between")
    ] = "128x8,128x16,512x16",
    slices: Annotated[str, typer.Option(help="of a data set, commas between")] = "2000,20000",
    search: Annotated[
        str, typer.Option(help="slices among which copies are searched, commas between; or none")
    ] = "1000,2000,5000,10000,20000",
    repeats: Annotated[int, typer.Option(min=1, help="the median of them is told")] = 3,
    folder: Annotated[
        Path | None, typer.Option(help="keeps the data that are made, for another run")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of what is drawn")] = 1,
) -> None:
    """Times audit and prepare beside bare decoding of the same files, and the search for copies.

    Example: python benchmarks/prepare.py --kinds 512x16 --slices 2000 --repeats 3
    """
    wanted = [kind_of(text) for text in kinds.split(",") if text]
    counts = [int(text) for text in slices.split(",") if text]
    if min(counts, default=200) < 200:
        raise ValueError(f"--slices: got {slices}, expected at least 200 (of several patients).")
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        if wanted and counts:
            terminal.console.print(table_of_speed(place, wanted, counts, repeats, seed))
    if search not in ("", "none"):
        numbers = sorted(int(text) for text in search.split(","))
        correlation = load_params(ROOT / "params.yaml").audit.near_duplicate_correlation
        terminal.console.print(table_of_search(numbers, correlation, repeats, seed))
    terminal.console.print(
        f"{machine()}; medians of {repeats}; OpenCV "
        f"{version('opencv-python-headless')}, NumPy {version('numpy')}, pandas {version('pandas')}"
    )


if __name__ == "__main__":
    terminal.run(main)
