"""The chosen model into the registry: itself, or the ensemble of its folds."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from src import tracking
from src.config import Params, public_parameters, truth_parameters
from src.data.splits import fold_folder
from src.scoring import metric_group, metrics_of
from src.stages.candidates import OUT_OF_FOLD, RULE, Candidate, out_of_fold
from src.stages.folds import label, run_name
from src.stages.score_table import markdown_table


def register(root: Path, params: Params, chosen: Candidate) -> str:
    """Registers the chosen model; it takes the alias `champion` unless a better one holds it.

    A champion of the same data, split and classes stays where its validation score is not beaten;
    another one is replaced, as their scores cannot be compared.

    Returns:
        One sentence on what was done.

    Raises:
        ValueError: The store does not hold the run of the chosen model.
    """
    store, name = tracking.open_store(root), params.compare.registered_model
    origin: Mapping[str, str] = chosen.trained
    run_id, model = chosen.trained["run_id"], label(params, chosen.name, min(chosen.folds))
    if len(chosen.folds) > 1:
        origin = tracking.provenance(
            root, root / "prepared" / "split.csv", truth_parameters(params)
        )
        run_id, model = (
            ensemble_run(root, params, store, chosen, origin),
            label(params, chosen.name),
        )
    score = chosen.validation_score
    before, left = tracking.champion(store, name), ""
    if before is not None and before.run_id != run_id:
        same = all(before.tags.get(tag) == origin[tag] for tag in tracking.COMPARABLE)
        held = before.tags.get(tracking.SCORE_TAG)
        if same and held is not None and float(held) >= score:
            return (
                f"{name} version {before.version} stays champion: {RULE} {float(held):.4f} on the "
                f"same data, split and classes, {model} reached {score:.4f}"
            )
        if not same:
            left = (
                f". Version {before.version} was of other data, another split or other classes, "
                f"whose scores do not compare; it stays at models:/{name}/{before.version}"
            )
    try:
        logged = tracking.model_of(store, run_id)
    except LookupError as error:  # the outputs came from another machine, the store did not
        raise ValueError(
            f"{error.args[0]}, or name the store that has the run: MLFLOW_TRACKING_URI."
        ) from error
    version = tracking.register_champion(
        store,
        run_id,
        logged,
        name=name,
        description=model_card(model, chosen),
        reason=chosen.rule,
        score=score,
    )
    return f"{name} version {version.version} is champion: {model}, {chosen.rule}{left}"


def ensemble_run(
    root: Path,
    params: Params,
    store: tracking.Store,
    chosen: Candidate,
    provenance: Mapping[str, str],
) -> str:
    """The run of an ensemble of folds: its parameters, out-of-fold scores and model.

    The same members have one run, however often they are compared.

    Returns:
        Its id.
    """
    members = ",".join(fold["trained"]["run_id"] for fold in chosen.folds.values())
    found = tracking.find_run(store, {"members": members})
    with tracking.start_run(
        store,
        run_name(params, chosen.name),
        parameters=public_parameters(params, chosen.name),
        tags={
            **provenance,
            "stage": "compare",
            "architecture": chosen.name,
            "folds": ",".join(map(str, chosen.folds)),
            "members": members,
        },
        description=model_card(label(params, chosen.name), chosen),
        run_id=found,
    ) as run:
        for section, subset in (
            (metric_group("validation"), "validation"),
            ("out_of_fold", "test"),
        ):
            numbers = metrics_of(chosen.pooled[subset].summary)
            tracking.log_metrics(run, {f"{section}/{key}": value for key, value in numbers.items()})
        tracking.log_table(run, out_of_fold(chosen), "tables/out_of_fold_patients.json")
        if found is None:
            with TemporaryDirectory() as aside:
                # The folds that are compared, and no other that an earlier run left beside them.
                together = Path(aside) / chosen.name
                for fold in chosen.folds:
                    source = fold_folder(root / "models" / chosen.name, fold)
                    shutil.copytree(source, fold_folder(together, fold))
                tracking.log_model(run, together, code=root / "src")
    return run.run_id


def model_card(name: str, chosen: Candidate) -> str:
    """The description of a registered version, Markdown."""
    several = len(chosen.folds) > 1
    lines = [
        f"**{name}**, {chosen.trained['parameters']:,} parameters{' each' if several else ''}, "
        f"chosen by {RULE}.",
        "",
        markdown_table(chosen.scores),
        "",
        *([OUT_OF_FOLD, ""] if several else []),
        "Input: CT slices in Hounsfield units, (B, H, W). Output: class indices of the same size.",
        "Research use only; not a clinical device. It knows the scanners and patients of its "
        "training data alone.",
    ]
    return "\n".join(lines)
