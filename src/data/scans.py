"""What lies in a data folder: pictures, volumes, DICOM series and segmentations, without pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from src.data import dicom, pictures, volumes
from src.data.findings import Finding

Kind = Literal["picture", "volume", "dicom", "dicom-seg"]

_SUFFIXES = frozenset((*volumes.SUFFIXES, *pictures.SUFFIXES, *dicom.SUFFIXES))
_TWO_DOTS = ".nii.gz"  # the only one of them with more than one
# Notes that stand beside data; they are passed over knowingly.
_NOTES = (
    ".txt", ".csv", ".tsv", ".json", ".md", ".rst", ".yaml", ".yml", ".xml", ".html", ".toml",
    ".log", ".pdf", ".xlsx", ".dvc",
)  # fmt: skip
_NOTE_NAMES = ("dicomdir", "license", "readme", "notice", "authors", "thumbs.db", "desktop.ini")


@dataclass(frozen=True, slots=True)  # slots, for there may be very many
class ScanFile:
    """One image or mask as it lies on disk: a file, or the files of a DICOM series.

    Attributes:
        path: Relative to the data folder, with "/": the file, or the folder of a DICOM series of
            several slices.
        files: Its files, relative likewise, in the order of the stack.
        kind: "picture", "volume", "dicom" or "dicom-seg".
        series: Series Instance UID of DICOM, else empty.
        patient: PatientID of DICOM, else empty.
        scanner: Manufacturer and model of DICOM, else empty.
        references: Series Instance UIDs that a DICOM SEG was drawn on.
        thickness_mm: Of a DICOM series: median distance of its slices, else SliceThickness.
        first: Position in its series of the first slice; 0 but for a file taken out of a series.
    """

    path: str
    files: tuple[str, ...]
    kind: Kind
    series: str = ""
    patient: str = ""
    scanner: str = ""
    references: tuple[str, ...] = ()
    thickness_mm: float | None = None
    first: int = 0

    def single_files(self) -> list[ScanFile]:
        """Each file of a series as a scan of its own, at its place in the series."""
        return [
            replace(self, path=file, files=(file,), first=place)
            for place, file in enumerate(self.files)
        ]


def split_suffix(name: str) -> tuple[str, str]:
    """A file name or path -> (without suffix, suffix); only suffixes of known formats count.

    "P1.nii.gz" -> ("P1", ".nii.gz"); "1.2.840.113" -> ("1.2.840.113", "").
    """
    dot = len(name) - len(_TWO_DOTS) if name.lower().endswith(_TWO_DOTS) else name.rfind(".")
    if dot > 0 and name[dot:].lower() in _SUFFIXES:
        return name[:dot], name[dot:]
    return name, ""


def list_scans(root: Path, places: Sequence[Path] = ()) -> tuple[list[ScanFile], list[Finding]]:
    """Lists every image and mask below a folder, without reading pixels.

    Hidden files and folders, notes (.txt, .csv, .json, …) and .dvc files are passed over. DICOM
    files are recognised without a suffix too.

    Args:
        root: The data folder.
        places: Files and folders below it, if these alone are meant.

    Returns:
        The scans, sorted by path and first file, and findings about files that are not read.

    Raises:
        FileNotFoundError: The folder is not there.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder. Bring data in with `python -m src.ingest FOLDER`, or get the "
            "demo with `dvc pull`."
        )
    scans: list[ScanFile] = []
    findings: list[Finding] = []
    for folder, names in _named(root, places, findings) if places else _folders(root, findings):
        headers: dict[Path, dicom.Header] = {}
        # Once a folder: to build the path of a file by pathlib takes as long as to open it.
        where = "" if folder == root else folder.relative_to(root).as_posix() + "/"
        for name in names:
            relative = where + name
            try:
                kind = _kind_by_name(name) or _kind_by_content(folder / name)
                if kind == "dicom":
                    headers[folder / name] = dicom.read_header(folder / name, relative)
                elif kind:
                    scans.append(ScanFile(relative, (relative,), kind))
                elif not _is_note(folder / name):
                    findings.append(_unknown(relative, "a file of an unknown format"))
            except (ValueError, OSError) as error:
                findings.append(unreadable(relative, error))
        found, problems = _dicom_scans(root, folder, headers)
        scans += found
        findings += problems
    return sorted(scans, key=lambda scan: (scan.path, scan.files)), findings


def unreadable(path: str, error: ValueError | OSError) -> Finding:
    """A finding from what a reader or the system raised about a file, or a series of files.

    The words of a reader name what was found and what to do. Those of the system name the file by
    its whole path: of it stays what the path of the finding does not say already.
    """
    text = str(error).removeprefix(f"{path}: ")
    if isinstance(error, OSError) and error.strerror:
        name = Path(error.filename or path).name
        text = error.strerror.lower() + ("" if path.endswith(name) else f" at {name}")
    found, _, rest = text.removeprefix("found ").partition(", expected ")
    expected, _, remedy = rest.partition(". ")
    return Finding(
        "unreadable",
        "error",
        (path,),
        found,
        expected or "a file that can be read",
        remedy or "Check that the file is whole and that you may read it.",
    )


def _named(
    root: Path, places: Sequence[Path], findings: list[Finding]
) -> list[tuple[Path, list[str]]]:
    """`_folders` of these files and folders, each file once."""
    held: dict[Path, set[str]] = {}
    for place in places:
        within = (
            _folders(root, findings, place) if place.is_dir() else [(place.parent, [place.name])]
        )
        for folder, names in within:
            held.setdefault(folder, set()).update(names)
    return [(folder, sorted(names)) for folder, names in held.items()]


def _folders(
    root: Path, findings: list[Finding], start: Path | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Each folder with its files, sorted; links to folders are followed, but not in circles."""

    def report(error: OSError) -> None:
        path = Path(error.filename or root).relative_to(root).as_posix()
        findings.append(unreadable(path, error))

    for where, folders, names in os.walk(start or root, onerror=report, followlinks=True):
        here = Path(where).resolve()
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not _leads_back(here, here / name)
        )
        yield Path(where), sorted(name for name in names if not name.startswith("."))


def linked_folders(root: Path) -> list[Finding]:
    """An error for each link to a folder below `root`: what lies there DVC would not version."""
    links = sorted(
        (Path(where) / name).relative_to(root).as_posix()
        for where, folders, _ in os.walk(root)
        for name in folders
        if not name.startswith(".") and os.path.islink(f"{where}/{name}")  # noqa: PTH114
    )
    return [
        Finding(
            "linked-folder", "error", (link,), "a link to a folder, which DVC does not follow",
            "a folder",
            "Put the folder itself in place of the link: `cp -rL FOLDER COPY` makes a copy without "
            "links.",
        )
        for link in links
    ]  # fmt: skip


def _leads_back(here: Path, folder: Path) -> bool:
    """Whether a folder is a link to the one that it lies in, or to one above."""
    return folder.is_symlink() and here.is_relative_to(folder.resolve())


def _kind_by_name(name: str) -> Kind | None:
    """What a file is by its suffix."""
    suffix = split_suffix(name)[1].lower()
    if suffix in pictures.SUFFIXES:
        return "picture"
    if suffix in volumes.SUFFIXES:
        return "volume"
    return "dicom" if suffix in dicom.SUFFIXES else None


def _kind_by_content(path: Path) -> Kind | None:
    """What a file without a known suffix is."""
    return "dicom" if not _is_note(path) and dicom.is_dicom(path) else None


def _is_note(path: Path) -> bool:
    name = path.name.lower()
    if name.endswith(volumes.DETACHED):  # named inside the .mhd or .nhdr that it belongs to
        stem = name[: -len(next(end for end in volumes.DETACHED if name.endswith(end)))]
        beside = (other.name.lower() for other in path.parent.iterdir())
        return any(other in (f"{stem}.mhd", f"{stem}.nhdr") for other in beside)
    return name.endswith(_NOTES) or name in _NOTE_NAMES


def _unknown(path: str, found: str) -> Finding:
    return Finding(
        "unknown-file",
        "warning",
        (path,),
        found,
        "PNG, TIFF, JPEG, BMP, DICOM, DICOM SEG, NIfTI, NRRD or MHA",
        "It is not used. Convert it if it is an image or a mask, or move it out of data/.",
    )


def _dicom_scans(
    root: Path, folder: Path, headers: dict[Path, dicom.Header]
) -> tuple[list[ScanFile], list[Finding]]:
    """The DICOM files of one folder, by series."""
    scans: list[ScanFile] = []
    findings: list[Finding] = []
    series: dict[str, dict[Path, dicom.Header]] = {}
    for path, header in headers.items():
        relative = path.relative_to(root).as_posix()
        if header.is_segmentation:
            scans.append(
                ScanFile(relative, (relative,), "dicom-seg", header.series, header.patient,
                         header.scanner, header.references)
            )  # fmt: skip
        elif not header.is_image:
            findings.append(_unknown(relative, f"a DICOM file without pixels ({header.modality})"))
        elif header.frames > 1:
            series[relative] = {path: header}
        else:
            series.setdefault(header.series, {})[path] = header
    for members in series.values():
        order = dicom.in_order(members)
        files = tuple(path.relative_to(root).as_posix() for path in order)
        name = folder.relative_to(root).as_posix() if len(files) > 1 else files[0]
        places = [members[file].place for file in order]
        uneven = dicom.uneven_steps(places)
        if uneven:
            findings.append(
                Finding(
                    "slice-spacing", "warning", (name,), uneven, "evenly spaced slices",
                    "A slice may be missing or copied twice: export the series again.",
                )
            )  # fmt: skip
        first = members[order[0]]
        thickness = dicom.usual_step(places) or first.thickness_mm
        scans.append(
            ScanFile(name, files, "dicom", first.series, first.patient, first.scanner,
                     thickness_mm=thickness)
        )  # fmt: skip
    return scans, findings


def scan_at(path: Path) -> tuple[Path, ScanFile]:
    """What lies at a path that a user gave: a file, or the folder of one DICOM series.

    Returns:
        The folder that the scan's paths are relative to, and the scan.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: A format that is not read, or a folder of no or several series.
    """
    if path.is_dir():
        series = [scan for scan in list_scans(path)[0] if scan.kind == "dicom"]
        if len(series) != 1:
            raise ValueError(
                f"{path}: found {len(series)} DICOM series in the folder, expected one. Name the "
                "folder that holds the slices of one series alone, or a file."
            )
        return path, series[0]
    return path.parent, scan_file(path.parent, path.name)


def scan_file(root: Path, path: str) -> ScanFile:
    """The scan in one file.

    Args:
        root: A folder.
        path: The file, relative to it.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: A format that is not read.
    """
    if not os.path.isfile(f"{root}/{path}"):  # noqa: PTH113 - of every slice, and much quicker
        raise FileNotFoundError(f"{path}: no such file or folder. Check the path.")
    kind = _kind_by_name(path.rpartition("/")[2]) or _kind_by_content(root / path)
    if kind is None:
        raise ValueError(
            f"{path}: found a file of an unknown format, expected PNG, TIFF, JPEG, BMP, DICOM, "
            "DICOM SEG, NIfTI, NRRD or MHA. Convert it."
        )
    if kind != "dicom":
        return ScanFile(path, (path,), kind)
    header = dicom.read_header(root / path, path)
    kind = "dicom-seg" if header.is_segmentation else "dicom"
    return ScanFile(path, (path,), kind, header.series, header.patient, header.scanner,
                    header.references, header.thickness_mm)  # fmt: skip
