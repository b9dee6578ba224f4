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

from benchmarks.setting import Setting, run_logged, set_parameters
from src.config import load_params
from src.files import write_text


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
