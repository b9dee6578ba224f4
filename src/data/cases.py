"""The case table: one row per image slice with its mask slice, its patient and its source."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.data.findings import Finding
from src.data.intensities import Intensities, intensities
from src.data.masks import Labels, label_lookup, shown_values, suggested_labels, value_counts
from src.data.matching import Pair, Roles, match
from src.data.parallel import Progress, batches, in_order, no_progress
from src.data.patients import Rules, pseudonyms
from src.data.pictures import PictureScale, single_channel
from src.data.readers import read_labels, read_mask, read_stored
from src.data.scans import ScanFile, list_scans, split_suffix, unreadable
from src.data.thumbnails import Signatures, signature
from src.data.volumes import Scan
from src.files import whole_file

if TYPE_CHECKING:
    import pandas as pd

_TEXT = (
    "case_id", "patient", "pseudonym", "case_pseudonym", "source", "image_path", "mask_path",
    "sha256_image", "sha256_mask", "stored_dtype", "group",
)  # fmt: skip
_PACKED = 2048  # rows that are read before they are packed
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


class _Row(NamedTuple):
    """What one slice gives to the case table; a tuple, for there may be very many."""

    case_id: str
    patient: str
    source: str
    image_path: str
    mask_path: str
    slice: int
    height: int
    width: int
    spacing_y_mm: float
    spacing_x_mm: float
    thickness_mm: float
    sha256_image: str
    sha256_mask: str
    stored_dtype: str
    hu_min: float
    hu_p01: float
    hu_p50: float
    hu_p99: float
    hu_max: float
    pixels: tuple[int, ...]
    signature: bytes


@dataclass(frozen=True, slots=True)
class _Read:
    """What one pair of image and mask gave: rows of the table, findings, unknown label values."""

    rows: list[_Row]
    findings: list[Finding]
    unknown: tuple[int, ...] = ()
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
) -> tuple[pd.DataFrame, NDArray[np.uint8], list[Finding]]:
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
        The case table, sorted by path and slice (no rows where nothing fits); the signatures that
        `near_duplicates` compares, (N, bytes); and every problem that shows in a single file or
        pair: `audit_cases` adds those of the whole. The column `signature`, which `write_cases`
        leaves out, holds the place of a slice among the signatures, -1 where it has none.

    Raises:
        FileNotFoundError: The folder is not there.
        ValueError: A rule without its group.
    """
    rules = Rules(patient, source, Roles(image_words, mask_words))
    scans, findings = list_scans(root)
    pairs, problems = match(scans, image_words=image_words, mask_words=mask_words)
    findings += problems
    lookup = label_lookup(labels, classes)
    read = partial(_read_pairs, root, rules, list(classes), lookup, pictures)
    rows: list[_Row] = []
    parts: list[pd.DataFrame] = []
    signatures = Signatures(len(pairs))
    unknown: dict[str, tuple[int, ...]] = {}
    seen: set[int] = set()
    with progress("reading images and masks", len(pairs)) as step:
        for results, values in in_order(read, batches(pairs, workers), workers):
            seen |= values
            for result in results:
                rows += result.rows
                findings += result.findings
                if result.unknown:
                    unknown[result.mask_path] = result.unknown
                step()
            if len(rows) >= _PACKED:
                parts.append(_packed(rows, signatures, classes))
                rows.clear()
    del scans, pairs  # of very many files they take as much memory as the table
    findings += _unknown_labels(unknown, seen, lookup, classes)
    parts.append(_packed(rows, signatures, classes))
    table = _table(parts)
    if patient is None:
        findings += _many_scans(table)
    return table, signatures.array, findings


def _read_pairs(
    root: Path,
    rules: Rules,
    classes: list[str],
    lookup: Mapping[int, int],
    scale: PictureScale,
    pairs: Sequence[Pair],
) -> tuple[list[_Read], set[int]]:
    """What each pair gave, and all label values that their masks hold."""
    seen: set[int] = set()
    return [_read_pair(root, rules, classes, lookup, scale, pair, seen) for pair in pairs], seen


def _read_pair(
    root: Path,
    rules: Rules,
    classes: list[str],
    lookup: Mapping[int, int],
    scale: PictureScale,
    pair: Pair,
    seen: set[int],
) -> _Read:
    image, mask = pair
    patient, source = rules.patient_of(image), rules.source_of(image)
    if isinstance(patient, Finding) or isinstance(source, Finding):
        return _Read([], [told for told in (patient, source) if isinstance(told, Finding)])
    patient, source = sys.intern(patient), sys.intern(source)  # one text for all rows
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
    depth, height, width = values.array.shape
    z, y, x = values.spacing_mm
    rows: list[_Row] = []
    unknown: set[int] = set()
    for place in range(depth):
        labels = drawn.array[place]
        pixels = [0] * len(classes)
        counts = value_counts(labels)
        for value, number in counts.items():
            seen.add(value)
            if value in lookup:
                pixels[lookup[value]] += number
            else:
                unknown.add(value)
        case_id, image_path, mask_path, number = _named(image, mask, place, depth)
        picture = scale if image.kind == "picture" else None
        image_hash, found, thumb = _looked_at(values.array[place], picture)
        of_mask = _hash_of_even(labels.shape, *counts) if len(counts) == 1 else mask_hash(labels)
        rows.append(
            _Row(
                case_id, patient, source, image_path, mask_path, number, height, width, y, x, z,
                image_hash, of_mask, values.stored_dtype, *found, tuple(pixels), thumb,
            )
        )  # fmt: skip
    return _Read(rows, problems, tuple(unknown), mask.path)


def _read_image(root: Path, scan: ScanFile, scale: PictureScale) -> Scan:
    stored = read_stored(root, scan, scale)
    grey = single_channel(stored.array, scan.path)
    return stored if grey is stored.array else replace(stored, array=grey)


def _read_mask(root: Path, scan: ScanFile, scale: PictureScale, *, image: ScanFile) -> Scan:
    if scan.kind != "dicom-seg":
        return read_labels(root, scan, scale)
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


def _named(image: ScanFile, mask: ScanFile, place: int, depth: int) -> tuple[str, str, str, int]:
    """case_id, paths and slice of one row; a DICOM slice goes by its own file."""
    single = len(image.files) == depth
    path = image.files[place] if single else image.path
    stem = split_suffix(path)[0]
    return (
        stem if single and image.kind != "volume" else f"{stem}#{place:03d}",
        path,
        mask.files[place] if len(mask.files) == depth else mask.path,
        image.first + place,
    )


def _looked_at(stored: NDArray[Any], scale: PictureScale | None) -> tuple[str, Intensities, bytes]:
    """The hash, intensities and signature of a slice."""
    found = intensities(stored, scale)
    thumb = b""
    if found.least < found.greatest:
        thumb = signature(stored if scale is None else scale.hu(stored))
    return slice_hash(stored.astype(np.float32)), found, thumb


def slice_hash(array: NDArray[Any]) -> str:
    """SHA-256 of a slice: its shape, type and values, in hexadecimal.

    Of an image it is taken of the values in the file as float32, before `data.pictures` scales
    them: pseudonyms, and with them the split, depend on it, and must change neither with a
    parameter nor with the type that a file stores them in.
    """
    found = hashlib.sha256(f"{array.shape} {array.dtype.str} ".encode())
    found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def mask_hash(labels: Labels) -> str:
    """`slice_hash` of label values: as uint8 where all fit into it, else as int32."""
    if labels.dtype == np.uint8 or (labels.size and labels.min() >= 0 and labels.max() < 256):
        return slice_hash(labels.astype(np.uint8, copy=False))
    return slice_hash(labels)


@lru_cache
def _hash_of_even(shape: tuple[int, ...], value: int) -> str:
    """`mask_hash` of a mask of one value: very many are empty."""
    return mask_hash(np.full(shape, value, np.int32))


def _unknown_labels(
    unknown: Mapping[str, tuple[int, ...]],
    seen: set[int],
    lookup: Mapping[int, int],
    classes: Sequence[str],
) -> list[Finding]:
    remedy = suggested_labels(seen, classes)
    return [
        Finding(
            "unknown-label", "error", (path,),
            f"the values {shown_values(values)}", f"one of {shown_values(lookup)}", remedy,
        )
        for path, values in unknown.items()
    ]  # fmt: skip


def _many_scans(table: pd.DataFrame) -> list[Finding]:
    """Without a rule a folder is a patient; several volumes in it may well be several patients."""
    of_volumes = table["case_id"].str.contains("#", regex=False).astype(bool)
    rows = table.loc[of_volumes, ["patient", "image_path"]].drop_duplicates()
    return [
        Finding(
            "many-scans", "warning", tuple(paths), f"{len(paths)} volumes of patient {patient!r}",
            "one patient a folder",
            "If they are several patients, set data.patient in params.yaml to a regular expression "
            "on the path, such as '(?P<patient>[^/]+)[.]nii[.]gz$'.",
        )
        for patient, paths in rows.groupby("patient", sort=False)["image_path"]
        if len(paths) > 1
    ]  # fmt: skip


def _packed(rows: Sequence[_Row], signatures: Signatures, classes: Sequence[str]) -> pd.DataFrame:
    """Rows as columns, which take half of the memory."""
    import pandas as pd

    read: dict[str, list[Any]] = {
        name: [getattr(row, name) for row in rows] for name in _COLUMNS if name in _Row._fields
    }
    for place, name in enumerate(classes):
        read[f"pixels_{name}"] = [row.pixels[place] for row in rows]
    types = _types([*read])
    columns = {name: pd.Series(values, dtype=types[name]) for name, values in read.items()}
    places = [signatures.add(row.signature) for row in rows]
    return pd.DataFrame(columns).assign(signature=pd.Series(places, dtype="int64"))


def _table(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """The case table of all that was read; empties the list, for memory."""
    import pandas as pd

    table = pd.concat(parts, ignore_index=True)
    parts.clear()
    keys = [*zip(table["image_path"], table["slice"], strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    if order != [*range(len(keys))]:  # the files of a DICOM series came by place, not by name
        table = table.iloc[order].reset_index(drop=True)
    alike = table[table["case_id"].duplicated(keep=False)]  # "1.png" beside "1.jpg"
    table.loc[alike.index, "case_id"] = [
        path + case_id[len(split_suffix(path)[0]) :]  # the suffix tells them apart
        for path, case_id in zip(alike["image_path"], alike["case_id"], strict=True)
    ]
    hashes = zip(table["patient"], table["sha256_image"], strict=True)
    codes = pseudonyms({"patient": patient, "sha256_image": key} for patient, key in hashes)
    named = [codes[patient] for patient in table["patient"]]
    ordinals = table.groupby("patient").cumcount()
    numbered = [f"{code}/{ordinal:03d}" for code, ordinal in zip(named, ordinals, strict=True)]
    table["pseudonym"] = pd.Series(named, dtype=object)
    table["case_pseudonym"] = pd.Series(numbered, dtype=object)
    rest = [name for name in table if name not in _COLUMNS]
    return table[[*_COLUMNS, *rest]]


def _types(columns: Sequence[str]) -> dict[str, Any]:
    whole = {name: "int64" for name in columns if name in _WHOLE or name.startswith("pixels_")}
    numbers = dict.fromkeys((name for name in columns if name in _NUMBERS), "float64")
    # Python's own text: comparing or grouping Arrow's, which pandas takes else, copies columns.
    text = dict.fromkeys((name for name in columns if name in _TEXT), object)
    return {**whole, **numbers, **text}


def write_cases(table: pd.DataFrame, path: Path) -> None:
    """Writes the case table as CSV, whole or not at all."""
    with whole_file(path) as aside:
        kept = table.drop(columns="signature", errors="ignore")
        kept.to_csv(aside, index=False, lineterminator="\n")


def read_cases(path: Path, *, without: Container[str] = ()) -> pd.DataFrame:
    """Reads what `write_cases` wrote, but some columns; a patient "001" or "NA" stays text.

    Raises:
        FileNotFoundError: The file is not there; the message names the command that makes it.
    """
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no case table there. Make it with `dvc repro audit`.")
    held = pd.read_csv(path, nrows=0).columns.tolist()
    columns = [name for name in held if name not in without]
    return pd.read_csv(
        path,
        usecols=columns,
        dtype=_types(columns),
        keep_default_na=False,
        na_values={name: [""] for name in columns if name in _NUMBERS},
    )
