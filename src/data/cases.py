"""The case table: one row per image slice with its mask slice, its patient and its source."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.data.findings import Finding
from src.data.masks import label_lookup, shown_values, suggested_labels, value_counts
from src.data.matching import Pair, Roles, match
from src.data.patients import Rules, pseudonyms
from src.data.pictures import PictureScale, single_channel
from src.data.readers import read_mask, read_stored
from src.data.scans import ScanFile, list_scans, split_suffix, unreadable
from src.data.volumes import Scan
from src.files import whole_file

if TYPE_CHECKING:
    import pandas as pd

# Opens a progress bar for (label, number of steps) and gives the function that takes a step.
Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]

_TEXT = (
    "case_id", "patient", "pseudonym", "case_pseudonym", "source", "image_path", "mask_path",
    "sha256_image", "sha256_mask", "stored_dtype", "group",
)  # fmt: skip
_WHOLE = ("slice", "height", "width")
_NUMBERS = (
    "spacing_y_mm", "spacing_x_mm", "thickness_mm",
    "hu_min", "hu_p01", "hu_p50", "hu_p99", "hu_max",
)  # fmt: skip
_COLUMNS = (
    "case_id", "patient", "pseudonym", "case_pseudonym", "source", "image_path", "mask_path",
    "slice", "height", "width", "spacing_y_mm", "spacing_x_mm", "thickness_mm", "sha256_image",
    "sha256_mask", "stored_dtype", "hu_min", "hu_p01", "hu_p50", "hu_p99", "hu_max",
)  # fmt: skip


def no_progress(label: str, total: int) -> AbstractContextManager[Callable[[], None]]:
    """A progress bar that shows nothing."""
    return nullcontext(lambda: None)


@dataclass(frozen=True)
class _Read:
    """What one pair of image and mask gave: rows of the table, findings, unknown label values."""

    rows: list[dict[str, Any]]
    findings: list[Finding]
    unknown: tuple[int, ...] = ()
    seen: tuple[int, ...] = ()
    mask_path: str = ""


def build_cases(
    root: Path,
    *,
    classes: Sequence[str],
    labels: Mapping[int | str, str],
    image_words: Sequence[str],
    mask_words: Sequence[str],
    patient: str | None,
    source: str | None,
    pictures: PictureScale,
    workers: int,
    progress: Progress = no_progress,
) -> tuple[pd.DataFrame, list[Finding]]:
    """Lists, matches and reads everything in a data folder.

    Args:
        root: The data folder.
        classes: Class names in the order of the class index.
        labels: Label value or "#rrggbb" in mask files -> class name.
        image_words: Words in names that say nothing about which image it is.
        mask_words: Words in names that make a file a mask.
        patient: The rule for the patient, see `Rules`.
        source: The rule for the source, see `Rules`.
        pictures: What the values and pixels of pictures mean.
        workers: Threads; each holds one image and its mask at a time.
        progress: Opens a progress bar, as `terminal.progress` does.

    Returns:
        The case table, sorted by path and slice (no rows where nothing fits), and every problem
        that shows in a single file or pair; `audit_cases` adds those of the whole.

    Raises:
        FileNotFoundError: The folder is not there.
        ValueError: A rule without its group.
    """
    rules = Rules(patient, source, Roles(image_words, mask_words))
    scans, findings = list_scans(root)
    pairs, problems = match(scans, image_words=image_words, mask_words=mask_words)
    findings += problems
    lookup = label_lookup(labels, classes)
    read = partial(_read_pair, root, rules, list(classes), lookup, pictures)
    results: list[_Read] = []
    with (
        progress("reading images and masks", len(pairs)) as step,
        ThreadPoolExecutor(max(workers, 1)) as pool,
    ):
        for result in pool.map(read, pairs):
            results.append(result)
            step()
    for result in results:
        findings += result.findings
    findings += _unknown_labels(results, lookup, classes)
    if patient is None:
        findings += _many_scans([row for result in results for row in result.rows])
    return _table([row for result in results for row in result.rows], classes), findings


def _read_pair(
    root: Path,
    rules: Rules,
    classes: list[str],
    lookup: Mapping[int, int],
    scale: PictureScale,
    pair: Pair,
) -> _Read:
    image, mask = pair
    patient, source = rules.patient_of(image), rules.source_of(image)
    unknown = [told for told in (patient, source) if isinstance(told, Finding)]
    if unknown:
        return _Read([], unknown)
    stored: list[Scan] = []
    problems: list[Finding] = []
    for scan, read in ((image, _read_image), (mask, partial(_read_mask, image=image))):
        try:
            stored.append(read(root, scan, scale))
        except (ValueError, OSError) as error:
            problems.append(unreadable(scan.path, error))
    if problems:
        return _Read([], problems)
    values, drawn = stored
    problems = compared(image, values, mask, drawn)
    if any(problem.kind == "size-mismatch" for problem in problems):
        return _Read([], problems)
    rows: list[dict[str, Any]] = []
    seen: set[int] = set()
    for place in range(len(values.array)):
        counts = value_counts(drawn.array[place])
        seen |= set(counts)
        pixels = dict.fromkeys(classes, 0)
        for value, number in counts.items():
            if value in lookup:
                pixels[classes[lookup[value]]] += number
        rows.append(
            {
                **_named(image, mask, place, len(values.array)),
                "patient": patient,
                "source": source,
                "height": values.array.shape[1],
                "width": values.array.shape[2],
                "spacing_y_mm": values.spacing_mm[1],
                "spacing_x_mm": values.spacing_mm[2],
                "thickness_mm": values.spacing_mm[0],
                "sha256_image": slice_hash(values.array[place].astype(np.float32)),
                "sha256_mask": slice_hash(drawn.array[place]),
                "stored_dtype": values.stored_dtype,
                **_intensities(values.array[place], scale if image.kind == "picture" else None),
                **{f"pixels_{name}": number for name, number in pixels.items()},
            }
        )
    return _Read(rows, problems, tuple(seen - set(lookup)), tuple(seen), mask.path)


def _read_image(root: Path, scan: ScanFile, scale: PictureScale) -> Scan:
    stored = read_stored(root, scan, scale)
    return replace(stored, array=single_channel(stored.array, scan.path))


def _read_mask(root: Path, scan: ScanFile, scale: PictureScale, *, image: ScanFile) -> Scan:
    return read_mask(scan, scale, root=root, image=image)


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


def _named(image: ScanFile, mask: ScanFile, place: int, depth: int) -> dict[str, Any]:
    """case_id, paths and slice of one row; a DICOM slice goes by its own file."""
    single = len(image.files) == depth
    path = image.files[place] if single else image.path
    stem = split_suffix(path)[0]
    return {
        "case_id": stem if single and image.kind != "volume" else f"{stem}#{place:03d}",
        "image_path": path,
        "mask_path": mask.files[place] if len(mask.files) == depth else mask.path,
        "slice": image.first + place,
    }


def _intensities(stored: NDArray[Any], scale: PictureScale | None) -> dict[str, float]:
    """Least, 1st, 50th and 99th percentile and greatest HU; NaN where a value is no number."""
    hu = stored.astype(np.float32) if scale is None else scale.hu(stored)
    # Every fourth pixel of large slices: the percentiles describe, nothing is computed from them.
    some = hu[::2, ::2] if hu.size > 65_536 else hu
    low, middle, high = np.percentile(some, [1, 50, 99]).tolist()
    least, greatest = float(hu.min()), float(hu.max())
    return {"hu_min": least, "hu_p01": low, "hu_p50": middle, "hu_p99": high, "hu_max": greatest}


def slice_hash(array: NDArray[Any]) -> str:
    """SHA-256 of a slice: its shape, type and values, in hexadecimal.

    Of an image it is taken of the values in the file as float32, before `data.pictures` scales
    them: pseudonyms depend on it, and must not change with a parameter.
    """
    head = f"{array.shape} {array.dtype.str} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def _unknown_labels(
    results: list[_Read], lookup: Mapping[int, int], classes: Sequence[str]
) -> list[Finding]:
    seen = {value for result in results for value in result.seen}
    remedy = suggested_labels(seen, classes)
    return [
        Finding(
            "unknown-label", "error", (result.mask_path,),
            f"the values {shown_values(result.unknown)}", f"one of {shown_values(lookup)}", remedy,
        )
        for result in results
        if result.unknown
    ]  # fmt: skip


def _many_scans(rows: list[dict[str, Any]]) -> list[Finding]:
    """Without a rule a folder is a patient; several volumes in it may well be several patients."""
    volumes: dict[str, dict[str, None]] = {}
    for row in rows:
        if "#" in row["case_id"]:
            volumes.setdefault(row["patient"], {})[row["image_path"]] = None
    return [
        Finding(
            "many-scans", "warning", tuple(paths), f"{len(paths)} volumes of patient {patient!r}",
            "one patient a folder",
            "If they are several patients, set data.patient in params.yaml to a regular expression "
            "on the path, such as '(?P<patient>[^/]+)[.]nii[.]gz$'.",
        )
        for patient, paths in volumes.items()
        if len(paths) > 1
    ]  # fmt: skip


def _table(rows: list[dict[str, Any]], classes: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    columns = [*_COLUMNS, *(f"pixels_{name}" for name in classes)]
    rows = sorted(rows, key=lambda row: (row["image_path"], row["slice"]))
    held = Counter(row["case_id"] for row in rows)
    for row in rows:  # "1.png" beside "1.jpg": the suffix tells them apart
        if held[row["case_id"]] > 1:
            stem = split_suffix(row["image_path"])[0]
            row["case_id"] = row["image_path"] + row["case_id"][len(stem) :]
    codes = pseudonyms(rows)
    ordinals: dict[str, int] = {}
    for row in rows:
        row["pseudonym"] = codes[row["patient"]]
        ordinal = ordinals.get(row["patient"], 0)
        ordinals[row["patient"]] = ordinal + 1
        row["case_pseudonym"] = f"{row['pseudonym']}/{ordinal:03d}"
    return pd.DataFrame(rows, columns=columns).astype(_types(columns))


def _types(columns: Sequence[str]) -> dict[str, Any]:
    whole = {name: "int64" for name in columns if name in _WHOLE or name.startswith("pixels_")}
    numbers = dict.fromkeys((name for name in columns if name in _NUMBERS), "float64")
    return {**whole, **numbers, **dict.fromkeys((name for name in columns if name in _TEXT), str)}


def write_cases(table: pd.DataFrame, path: Path) -> None:
    """Writes the case table as CSV, whole or not at all."""
    with whole_file(path) as aside:
        table.to_csv(aside, index=False, lineterminator="\n")


def read_cases(path: Path) -> pd.DataFrame:
    """Reads what `write_cases` wrote; a patient "001" or "NA" stays text.

    Raises:
        FileNotFoundError: The file is not there; the message names the command that makes it.
    """
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no case table there. Make it with `dvc repro audit`.")
    columns = pd.read_csv(path, nrows=0).columns.tolist()
    return pd.read_csv(
        path,
        dtype=_types(columns),
        keep_default_na=False,
        na_values={name: [""] for name in columns if name in _NUMBERS},
    )
