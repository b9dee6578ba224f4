"""Files and folders that are either whole or absent.

A run that is killed, or a disk that fills up, must not leave half an output that the next stage
takes for a whole one. Everything is written beside its destination and renamed when complete.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOT_FOR_GIT = ".gitignore"
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Makes a refusal of the system name `path`: what is written aside means nothing to a reader.

    A full disk is told of no file at all, a read-only folder of the one beside the destination.
    """
    try:
        yield
    except OSError as error:
        aside = error.filename is None or f".{path.name}-" in str(error.filename)
        if aside and error.errno in _REFUSALS:
            error.filename = str(path)
        raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a path to write to; it becomes `path` when the block ends without an error.

    Args:
        path: The destination; its folder is made where it is missing. An older file is replaced.

    Yields:
        A path beside the destination, with the same suffix.
    """
    with _opened_aside(path) as (handle, aside):
        os.close(handle)
        yield aside


@contextmanager
def _opened_aside(path: Path) -> Iterator[tuple[int, Path]]:
    """`whole_file`, with the file opened; it must be closed when the block ends."""
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Both parts of .nii.gz: what writes the file may tell its format by its name.
        suffix = "".join(path.suffixes[-2:])
        handle, name = tempfile.mkstemp(suffix, f".{path.name}-", path.parent)
        aside = Path(name)
        try:
            yield handle, aside
            aside.chmod(0o644)
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a folder to fill; it becomes `path` when the block ends without an error.

    Args:
        path: The destination; of a link, what it leads to. An older folder is replaced, at the very
            end.

    Yields:
        An empty folder beside the destination.

    Raises:
        ValueError: The older folder cannot be moved away; the message names the new one.
    """
    path = path.resolve() if path.is_symlink() else path
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            yield aside
            aside.chmod(0o755)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        _put(aside, path)


def _put(made: Path, path: Path) -> None:
    """Puts a finished folder in the place of an older one; neither is lost where that fails."""
    old = made.with_name(f"{made.name}-old")
    held = path.exists()
    try:
        if held:
            old.mkdir()
            path.replace(old)
        made.replace(path)
    except OSError as error:
        if held and not path.exists():
            old.replace(path)
        raise ValueError(
            f"{path}: found what cannot be moved away ({error.strerror}), such as a mounted disk, "
            "expected a folder that can be replaced. What was made is whole and is kept as "
            f"{made}: move it to its place. Name a folder within the mounted one another time."
        ) from error
    finally:
        shutil.rmtree(old, ignore_errors=True)  # what may not be deleted stays, as a hidden folder


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file."""
    # Opened once: a file that is truncated, though it be empty, is sent to the disk when closed.
    with _opened_aside(path) as (handle, _), os.fdopen(handle, "wb") as stream:
        stream.write(content)


def write_text(path: Path, text: str) -> None:
    """Writes a whole UTF-8 text file."""
    write_bytes(path, text.encode())


def keep_from_git(folder: Path, repository: Path) -> None:
    """Lets git pass over a folder that holds what was made of patients, where it would see it."""
    inside = folder.resolve().is_relative_to(repository.resolve())
    if inside and (repository / ".git").exists() and not (folder / NOT_FOR_GIT).exists():
        write_text(folder / NOT_FOR_GIT, "*\n")


def md5_of(path: Path) -> str:
    """The MD5 of a file, in hexadecimal; the hash that DVC uses."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
