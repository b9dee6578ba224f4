"""What the words in a path say: image or mask, and what is left of the name without them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from src.data.scans import ScanFile, split_suffix

Words = tuple[str, ...]

_PARTS = 4096  # parts of paths whose words are kept


@dataclass(frozen=True, slots=True)
class Name:
    """What is left of a path without role words.

    Attributes:
        folders: The words of each folder that has any.
        stem: The words of the file name, or of the last folder of a DICOM series.
    """

    folders: tuple[Words, ...]
    stem: Words

    @property
    def row(self) -> Words:
        """All words in a row."""
        return tuple(word for folder in self.folders for word in folder) + self.stem


class Roles:
    """Tells masks from images by words in names, and takes these words out.

    A word counts where no letter stands beside it: "mask" does in "mask001" and "P1_mask", not in
    "unmasked". Upper and lower case are the same.
    """

    def __init__(self, image_words: Sequence[str], mask_words: Sequence[str]) -> None:
        self.mask_words = tuple(mask_words)
        self._masks = _pattern(mask_words)
        self._all = _pattern((*image_words, *mask_words))
        # The parts of paths recur: folders above many files, the names of slices in many folders.
        self._words = lru_cache(_PARTS)(self._words_of)
        self._says_mask = lru_cache(_PARTS)(self._mask_word_in)

    def is_mask(self, path: str) -> bool:
        """Whether a mask word stands in the name or in a folder of a relative path."""
        return any(map(self._says_mask, _parts(path)))

    def parted(self, scan: ScanFile) -> tuple[list[ScanFile], list[ScanFile]]:
        """The images and the masks among the files of a scan; a DICOM SEG is a mask.

        Where they share a folder and a series number, the images stay a series, and each mask is a
        scan of its own, for their folder names the images.
        """
        drawn = tuple(file for file in scan.files if self.is_mask(file))
        if scan.kind == "dicom-seg" or len(drawn) == len(scan.files):
            return [], [scan]
        if not drawn:
            return [scan], []
        rest = replace(scan, files=tuple(file for file in scan.files if file not in drawn))
        images = [rest] if len(rest.files) > 1 else rest.single_files()
        return images, replace(scan, files=drawn).single_files()

    def is_role(self, folder: str) -> bool:
        """Whether nothing but role words stands in a folder's name."""
        return not self._words(folder)

    def name(self, path: str) -> Name:
        """The words of a relative path, without role words."""
        words = [self._words(part) for part in _parts(path)] or [()]
        return Name(tuple(folder for folder in words[:-1] if folder), words[-1])

    def _mask_word_in(self, part: str) -> bool:
        return self._masks.search(part.casefold()) is not None

    def _words_of(self, part: str) -> Words:
        return tuple(re.findall(r"[^\W_]+", self._all.sub(" ", part.casefold())))


def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    longest_first = sorted({word.casefold() for word in words if word}, key=len, reverse=True)
    choice = "|".join(re.escape(word) for word in longest_first) or "(?!)"
    return re.compile(rf"(?<![^\W\d_])(?:{choice})(?![^\W\d_])")


def _parts(path: str) -> list[str]:
    *folders, name = path.split("/")
    return [*folders, split_suffix(name)[0]] if name not in ("", ".") else folders
