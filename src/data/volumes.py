"""NIfTI, NRRD, MHA and single DICOM files -> values in HU and their place in space (SimpleITK)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
DETACHED = (".raw", ".zraw", ".raw.gz")  # the pixels of an .nhdr or .mhd beside them


@dataclass(frozen=True)
class Scan:
    """A stack of slices and its place in space.

    Attributes:
        array: (D, H, W); HU or label values, or, inside the readers, the stored values.
        spacing_mm: (z, y, x).
        origin: Of the first voxel's centre, (x, y, z) in mm; None where the file does not say.
        direction: Nine direction cosines, row by row, as ITK has them; None likewise.
        stored_dtype: Type of the values in the file, e.g. "int16".
    """

    array: NDArray[Any]
    spacing_mm: tuple[float, float, float]
    origin: tuple[float, ...] | None
    direction: tuple[float, ...] | None
    stored_dtype: str


def read_volume(path: Path, name: str) -> Scan:
    """Reads a file through SimpleITK; rescaling that the file prescribes has been applied.

    Args:
        path: A volume, or a DICOM file of one or several frames.
        name: What to call it in a message.

    Returns:
        The scan. A 2-D file becomes a stack of one.

    Raises:
        ValueError: Cut off, damaged, in colour, or with more than three dimensions.
    """
    import SimpleITK as sitk  # noqa: N813 - the name that its manual uses

    is_nifti = path.name.lower().endswith((".nii", ".nii.gz"))
    problem = _nifti_defect(path) if is_nifti else ""
    if problem:
        raise _unreadable(name, problem)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # findings say it better
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].replace(str(path), path.name)
        raise _unreadable(name, f"a damaged, cut off or foreign file ({reason})") from error
    size = image.GetSize()
    if len(size) == 4 and size[3] == 1:
        image = image[..., 0]
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ValueError(
            f"{name}: found size {size} with {image.GetNumberOfComponentsPerPixel()} values a "
            "voxel, expected a 3-D volume with one. Save each time point or channel by itself."
        )
    array = sitk.GetArrayFromImage(image)
    if is_nifti and array.dtype.kind == "f":
        array[~_finite(path).reshape(array.shape)] = np.nan
    stored = str(array.dtype)
    if image.HasMetaDataKey("0028|0100"):  # DICOM: SimpleITK's type is that after rescaling
        sign = "int" if image.GetMetaData("0028|0103").strip() == "1" else "uint"
        stored = sign + image.GetMetaData("0028|0100").strip()
    x, y, z = image.GetSpacing()
    return Scan(array, (z, y, x), image.GetOrigin(), image.GetDirection(), stored)


def holds_several(path: Path) -> bool:
    """Whether a file has several slices, by its head alone; False where it cannot be read."""
    import SimpleITK as sitk  # noqa: N813 - the name that its manual uses

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return False
    return bool(math.prod(reader.GetSize()[2:]) > 1)


def _unreadable(name: str, problem: str) -> ValueError:
    return ValueError(f"{name}: found {problem}, expected a whole volume. Copy or export it again.")


def _nifti_defect(path: Path) -> str:
    """Whether a NIfTI file is shorter than its head says; ITK reads such a file without a word."""
    if not path.stat().st_size:
        return "an empty file"
    try:
        with _unpacked(path) as stream:
            head = _nifti_head(stream.read(544))
        needed = head.start + head.voxels * head.bits // 8
        if not path.name.lower().endswith(".gz"):
            held = path.stat().st_size
            return f"{held} bytes where the head says {needed}" if held < needed else ""
        # A gzip file ends with its unpacked length, modulo 2**32: quick to compare.
        with path.open("rb") as stream:
            stream.seek(-4, 2)
            (held,) = struct.unpack("<I", stream.read(4))
        if held == needed % 2**32:
            return ""
        with gzip.open(path) as stream:  # several parts, or padding: unpack to be sure
            held = sum(len(part) for part in iter(lambda: stream.read(1 << 20), b""))
        return f"{held} unpacked bytes where the head says {needed}" if held < needed else ""
    except (EOFError, gzip.BadGzipFile, zlib.error, struct.error, ValueError) as error:
        return f"a NIfTI file that is cut off or damaged ({error})"


def _finite(path: Path) -> NDArray[np.bool_]:
    """(V,) whether each voxel of a whole NIfTI file is a number; ITK reads 0 where it is none."""
    with _unpacked(path) as stream:
        content = stream.read()
    head = _nifti_head(content)
    if head.kind not in _FLOATS:
        return np.ones(head.voxels, dtype=bool)
    kind = np.dtype(_FLOATS[head.kind]).newbyteorder(head.order)
    return np.isfinite(np.frombuffer(content, kind, head.voxels, head.start))


_FLOATS = {16: np.float32, 64: np.float64}


def _unpacked(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.open(path))
    return path.open("rb")


class _NiftiHead(NamedTuple):
    order: Literal["<", ">"]
    kind: int
    bits: int
    voxels: int
    start: int


def _nifti_head(head: bytes) -> _NiftiHead:
    """What the head of a NIfTI file says about the bytes of its voxels.

    Source: nifti1.h and nifti2.h, the fields sizeof_hdr, dim, datatype, bitpix and vox_offset.
    """
    orders: tuple[Literal["<", ">"], ...] = ("<", ">")
    for order in orders:
        (size,) = struct.unpack_from(order + "i", head)
        if size == 348:
            shape = struct.unpack_from(order + "8h", head, 40)
            kind, bits = struct.unpack_from(order + "2h", head, 70)
            (start,) = struct.unpack_from(order + "f", head, 108)
        elif size == 540:
            shape = struct.unpack_from(order + "8q", head, 16)
            kind, bits = struct.unpack_from(order + "2h", head, 12)
            (start,) = struct.unpack_from(order + "q", head, 168)
        else:
            continue
        if not 1 <= shape[0] <= 7:
            break
        voxels = math.prod(max(length, 1) for length in shape[1 : shape[0] + 1])
        return _NiftiHead(order, kind, bits, voxels, int(start))
    raise ValueError("no NIfTI head")
