"""Stage `compare`: chooses among the architectures on validation, and registers the choice.

The test figures stand beside the validation figures and decide nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from src import terminal, tracking
from src.config import load_params
from src.evaluation.overlap import MEAN_FOREGROUND, QUANTITIES
from src.files import write_text
from src.stages.score_table import SUBSETS, foreground, markdown_table, print_scores

RULE = "patient-mean foreground Dice on validation"


def read_results(root: Path, architectures: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Architecture -> its scores and what trained it, from reports/evaluation.

    Raises:
        FileNotFoundError: A model was not evaluated yet; the message names the command.
    """
    results = {}
    for name in architectures:
        path = root / "reports" / "evaluation" / name / "scores.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path.relative_to(root)} is missing. Make it with `dvc repro evaluate@{name}`."
            )
        results[name] = json.loads(path.read_text(encoding="utf-8"))
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
                    for label in foreground(result[subset])
                }
                for quantity in QUANTITIES[:2]
            }
            for subset in SUBSETS
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
        markdown_table(result),
        "",
        "Input: CT slices in Hounsfield units, (B, H, W). Output: class indices of the same size.",
        "Research use only; not a clinical device. It knows the scanners and patients of its "
        "training data alone.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Sets the architectures side by side, chooses on validation, registers the choice.

    Example: python -m src.stages.compare
    """
    root = Path.cwd()
    params = load_params(root / "params.yaml")
    results = read_results(root, params.train.architectures)
    chosen = choose(results)
    print_scores(results, QUANTITIES[:2])
    sentence = register(root, params.compare.registered_model, chosen, results[chosen])
    write_text(
        root / "reports" / "metrics.json", json.dumps(headline(results, chosen), indent=2) + "\n"
    )
    terminal.console.print(f"{sentence}. Look at it: make ui")


if __name__ == "__main__":
    terminal.run(main)
