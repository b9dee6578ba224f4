"""The case table: one row per image slice with its mask slice, its patient and its source."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.data.case_rows import Row, read_pairs
from src.data.findings import Finding
from src.data.masks import label_lookup, shown_values, suggested_labels
from src.data.matching import match
from src.data.parallel import Progress, batches, in_order, no_progress
from src.data.patient_doubts import patient_doubts
from src.data.patients import Rules, pseudonyms
from src.data.pictures import PictureScale
from src.data.roles import Roles
from src.data.scans import list_scans, split_suffix
from src.data.thumbnails import Signatures
from src.files import whole_file

if TYPE_CHECKING:
    import pandas as pd

_TEXT = (
    "case_id", "patient", "pseudonym", "case_pseudonym", "source", "image_path", "mask_path",
    "series", "sha256_image", "sha256_mask", "stored_dtype", "group",
)  # fmt: skip
_PACKED = 2048  # rows that are read before they are packed
_WHOLE = ("slice", "height", "width")
_NUMBERS = (
    "spacing_y_mm", "spacing_x_mm", "thickness_mm",
    "hu_min", "hu_p01", "hu_p50", "hu_p99", "hu_max",
)  # fmt: skip
_COLUMNS = (
    "case_id", "patient", "pseudonym", "case_pseudonym", "source", "image_path", "mask_path",
    "series", "slice", "height", "width", "spacing_y_mm", "spacing_x_mm", "thickness_mm",
    "sha256_image", "sha256_mask", "stored_dtype", "hu_min", "hu_p01", "hu_p50", "hu_p99", "hu_max",
)  # fmt: skip


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
    findings += problems + patient_doubts((image for image, _ in pairs), rules)
    lookup = label_lookup(labels, classes)
    read = partial(read_pairs, root, rules, list(classes), lookup, pictures)
    rows: list[Row] = []
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
    names = table["image_path"].map(lambda path: path.rpartition("/")[2])
    example = ", such as '(?P<patient>[^/]+)[.]nii[.]gz$'" if names.nunique() > 1 else ""
    return [
        Finding(
            "many-scans", "warning", tuple(paths), f"{len(paths)} volumes of patient {patient!r}",
            "one patient a folder",
            "If they are several patients, set data.patient in params.yaml to a regular expression "
            f"on the path{example}.",
        )
        for patient, paths in rows.groupby("patient", sort=False)["image_path"]
        if len(paths) > 1
    ]  # fmt: skip


def _packed(rows: Sequence[Row], signatures: Signatures, classes: Sequence[str]) -> pd.DataFrame:
    """Rows as columns, which take half of the memory."""
    import pandas as pd

    read: dict[str, list[Any]] = {
        name: [getattr(row, name) for row in rows] for name in _COLUMNS if name in Row._fields
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
