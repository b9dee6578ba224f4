"""What made a run: the hashes of data and split, the commit, the parameters; and its name."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from src.files import md5_of

# Scores can be compared where these are equal: of the same images, patients and meaning of a mask.
COMPARABLE = ("data_hash", "split_hash", "truth_hash")
PROVENANCE = (*COMPARABLE, "git_commit", "git_dirty")
UNKNOWN = "none"  # what a tag says where there is no data.dvc, no split or no git repository


def data_hash(root: Path) -> str:
    """The MD5 of the data folder as `data.dvc` has it, or "none" where there is no data.dvc.

    Raises:
        ValueError: if data.dvc holds no MD5.
    """
    path = Path(root) / "data.dvc"
    if not path.exists():
        return UNKNOWN
    from ruamel.yaml import YAML

    content = YAML(typ="safe").load(path)
    try:
        return str(content["outs"][0]["md5"])
    except (KeyError, IndexError, TypeError):
        raise ValueError(
            f"data.dvc must name one output with its md5, got {content!r}. Run: "
            "python -m src.ingest data"
        ) from None


def split_hash(path: Path, fold: int | None = None) -> str:
    """The MD5 of the split table, or "none" where it does not exist.

    Args:
        path: The table; with a fold it has a column of that name.
        fold: Of the rows of this fold alone, so that a run keeps its hash when other folds are
            added. Where the table holds one fold it is the MD5 of the file, as in dvc.lock.
    """
    if not Path(path).exists():
        return UNKNOWN
    if fold is None:
        return md5_of(Path(path))
    with Path(path).open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    column, text = header.index("fold"), io.StringIO()
    chosen = [header, *(row for row in rows if row[column] == str(fold))]
    csv.writer(text, lineterminator="\n").writerows(chosen)
    return hashlib.md5(text.getvalue().encode(), usedforsecurity=False).hexdigest()


def git_state(root: Path) -> tuple[str, bool]:
    """The commit that is checked out, and whether files differ from it.

    dvc.lock is left out of the comparison: the pipeline itself rewrites it while it runs.

    Returns:
        `(commit, dirty)`: 40 hex digits; `("none", True)` without a git repository, a commit or
        git itself, as nothing then says what code ran.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        commit = git("rev-parse", "--verify", "HEAD")
        return commit, bool(git("status", "--porcelain", "--", ".", ":(exclude)dvc.lock"))
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN, True


def provenance(
    root: Path, split: Path, truth: Mapping[str, Any], fold: int | None = None
) -> dict[str, str]:
    """The tags that say what made a run: hashes of data, split and truth, git commit, dirty flag.

    Args:
        root: Where the code runs: the repository, or DVC's temporary copy of it.
        split: The split table.
        truth: What the values in masks mean: its hash is the truth hash.
        fold: The fold of the run; None for a run of all folds in the table.
    """
    commit, dirty = git_state(root)
    hashes = (data_hash(root), split_hash(split, fold), short_hash(truth))
    return dict(zip(PROVENANCE, (*hashes, commit, str(dirty).lower()), strict=True))


def short_hash(parameters: Mapping[str, Any]) -> str:
    """Six hex digits, equal for equal parameters in any order."""
    canonical = json.dumps(parameters, sort_keys=True, default=str)
    return hashlib.md5(canonical.encode(), usedforsecurity=False).hexdigest()[:6]


def run_name(label: str, parameters: Mapping[str, Any]) -> str:
    """A name to tell runs apart by: `unet, 3f9c1e`. Equal parameters give an equal name."""
    return f"{label}, {short_hash(parameters)}"


def flatten(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as `{"train.learning_rate": "0.001"}`; lists are written as JSON.

    Absolute paths are withheld, as they may name a patient.
    """
    flat: dict[str, str] = {}
    for key, value in parameters.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
            flat[name] = "(absolute path withheld)" if absolute else text
    return flat
