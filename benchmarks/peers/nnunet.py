"""nnU-Net's 2-D configuration, planned, trained, and run as its documentation has it.

nnUNetv2_plan_and_preprocess, a splits_final.json with the benchmark's patients, nnUNetv2_train with
a trainer that stops by the clock, nnUNetv2_predict with its defaults (Gaussian sliding window,
mirroring). Of checkpoint_best and checkpoint_final the one with the better Dice of the validation
patients segments the test patients.

Runs in an environment of its own (requirements-peers.lock): it imports nothing of this project.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

LOG = logging.getLogger("benchmark")
DATASET, TRAINER, CHANNEL = "Dataset001_CT", "TimedTrainer", "_0000"
CHECKPOINTS = ("checkpoint_best.pth", "checkpoint_final.pth")


def call(command: str, *arguments: str) -> None:
    """Runs one of nnU-Net's commands, in a process of its own."""
    LOG.info("$ %s", " ".join([command, *arguments]))
    runner = Path(__file__).resolve().parent / "nnunet_command.py"
    subprocess.run([sys.executable, str(runner), command, *arguments], check=True)


def write_raw(cases: Path, content: dict[str, list[str]], raw: Path) -> None:
    """The data in nnU-Net's layout: training and validation patients, and what it asks of them."""
    names = content["train"] + content["validation"]
    for kind, folder, suffix in (("images", "imagesTr", CHANNEL), ("masks", "labelsTr", "")):
        (raw / folder).mkdir(parents=True, exist_ok=True)
        for subset in ("train", "validation"):
            for name in content[subset]:
                source = cases / subset / kind / f"{name}.nii.gz"
                shutil.copyfile(source, raw / folder / f"{name}{suffix}.nii.gz")
    for subset in ("validation", "test"):
        (raw / subset).mkdir(exist_ok=True)
        for name in content[subset]:
            source = cases / subset / "images" / f"{name}.nii.gz"
            shutil.copyfile(source, raw / subset / f"{name}{CHANNEL}.nii.gz")
    description = {
        "channel_names": {"0": "CT"},
        "labels": {name: index for index, name in enumerate(content["classes"])},
        "numTraining": len(names),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def set_batch_size(plans: Path, batch_size: int) -> str:
    """Adds a configuration that differs from 2d in its batch size alone; returns its name.

    Source: nnU-Net's documentation of plans files, inheritance of configurations.
    """
    content = json.loads(plans.read_text(encoding="utf-8"))
    name = f"2d_batch{batch_size}"
    content["configurations"][name] = {"inherits_from": "2d", "batch_size": batch_size}
    plans.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return name


def mean_dice(truths: Path, predictions: Path, num_classes: int) -> float:
    """Mean over patients of the mean Dice of the foreground classes, for the choice alone."""
    import numpy as np
    import SimpleITK as sitk  # noqa: N813

    values = []
    for path in sorted(predictions.glob("*.nii.gz")):
        truth, found = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(folder / path.name)))
            for folder in (truths, predictions)
        )
        for index in range(1, num_classes):
            total = int((truth == index).sum()) + int((found == index).sum())
            if total:
                values.append(2 * int(((truth == index) & (found == index)).sum()) / total)
    return float(np.mean(values))


def main() -> None:
    """Plans, trains and predicts; writes the masks of the validation and test patients."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cases", type=Path, required=True, help="folder with cases.json")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1, help="processes that make batches")
    parser.add_argument("--batch-size", type=int, help="instead of the planned one")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    work = (options.out / "nnunet").resolve()
    shutil.rmtree(work, ignore_errors=True)
    raw, preprocessed = work / "raw" / DATASET, work / "preprocessed" / DATASET
    os.environ |= {
        "nnUNet_raw": str(work / "raw"),
        "nnUNet_preprocessed": str(work / "preprocessed"),
        "nnUNet_results": str(work / "results"),
        "nnUNet_def_n_proc": str(options.threads),
        "nnUNet_n_proc_DA": str(options.workers),
        "BENCHMARK_MINUTES": str(options.minutes),
        "BENCHMARK_SEED": str(options.seed),
        "BENCHMARK_PRECISION": options.precision,
    }
    content = json.loads((options.cases / "cases.json").read_text(encoding="utf-8"))
    write_raw(options.cases, content, raw)
    processes = ["-np", str(options.threads)]
    call("nnUNetv2_plan_and_preprocess", "-d", "1", "-c", "2d", "--verify_dataset_integrity",
         "--no_pbar", *processes)  # fmt: skip
    split = [{"train": content["train"], "val": content["validation"]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(split), encoding="utf-8")
    configuration = "2d"
    if options.batch_size:
        configuration = set_batch_size(preprocessed / "nnUNetPlans.json", options.batch_size)
    call("nnUNetv2_train", "1", configuration, "0", "-tr", TRAINER, "-device", "cpu")

    # Training ends with masks of the validation patients by checkpoint_final.
    trained = next((work / "results" / DATASET).glob(f"{TRAINER}__*")) / "fold_0"
    found = {CHECKPOINTS[1]: trained / "validation", CHECKPOINTS[0]: work / "best"}

    def predict(subset: str, checkpoint: str, out: Path) -> None:
        call("nnUNetv2_predict", "-i", str(raw / subset), "-o", str(out), "-d", "1", "-f", "0",
             "-c", configuration, "-tr", TRAINER, "-chk", checkpoint, "-device", "cpu", "-npp", "1",
             "-nps", "1", "--disable_progress_bar")  # fmt: skip

    predict("validation", CHECKPOINTS[0], found[CHECKPOINTS[0]])
    truths = options.cases / "validation" / "masks"
    dice = {c: mean_dice(truths, found[c], len(content["classes"])) for c in CHECKPOINTS}
    chosen = max(CHECKPOINTS, key=lambda checkpoint: dice[checkpoint])
    predict("test", chosen, work / "test")
    for subset, folder in (("validation", found[chosen]), ("test", work / "test")):
        (options.out / subset).mkdir(parents=True, exist_ok=True)
        for name in content[subset]:
            shutil.copyfile(folder / f"{name}.nii.gz", options.out / subset / f"{name}.nii.gz")
    summary = {
        **json.loads((trained / "clock.json").read_text(encoding="utf-8")),
        "checkpoint": chosen.removesuffix(".pth").removeprefix("checkpoint_"),
        "validation_dice_of_checkpoints": dice,
        "precision": options.precision,
        "versions": f"nnU-Net {version('nnunetv2')}, PyTorch {version('torch')}",
    }
    (options.out / "training.json").write_text(json.dumps(summary, indent=2) + "\n", "utf-8")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
