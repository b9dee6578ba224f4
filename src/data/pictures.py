"""PNG, TIFF, JPEG and BMP files -> stored values; a file that was cut off is an error.

Decoders differ in what they do with a file that ends early: some versions of OpenCV fill the rest
with grey or zeros and say nothing. The structure of the file is therefore checked before decoding.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
_HEAD = 1 << 16  # bytes, among which a PNG says whether it is animated


@dataclass(frozen=True)
class PictureScale:
    """What the stored values and pixels of pictures mean; the files do not say it.

    Attributes:
        slope: HU = slope * stored value + intercept.
        intercept: In HU.
        spacing_mm: (y, x) of a pixel.
        thickness_mm: Distance of neighbouring slices.
    """

    slope: float
    intercept: float
    spacing_mm: tuple[float, float]
    thickness_mm: float

    def hu(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Stored values -> HU, float32 of the same shape."""
        values = stored.astype(np.float32)
        if self.slope != 1:
            values *= np.float32(self.slope)
        if self.intercept != 0:
            values += np.float32(self.intercept)
        return values


NO_SCALE = PictureScale(1.0, 0.0, (1.0, 1.0), 1.0)
"""Of what has no HU, or says its own: masks, volumes and DICOM."""


def decode(path: Path | str, name: str) -> NDArray[Any]:
    """Decodes a picture, every page of it.

    Args:
        path: The file.
        name: What to call it in a message.

    Returns:
        (D, H, W) stored values, or (D, H, W, 3) in the order red, green, blue where the file is in
        colour; transparency is dropped. uint8, uint16, int16 or float, as stored.

    Raises:
        ValueError: The file is cut off, damaged, or its pages differ in size.
    """
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - pathlib takes twice as long
        content = stream.readall()
    problem = _defect(content)
    if problem:
        raise _unreadable(name, problem)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # findings say it better
    try:
        pages = _pages(content)
    except cv2.error as error:
        raise _unreadable(name, str(error.err or error)) from error
    if not pages:
        raise _unreadable(name, "bytes that cannot be decoded")
    shapes = {page.shape for page in pages}
    if len(shapes) > 1:
        raise ValueError(
            f"{name}: found pages of different sizes or channels {sorted(shapes)}, expected one "
            "size in a stack. Save each size as a file of its own."
        )
    stack = np.stack(pages) if len(pages) > 1 else pages[0][None]
    if stack.ndim == 3:
        return stack
    return stack[..., 0] if stack.shape[3] == 1 else stack[..., 2::-1]


def _pages(content: bytes) -> Sequence[NDArray[Any]]:
    """The decoded pages; none where they cannot be decoded."""
    buffer = np.frombuffer(content, np.uint8)
    if _is_animated(content) or content.startswith((b"II", b"MM")):
        whole, pages = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED)
        return pages if whole else ()
    page = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)  # quicker for what has one page only
    return () if page is None else (page,)


def holds_several(path: Path) -> bool:
    """Whether a picture has several pages, by its head alone; False where it cannot be read."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
        if head.startswith((b"II", b"MM")):
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
            return cv2.imcount(str(path), cv2.IMREAD_UNCHANGED) > 1
    except (OSError, cv2.error):
        return False
    return _is_animated(head)


def single_channel(stack: NDArray[Any], name: str) -> NDArray[Any]:
    """(D, H, W) of a picture whose channels agree; a colour image holds no HU.

    Raises:
        ValueError: The channels differ.
    """
    if stack.ndim == 3:
        return stack
    if (stack == stack[..., :1]).all():
        return stack[..., 0]
    raise ValueError(
        f"{name}: found a colour image, expected one value a pixel (a CT slice). Export it in grey "
        "values, best as 16-bit PNG; if it is a mask, let a word of data.mask_words stand in its "
        "name or folder."
    )


def _is_animated(content: bytes) -> bool:
    """Whether a file is an animated PNG, which says so before its first pixels."""
    return content.startswith(b"\x89PNG") and b"acTL" in content[: content.find(b"IDAT")]


def _unreadable(name: str, problem: str) -> ValueError:
    return ValueError(
        f"{name}: found {problem}, expected a whole picture. Copy or export the file again."
    )


def _defect(content: bytes) -> str:
    """What is wrong with the structure of the file; empty where nothing is."""
    if not content:
        return "an empty file"
    try:
        if content.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png_defect(content)
        if content.startswith(b"\xff\xd8"):
            # 0xFFD9 cannot occur inside compressed data, but may in a preview before it.
            whole = b"\xff\xd9" in content[max(content.rfind(b"\xff\xda"), 0) :]
            return "" if whole else "a JPEG without its end marker: the file is cut off"
        if content.startswith(b"BM"):
            return _bmp_defect(content)
        if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _tiff_defect(content)
    except (struct.error, IndexError):
        return f"a file that ends early, after {len(content)} bytes"
    return "the bytes of another format or a damaged head"


def _png_defect(content: bytes) -> str:
    view = memoryview(content)
    place = 8
    while place < len(content):
        (length,) = struct.unpack_from(">I", content, place)
        kind, end = content[place + 4 : place + 8], place + 12 + length
        if end > len(content):
            break
        (checksum,) = struct.unpack_from(">I", content, end - 4)
        if zlib.crc32(view[place + 4 : end - 4]) != checksum:
            return f"a PNG with a damaged {kind.decode('latin-1')} block (checksum differs)"
        if kind == b"IEND":
            return ""
        place = end
    return f"a PNG without its end marker: the file is cut off after {len(content)} bytes"


def _bmp_defect(content: bytes) -> str:
    start, _, width, height = struct.unpack_from("<IIii", content, 10)
    bits, compression, image_bytes = struct.unpack_from("<HII", content, 28)
    if compression in (1, 2):  # run lengths: the size is written in the head
        needed = start + image_bytes
    else:
        needed = start + (width * bits + 31) // 32 * 4 * abs(height)
    if len(content) < needed:
        return f"a BMP of {len(content)} bytes that needs {needed}: the file is cut off"
    return ""


_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}


def _tiff_defect(content: bytes) -> str:
    """Walks the pages; each strip or tile must lie within the file."""
    order = "<" if content.startswith(b"II") else ">"
    big = content[2:4] in (b"+\0", b"\0+")
    offset, count, entry_bytes = ("Q", "Q", 20) if big else ("I", "H", 12)
    (place,) = struct.unpack_from(order + offset, content, 8 if big else 4)
    seen = set()
    while place and place not in seen:
        seen.add(place)
        (entries,) = struct.unpack_from(order + count, content, place)
        place += struct.calcsize(count)
        tags = {}
        for index in range(entries):
            start = place + index * entry_bytes
            tag, kind = struct.unpack_from(order + "HH", content, start)
            if tag not in (273, 279, 324, 325) or kind not in _TIFF_TYPES:
                continue
            (number,) = struct.unpack_from(order + offset, content, start + 4)
            where = start + 4 + struct.calcsize(offset)
            form = f"{order}{number}{_TIFF_TYPES[kind]}"
            if struct.calcsize(form) > struct.calcsize(offset):
                (where,) = struct.unpack_from(order + offset, content, where)
            tags[tag] = struct.unpack_from(form, content, where)
        for starts, lengths in ((273, 279), (324, 325)):
            ends = [
                a + b for a, b in zip(tags.get(starts, ()), tags.get(lengths, ()), strict=False)
            ]
            if ends and max(ends) > len(content):
                return f"a TIFF of {len(content)} bytes that needs {max(ends)}: it is cut off"
        (place,) = struct.unpack_from(order + offset, content, place + entries * entry_bytes)
    return ""
