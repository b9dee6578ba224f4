"""What each choice of a recipe is worth: one thing changed at a time, the rest as it is.

    python benchmarks/ablation.py --data FOLDER --out FOLDER

Every variant trains a U-Net for the same minutes and is scored on the validation patients, at the
size of their scans. The test patients have no part in it: recipes are chosen here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this is started as a file, and the project is not installed

from benchmarks.machine import machine  # noqa: E402
from benchmarks.ours import validation_overlap  # noqa: E402
from benchmarks.setting import Setting, make_setting  # noqa: E402
from src import terminal  # noqa: E402
from src.config import load_params  # noqa: E402
from src.files import write_text  # noqa: E402

RECIPE = "as it is"
# Group, what is changed, and its parameters. All are changes of examples/sts-ct/params.yaml.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "cross-entropy alone": ("loss", {"train.loss.name": "categorical_cross_entropy"}),
    "Dice alone": ("loss", {"train.loss.name": "dice"}),
    "focal Tversky": ("loss", {"train.loss.name": "focal_tversky"}),
    "none": (
        "augmentation",
        {
            **{
                f"train.augmentation.{name}": 0.0
                for name in (
                    "flip_horizontal", "flip_vertical", "rotation_degrees", "scale", "translation",
                    "elastic", "probability",
                )
            },
        },
    ),
    "slices as they come": ("sampling", {"train.sampling.foreground": 0.0}),
    "on": ("deep supervision", {"train.model.deep_supervision": True}),
    "no neighbours": ("2.5-D", {"train.context": 0}),
    "whole slices": ("patches", {"train.sampling.patch_size": None}),
    "batch": ("normalisation", {"train.model.normalisation": "batch"}),
    "resized to 128 x 128": (
        "scale",
        {
            "prepare.size_mode": "resize",
            "prepare.spacing_mm": None,
            "train.sampling.patch_size": None,
        },
    ),
}  # fmt: skip


def measure(
    name: str,
    setting: Setting,
    out: Path,
    *,
    minutes: float,
    seed: int,
) -> dict[str, float]:
    """Trains a variant unless an earlier call did it.

    Returns:
        Validation patient -> Dice.
    """
    # All parameters that any variant touches are set, for those of the last one stay.
    recipe = load_params(out / "recipe.yaml").model_dump(mode="json")
    touched = {key for _, changes in VARIANTS.values() for key in changes}
    changes = {key: _value(recipe, key) for key in touched}
    changes |= VARIANTS[name][1] if name != RECIPE else {}
    changes |= {"train.max_minutes": minutes, "train.seed": seed}
    folder = out / name.replace(" ", "-") / str(seed)
    found = validation_overlap(f"{name}, seed {seed}", folder, setting, changes, minutes=minutes)
    return found["dice"]


def _value(content: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        content = content[part]
    return content


def main(
    data: Annotated[Path, typer.Option(help="scans and masks, one volume a patient")],
    out: Annotated[Path, typer.Option(help="results; started again, it goes on there")],
    minutes: Annotated[float, typer.Option(help="of training, for each variant")] = 2.0,
    seeds: Annotated[int, typer.Option(min=1, help="trainings of each variant")] = 1,
    params: Annotated[Path, typer.Option(help="the recipe")] = ROOT
    / "examples"
    / "sts-ct"
    / "params.yaml",
    cores: Annotated[int, typer.Option(min=1, help="for each training")] = 2,
    only: Annotated[str, typer.Option(help="variants, with commas between; all by default")] = "",
) -> None:
    """Trains a recipe and its variants for the same wall clock and compares validation Dice.

    Example: python benchmarks/ablation.py --data FOLDER --out ablation
    """
    names = [name.strip() for name in only.split(",")] if only else list(VARIANTS)
    unknown = sorted(set(names) - set(VARIANTS))
    if unknown:
        raise ValueError(f"--only: {unknown} not known, expected some of {list(VARIANTS)}")
    out = out.resolve()
    setting = make_setting(data, params, out, cores)
    if not (out / "recipe.yaml").is_file():
        shutil.copyfile(setting.repository / "params.yaml", out / "recipe.yaml")
    dice: dict[str, list[dict[str, float]]] = {}
    for seed in range(1, seeds + 1):
        for name in [RECIPE, *names]:
            try:
                found = measure(name, setting, out, minutes=minutes, seed=seed)
            except subprocess.CalledProcessError:
                terminal.warn(f"{name} failed: see its log.txt")
            else:
                dice.setdefault(name, []).append(found)
    table = Table("group", "changed to", "validation Dice", "against the recipe", "seeds")
    lines = [f"{machine()}, {date.today().isoformat()}, {minutes:g} minutes each", ""]
    lines += ["| group | changed to | validation Dice | against the recipe |", "|---|---|---|---|"]
    for name, runs in dice.items():
        mean, difference = _mean(runs), ""
        if name != RECIPE and RECIPE in dice:
            # Of the seeds that both have.
            shared = dice[RECIPE][: len(runs)]
            difference = f"{mean - _mean(shared):+.3f}"
        group = "" if name == RECIPE else VARIANTS[name][0]
        table.add_row(group, name, f"{mean:.3f}", difference, str(len(runs)))
        lines.append(f"| {group} | {name} | {mean:.3f} | {difference} |")
    terminal.console.print(table)
    write_text(out / "ablation.md", "\n".join([*lines, ""]))
    terminal.console.print(
        f"Mean over {len(setting.patients['validation'])} validation patients; with few of them and"
        f" one seed, differences below 0.03 are noise. Table: {out / 'ablation.md'}"
    )


def _mean(runs: list[dict[str, float]]) -> float:
    """Over patients and repeats."""
    values = [value for run in runs for value in run.values()]
    return sum(values) / len(values)


if __name__ == "__main__":
    terminal.run(main)
