"""Stage `compare`: chooses among the architectures on validation, and registers the choice.

The test figures stand beside the validation figures and decide nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from src import terminal, tracking
from src.config import load_params
from src.evaluation.overlap import MEAN_FOREGROUND, QUANTITIES
from src.files import write_text

RULE = "patient-mean foreground Dice on validation"


def read_results(root: Path, architectures: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Architecture -> its scores and what trained it.

    Raises:
        FileNotFoundError: A model was not evaluated yet; the message names the command.
    """
    results = {}
    for name in architectures:
        path = root / "reports" / name / "evaluation" / "scores.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path.relative_to(root)} is missing. Make it with `dvc repro evaluate@{name}`."
            )
        trained = json.loads((root / "models" / name / "run.json").read_text(encoding="utf-8"))
        results[name] = {**json.loads(path.read_text(encoding="utf-8")), "trained": trained}
    return results


def validation_score(result: dict[str, Any]) -> float:
    """What the choice rests on; -1 for a model that could not be scored."""
    value = result["validation"]["dice"][MEAN_FOREGROUND]
    return -1.0 if value is None else float(value)


def choose(results: dict[str, dict[str, Any]]) -> str:
    """The architecture with the best validation score; of equals the first by name."""
    return max(sorted(results), key=lambda name: validation_score(results[name]))


def headline(results: dict[str, dict[str, Any]], chosen: str) -> dict[str, Any]:
    """What `dvc metrics show` prints: patient means with intervals, few enough to read."""
    content: dict[str, Any] = {"champion": chosen}
    for name, result in results.items():
        content[name] = {
            subset: {
                quantity: {
                    label: {
                        "mean": result[subset][quantity][label],
                        "low": result[subset][f"{quantity}_low"][label],
                        "high": result[subset][f"{quantity}_high"][label],
                    }
                    for label in result[subset][quantity]
                    if label != "background"
                }
                for quantity in QUANTITIES[:2]
            }
            for subset in ("validation", "test")
        }
    return content


def register(root: Path, name: str, chosen: str, result: dict[str, Any]) -> str:
    """Registers the chosen model; it takes the alias `champion` unless a better one holds it.

    A champion of the same data and the same split stays where its validation score is not beaten;
    one of other data is replaced, as their scores cannot be compared.

    Returns:
        One sentence on what was done.
    """
    store = tracking.open_store(root)
    run_id = result["trained"]["run_id"]
    score = validation_score(result)
    before = tracking.champion(store, name)
    if before is not None and before.run_id != run_id:
        same = all(
            before.tags.get(tag) == result["trained"][tag] for tag in ("data_hash", "split_hash")
        )
        held = before.tags.get(tracking.SCORE_TAG)
        if same and held is not None and float(held) >= score:
            return (
                f"{name} version {before.version} stays champion: {RULE} {float(held):.4f} on the "
                f"same data and split, {chosen} reached {score:.4f}"
            )
    version = tracking.register_champion(
        store,
        run_id,
        tracking.model_of(store, run_id),
        name=name,
        description=model_card(chosen, result),
        reason=f"{RULE} {score:.4f}",
        score=score,
    )
    return f"{name} version {version.version} is champion: {chosen}, {RULE} {score:.4f}"


def model_card(chosen: str, result: dict[str, Any]) -> str:
    """The description of a registered version, Markdown."""
    lines = [
        f"**{chosen}**, {result['trained']['parameters']:,} parameters, chosen by {RULE}.",
        "",
        "| side | class | patients | Dice (95 % interval) | IoU (95 % interval) |",
        "|---|---|---|---|---|",
    ]
    for subset in ("validation", "test"):
        side = result[subset]
        for label in side["dice"]:
            if label == "background":
                continue
            cells = [
                f"{_number(side[q][label])} ({_number(side[f'{q}_low'][label])} to "
                f"{_number(side[f'{q}_high'][label])})"
                for q in QUANTITIES[:2]
            ]
            lines.append(
                f"| {subset} | {label} | {side['num_scored'][label]} | {cells[0]} | {cells[1]} |"
            )
    lines += [
        "",
        "Input: CT slices in Hounsfield units, (B, H, W). Output: class indices of the same size.",
        "Research use only; not a clinical device. It knows the scanners and patients of its "
        "training data alone.",
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "not scored" if value is None else f"{value:.3f}"


def main() -> None:
    """Sets the architectures side by side, chooses on validation, registers the choice.

    Example: python -m src.stages.compare
    """
    root = Path.cwd()
    params = load_params(root / "params.yaml")
    results = read_results(root, params.train.architectures)
    chosen = choose(results)
    table = Table("architecture", "side", "class", "Dice", "95 % interval", "IoU", "patients")
    for name, result in results.items():
        for subset in ("validation", "test"):
            side = result[subset]
            for label in side["dice"]:
                if label != "background":
                    low, high = side["dice_low"][label], side["dice_high"][label]
                    table.add_row(
                        name,
                        subset,
                        label,
                        _number(side["dice"][label]),
                        f"{_number(low)} to {_number(high)}",
                        _number(side["iou"][label]),
                        str(side["num_scored"][label]),
                    )
    terminal.console.print(table)
    sentence = register(root, params.compare.registered_model, chosen, results[chosen])
    write_text(
        root / "reports" / "metrics.json", json.dumps(headline(results, chosen), indent=2) + "\n"
    )
    terminal.console.print(f"{sentence}. Look at it: make ui")


if __name__ == "__main__":
    terminal.run(main)
