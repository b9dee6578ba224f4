"""What every method of a benchmark gets: the same patients on the same sides, as NIfTI volumes.

The split is made by this project's own stages in a copy of the repository, so that a benchmark
touches neither data/, nor models/, nor the MLflow store of the checkout it is started from.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from src import terminal
from src.config import load_params
from src.data.masks import class_indices, whole_numbers
from src.files import whole_file, write_text

ROOT = Path(__file__).resolve().parent.parent
SUBSETS = ("train", "validation", "test")
# Epochs and warm-up are multiplied by this: the clock alone ends training, and the warm-up keeps
# its share of it.
MANY = 100


@dataclass(frozen=True)
class Setting:
    """The patients of a benchmark.

    Attributes:
        folder: Holds SUBSET/images/NAME.nii.gz and SUBSET/masks/NAME.nii.gz (class indices).
        repository: The copy of this repository in which the split was made.
        classes: Class names in the order of the class index.
        window: (low, high) in HU, from the parameters; what all methods but nnU-Net, which plans
            its own, are shown.
        patients: Side -> pseudonyms, sorted.
        environment: Of the processes that are started.
    """

    folder: Path
    repository: Path
    classes: tuple[str, ...]
    window: tuple[float, float]
    patients: dict[str, list[str]]
    environment: Mapping[str, str]


def make_setting(data: Path, params: Path, out: Path, cores: int) -> Setting:
    """Copies the repository, brings the data in, splits the patients, writes the volumes.

    What an earlier call finished in `out` is taken as it is, code and split included. This process
    and those it starts are bound to `cores`.

    Args:
        data: Folder of scans and masks, one volume a patient.
        params: The params.yaml of the benchmark.
        out: Folder of the benchmark, absolute; made where it is missing. It will hold scans: within
            this repository it must be one that git ignores.
        cores: Of each training.

    Returns:
        The setting.

    Raises:
        FileNotFoundError: There is no folder `data`.
        ValueError: The data are not one volume a patient, the window is none of level and width, or
            git would take what is written to `out`.
        subprocess.CalledProcessError: A stage failed; its message stands in setting.log.
    """
    _refuse_to_publish(out)
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: no such folder. Name the folder of scans in --data.")
    out.mkdir(parents=True, exist_ok=True)
    bind_to_cores(cores)
    environment = limited_environment(cores)
    repository, folder, log = out / "repository", out / "cases", out / "setting.log"
    if not (folder / "cases.json").is_file():
        for half_made in (repository, folder):
            shutil.rmtree(half_made, ignore_errors=True)
        with terminal.console.status(f"splitting the patients: log in {log}"):
            copy_repository(repository, params)
            _leave_the_end_to_the_clock(repository / "params.yaml")
            for command in (
                [sys.executable, "-m", "src.ingest", str(data.resolve())],
                [sys.executable, "-m", "dvc", "repro", "prepare"],
            ):
                run_logged(command, cwd=repository, log=log, environment=environment)
            _write_cases(repository, folder)
    content = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    return Setting(
        folder=folder,
        repository=repository,
        classes=tuple(content["classes"]),
        window=tuple(content["window"]),
        patients={subset: content[subset] for subset in SUBSETS},
        environment=environment,
    )


def _refuse_to_publish(out: Path) -> None:
    """Raises where git, and so the copy of the repository another time, would take the scans."""
    if not out.is_relative_to(ROOT):
        return
    command = ["git", "check-ignore", "--quiet", str(out / "cases")]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise ValueError(
            f"--out {out}: found a folder of this repository that git does not ignore, expected "
            "one that it ignores, such as accuracy/, ablation/ or precision/, or one elsewhere: it "
            "will hold copies of the scans. Name another --out."
        )


def finished(result: Path, method: str, **conditions: float) -> dict[str, Any] | None:
    """What an earlier call wrote of a training that it finished; None where it did not.

    Args:
        result: Its result.json.
        method: What was trained, for people.
        **conditions: Options of the command, such as minutes=10.0, which result.json repeats.

    Raises:
        ValueError: It was trained under other conditions.
    """
    if not result.is_file():
        return None
    content: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    for option, value in conditions.items():
        if content[option] != value:
            raise ValueError(
                f"{method} was trained with --{option} {content[option]}, not {value}. Name "
                f"another --out, or the same --{option}."
            )
    return content


def copy_repository(target: Path, params: Path) -> None:
    """Copies what git would keep, without the demo data, as a repository of one commit.

    Args:
        target: A folder that is not there yet.
        params: Becomes its params.yaml.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        # data.dvc names the demo; a file may be listed by git and deleted in the working tree.
        if name.startswith("demo-remote/") or name == "data.dvc" or source.is_symlink():
            continue
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    shutil.copyfile(params, target / "params.yaml")
    author = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
    for command in (
        ["git", "init", "--quiet"],
        ["git", "add", "--all"],
        ["git", *author, "commit", "--quiet", "--message", "Copied for a benchmark"],
    ):
        subprocess.run(command, cwd=target, check=True)


def set_parameters(path: Path, changes: Mapping[str, Any]) -> None:
    """Changes parameters in a params.yaml and keeps the rest of it, comments included.

    Args:
        path: The file.
        changes: "group.name" -> value.

    Raises:
        ValueError: The file has no such parameter.
    """
    yaml = YAML()
    content = yaml.load(path)
    for name, value in changes.items():
        *groups, last = name.split(".")
        node = content
        for group in groups:
            node = node.get(group, {})
        if last not in node:
            raise ValueError(
                f"{path.name} has no parameter {name}. Add it to the file in --params."
            )
        node[last] = value
    with whole_file(path) as aside:
        yaml.dump(content, aside)


def _leave_the_end_to_the_clock(path: Path) -> None:
    """Raises epochs and patience out of reach."""
    train = load_params(path).train
    set_parameters(
        path,
        {
            "train.epochs": train.epochs * MANY,
            "train.warmup_epochs": train.warmup_epochs * MANY,
            "train.patience": train.epochs * MANY,
        },
    )


def _write_cases(repository: Path, folder: Path) -> None:
    """Writes the volumes of each side under pseudonyms, and cases.json last of all."""
    import pandas as pd
    import SimpleITK as sitk  # noqa: N813

    params = load_params(repository / "params.yaml")
    window = params.prepare.window
    if window.kind != "level_width":
        raise ValueError(
            f"prepare.window.kind is {window.kind!r}: the peers need the window in HU. Set "
            "{kind: level_width, level: …, width: …} in the file in --params."
        )
    cases = pd.read_csv(repository / "prepared" / "cases.csv", dtype=str, keep_default_na=False)
    sides = pd.read_csv(repository / "prepared" / "split.csv", dtype=str, keep_default_na=False)
    volumes = cases.drop_duplicates(["patient", "image_path", "mask_path"]).merge(sides)
    if volumes["patient"].duplicated().any() or len(volumes) != len(sides):
        raise ValueError(
            f"found {len(volumes)} pairs of image and mask for {len(sides)} patients, expected "
            "one volume with its mask a patient (NIfTI, NRRD or MHA)."
        )
    for row in volumes.itertuples():
        image = sitk.ReadImage(str(repository / "data" / row.image_path))
        mask = sitk.ReadImage(str(repository / "data" / row.mask_path))
        values = whole_numbers(sitk.GetArrayFromImage(mask), row.mask_path)
        classes = sitk.GetImageFromArray(
            class_indices(values, params.data.labels, params.data.classes)
        )
        classes.CopyInformation(image)
        for kind, volume in (("images", image), ("masks", classes)):
            target = folder / row.subset / kind / f"{row.pseudonym}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(volume, str(target), useCompression=True)
    content = {
        "classes": list(params.data.classes),
        "window": [window.level - window.width / 2, window.level + window.width / 2],
        **{
            subset: sorted(volumes.loc[volumes["subset"] == subset, "pseudonym"])
            for subset in SUBSETS
        },
    }
    write_text(folder / "cases.json", json.dumps(content, indent=2) + "\n")


def read_mask(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    """The class indices of a mask volume, (D, H, W) of whole numbers."""
    import SimpleITK as sitk  # noqa: N813

    return whole_numbers(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), path.name)


def run_logged(
    command: Sequence[str], *, cwd: Path, log: Path, environment: Mapping[str, str]
) -> None:
    """Runs a command; it and what it prints are added to a log.

    Raises:
        subprocess.CalledProcessError: The command failed; its message stands in the log.
    """
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")
        file.flush()
        subprocess.run(command, cwd=cwd, env=environment, stdout=file, stderr=file, check=True)


def limited_environment(cores: int) -> dict[str, str]:
    """The environment of the methods: so many threads, and no store of the user's.

    Args:
        cores: Threads of each library; the process is bound to as many cores where the system can.
    """
    environment = dict(os.environ)
    environment.pop("MLFLOW_TRACKING_URI", None)
    threads = (
        "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    )  # fmt: skip
    return {
        **environment,
        **dict.fromkeys(threads, str(cores)),
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # DVC starts the stages as `python`: that must be this one.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
    }


def bind_to_cores(cores: int) -> None:
    """Binds this process and those it starts to so many cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:cores])
