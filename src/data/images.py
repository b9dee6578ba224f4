"""What there is to segment: the images in a file or folder, told from masks by their names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.data.findings import Finding, count_of
from src.data.roles import Roles
from src.data.scans import ScanFile, list_scans, scan_at, split_suffix


@dataclass(frozen=True)
class Images:
    """The images of an INPUT.

    Attributes:
        root: The folder that their paths are relative to.
        scans: The images, sorted by path.
        stems: Of each, where its outputs go: relative to the output folder, without a suffix.
        masks: Paths of the masks among them, which are left out.
        findings: What is wrong with files or with the distances of slices.
    """

    root: Path
    scans: list[ScanFile]
    stems: list[str]
    masks: list[str]
    findings: list[Finding]

    def name_of(self, scan: ScanFile) -> str:
        """The path of a scan; the folder's name where the INPUT is itself a DICOM series."""
        return _name(self.root, scan)


def _name(root: Path, scan: ScanFile) -> str:
    return root.resolve().name if scan.path == "." else scan.path


def find_images(sources: Sequence[Path], mask_words: Sequence[str]) -> Images:
    """Finds the images in files and below folders.

    Args:
        sources: A single file, taken for an image whatever its name; a folder; or several of
            either, such as a pattern of the shell gives: their names are looked at, and slices of a
            DICOM series stay together.
        mask_words: Words in a name that make a file a mask.

    Returns:
        The images.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: The format is not read, or there is no image.
    """
    for source in sources:
        if not source.exists():
            raise FileNotFoundError(f"{source}: no such file or folder. Check the path.")
    first, *others = sources
    if first.is_file() and not others:
        root, scan = scan_at(first)
        return Images(root, [scan], _stems(root, [scan]), [], [])
    root = first
    if others:
        sources = [_placed(source) for source in sources]
        root = Path(os.path.commonpath([one if one.is_dir() else one.parent for one in sources]))
    found, findings = list_scans(root, sources if others else ())
    roles = Roles((), mask_words)
    scans: list[ScanFile] = []
    masks: list[str] = []
    for scan in found:
        images, drawn = roles.parted(scan)
        scans += images
        masks += [mask.path for mask in drawn]
    if not scans and not any(finding.severity == "error" for finding in findings):
        nothing = f"{count_of(len(masks), 'mask')} and no image" if masks else "no image"
        raise ValueError(
            f"{', '.join(map(str, sources[:3]))}: found {nothing}, "
            "expected PNG, TIFF, JPEG, BMP, DICOM, NIfTI, NRRD or MHA files. Name a folder that "
            "holds images; a word of data.mask_words (params.yaml) in the name of a file or folder "
            "makes it a mask."
        )
    return Images(root, scans, _stems(root, scans), masks, findings)


def _placed(source: Path) -> Path:
    """An absolute path without "..", so that no output can leave the output folder.

    A link keeps its name: what it leads to may be a file of DVC's cache.
    """
    if source.name in ("", ".."):
        return source.resolve()
    return source.parent.resolve() / source.name


def _stems(root: Path, scans: Sequence[ScanFile]) -> list[str]:
    """A name of its own for each scan: "a/b" for a/b.png, longer where a/b.tif stands beside it."""
    names = [_name(root, scan) for scan in scans]
    short = [split_suffix(name)[0] for name in names]
    number = Counter(stem.casefold() for stem in short)
    return [
        stem if number[stem.casefold()] == 1
        else f"{name}_{scan.series}" if len(scan.files) > 1
        else name
        for stem, name, scan in zip(short, names, scans, strict=True)
    ]  # fmt: skip
