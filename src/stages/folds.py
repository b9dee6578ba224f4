"""A fold of an architecture: what its run is called, and what it shares with the other folds."""

from __future__ import annotations

from typing import Any

from src import tracking
from src.config import Params, public_parameters


def label(params: Params, architecture: str, fold: int | None = None) -> str:
    """What is trained, for people: `unet`; of several folds `unet, fold 2`.

    Args:
        params: All parameters.
        architecture: Its name.
        fold: None for all of `split.fold` together.
    """
    if fold is None:
        return f"{architecture}, ensemble of {len(params.split.fold)} folds"
    return f"{architecture}, fold {fold}" if params.split.folds else architecture


def run_name(params: Params, architecture: str, fold: int | None = None) -> str:
    """The name of a run: `unet, fold 2, 3f9c1e`; the last part is the same for all folds."""
    return tracking.run_name(
        label(params, architecture, fold), _without_fold(public_parameters(params, architecture))
    )


def recipe(params: Params, architecture: str, data_hash: str) -> str:
    """What the models of all folds have in common, as six hex digits.

    Args:
        params: All parameters; those that shape a model are used.
        architecture: Its name.
        data_hash: Of data/.
    """
    public = _without_fold(public_parameters(params, architecture))
    shaping = ("architecture", "data", "split", "prepare", "train", "inference")
    return tracking.short_hash({"data_hash": data_hash, **{key: public[key] for key in shaping}})


def _without_fold(public: dict[str, Any]) -> dict[str, Any]:
    split = {key: value for key, value in public["split"].items() if key != "fold"}
    return {**public, "split": split}
