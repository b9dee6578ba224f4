"""This project as a method of a benchmark: its own stages, then its own `predict`."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import scoring
from benchmarks.setting import Setting, finished, run_logged, set_parameters
from src import terminal
from src.config import load_params
from src.files import write_text


def validation_overlap(
    name: str, folder: Path, setting: Setting, changes: Mapping[str, Any], **conditions: float
) -> dict[str, dict[str, float]]:
    """Trains a U-Net and scores the validation patients, unless an earlier call did it.

    Args:
        name: What is trained, for people.
        folder: Made anew unless it holds the result.json of a finished training.
        setting: The patients; its repository is worked in.
        changes: As in `train_and_segment`.
        **conditions: As in `finished`.

    Returns:
        "dice" and "iou" -> patient -> value.

    Raises:
        ValueError: An earlier call had other conditions.
        subprocess.CalledProcessError: A stage failed; its message stands in log.txt.
    """
    result = folder / "result.json"
    content = finished(result, name, **conditions)
    if content is None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with terminal.console.status(f"{name}: log in {folder / 'log.txt'}"):
            train_and_segment(folder, setting, "unet", changes, ("validation",))
        content = {**conditions, **scoring.side_overlap(folder, setting, "validation")}
        write_text(result, json.dumps(content, indent=2) + "\n")
        dice = content["dice"].values()
        terminal.console.print(f"{name}: validation Dice {sum(dice) / len(dice):.3f}")
    return content


def train_and_segment(
    folder: Path,
    setting: Setting,
    architecture: str,
    changes: Mapping[str, Any],
    sides: Sequence[str],
) -> None:
    """Trains a network in the copy of the repository and segments patients with it.

    Args:
        folder: SIDE/NAME.nii.gz, training.json and log.txt appear in it.
        setting: The patients; its repository is worked in.
        architecture: Name of the network.
        changes: "group.name" -> value, in params.yaml; they stay there.
        sides: Of which the patients are segmented.

    Raises:
        subprocess.CalledProcessError: A stage failed; its message stands in log.txt.
    """
    repository = setting.repository
    file = repository / "params.yaml"
    run = partial(
        run_logged, cwd=repository, log=folder / "log.txt", environment=setting.environment
    )
    set_parameters(file, {"architectures": [architecture], **changes})
    # A model of an earlier repeat may stand in DVC's cache with its own seconds: train anew.
    for arguments in (["prepare"], ["--single-item", "--force", f"train@{architecture}-0"]):
        run([sys.executable, "-m", "dvc", "repro", *arguments])
    for side in sides:
        found = folder / "predicted" / side
        images = setting.folder / side / "images"
        command = [sys.executable, "-m", "src.predict", str(images), "--out", str(found)]
        command += ["--model", f"models/{architecture}/fold0", "--format", "nifti"]
        run(command)
        for name in setting.patients[side]:
            target = folder / side / f"{name}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(found / f"{name}_mask.nii.gz", target)
    model = repository / "models" / architecture / "fold0"
    trained = json.loads((model / "run.json").read_text(encoding="utf-8"))
    params = load_params(file)
    summary = {
        **{key: trained[key] for key in ("seconds", "steps", "epochs", "parameters", "precision")},
        "images": trained["steps"] * params.train.batch_size,
        "checkpoint": f"epoch {trained['best_epoch']} of {trained['epochs']}",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras")),
        "settings": params.train.model_dump(mode="json"),
    }
    write_text(folder / "training.json", json.dumps(summary, indent=2) + "\n")
