"""What networks and folds left that params.yaml lists no longer: taken out of the workspace.

DVC lets the outputs of stages that are gone lie. `compare` depends on the folders above the outputs
of all networks, so that dvc.lock would get hashes that no other clone can repeat.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from shutil import rmtree

from ruamel.yaml import YAML

from src import terminal
from src.config import ARCHITECTURES
from src.data.findings import some_of
from src.files import md5_of

OF_NETWORKS = ("models", "reports/curves", "reports/evaluation", "prepared/predictions")
OF_FOLDS = "prepared/arrays"


def remove_unlisted(root: Path, architectures: Sequence[str], folds: Iterable[int]) -> None:
    """Removes the outputs of networks and folds that are not listed, and says which.

    Only what dvc.lock has a hash of and DVC's cache holds, as it is there: the cache then brings it
    back, without a training, when it is listed again. Anything else is left and warned of. The
    checkpoints of unfinished trainings lie elsewhere.

    Args:
        root: The folder with dvc.lock.
        architectures: Those of params.yaml.
        folds: `split.fold` of params.yaml.
    """
    unlisted = {
        folder.relative_to(root).as_posix(): folder
        for folder in _unlisted(root, architectures, folds)
    }
    locked = _locked(root / "dvc.lock")
    known = {
        name: now
        for name, folder in unlisted.items()
        if (now := _dvc_hash(folder)) == locked.get(name)
    }
    cache = _cache(root) if known else root
    removed, left = [], []
    for name, folder in unlisted.items():
        held = known.get(name)
        if held is None or not (cache / held[:2] / held[2:]).is_file():
            left.append(name)
            continue
        rmtree(folder)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()
        removed.append(name)
    if removed:
        terminal.console.print(
            f"removed what params.yaml does not list: {some_of(removed, 4)}. DVC's cache keeps it: "
            "listed again, it comes back with `dvc repro`, without a training."
        )
    if left:
        terminal.warn(
            f"found {some_of(left, 4)}, which params.yaml does not list and DVC's cache does not "
            "hold as it is. It was left there, and dvc.lock has hashes now that no other clone can "
            "repeat. Move it away, or list it in architectures and split.fold."
        )


def _unlisted(root: Path, architectures: Sequence[str], folds: Iterable[int]) -> list[Path]:
    """The folders of known names, such as models/unet/fold0, of no listed network and fold."""
    listed = {f"fold{fold}" for fold in folds}
    parents = {root / OF_FOLDS: True} | {
        root / place / name: name in architectures
        for place in OF_NETWORKS
        for name in ARCHITECTURES
    }
    return [
        folder
        for parent, is_listed in parents.items()
        for folder in sorted(parent.glob("fold*"))
        if re.fullmatch(r"fold\d+", folder.name)
        and folder.is_dir()
        and not folder.is_symlink()
        and not (is_listed and folder.name in listed)
    ]


def _locked(path: Path) -> dict[str, str]:
    """Output -> its hash in dvc.lock, which keeps those of stages that are gone."""
    content = YAML(typ="safe").load(path) if path.is_file() else {}
    stages = content.get("stages", {}).values()
    return {out["path"]: out.get("md5", "") for stage in stages for out in stage.get("outs", [])}


def _cache(root: Path) -> Path:
    """Where DVC keeps the files by their hash; it may be shared, and lie elsewhere."""
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    told = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    return Path(told.strip()) / "files" / "md5"


def _dvc_hash(folder: Path) -> str:
    """The hash that DVC has of a folder: of the list of its files and their hashes."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    listed = [
        {"md5": md5_of(path), "relpath": name}
        for name, path in sorted(files.items())
        if path.is_file()
    ]
    text = json.dumps(listed, sort_keys=True).encode()
    return f"{hashlib.md5(text, usedforsecurity=False).hexdigest()}.dir"
