"""What a training ends with: a model folder, with what is chosen once the weights are known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.config import Params
from src.data.arrays import Arrays
from src.engine_export import export_checked
from src.engines import keras_engine
from src.evaluation.temperature import PixelSample, fit_temperature
from src.files import whole_folder
from src.inference import Segmenter, predicted_scans
from src.model_files import ModelCard, save_model
from src.postprocessing import PLAIN, choose, plain_dice
from src.tiling import Tiling

if TYPE_CHECKING:
    from src.models.data_parallel import DataParallel

TEMPERATURE_PIXELS = 200_000  # drawn from all of the validation side


def write_model(
    folder: Path,
    model: DataParallel,
    card: ModelCard,
    params: Params,
    arrays: Arrays,
    summary: Mapping[str, Any],
) -> dict[str, Any]:
    """Chooses cleaning and temperature on the validation patients, and writes the model folder.

    Args:
        folder: Becomes the folder, whole or not at all.
        model: With the weights that are kept.
        card: What is known of it before that choice.
        params: All parameters.
        arrays: The prepared slices of the fold.
        summary: What run.json says of the training.

    Returns:
        What stands in run.json: the summary, what the card says, and what is said of the engine.
    """
    from src.models import inference_model

    in_halves, model = model.in_halves, inference_model(model)
    engine = keras_engine(model, card.in_channels, in_halves=in_halves)
    segmenter = Segmenter(model, arrays.settings, card, engine=engine)
    segmenter, dice = settled(params, segmenter, arrays)
    with whole_folder(folder) as aside:
        save_model(aside, model, segmenter.card, arrays.settings)
        engine_note = export_checked(segmenter, aside, arrays, arrays.rows("validation"), dice)
        content = {
            **summary,
            "architecture": card.architecture,
            "recipe": card.recipe,
            "parameters": card.parameters,
            "precision": card.precision,
            "engine": engine_note,
        }
        (aside / "run.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return content


def settled(
    params: Params, segmenter: Segmenter, arrays: Arrays
) -> tuple[Segmenter, NDArray[np.float64] | None]:
    """What is chosen on the validation patients once the weights are known.

    Returns:
        The model with its card filled in, and the (C,) Dice of these patients before cleaning;
        None where nothing was to be chosen, and the patients were not looked at.
    """
    wanted = params.inference
    if not (wanted.postprocessing or wanted.calibration):
        return segmenter, None
    changes: dict[str, Any] = {}
    sample = None
    if wanted.calibration:
        sample = PixelSample(TEMPERATURE_PIXELS, seed=params.train.seed)
    scans = predicted_scans(segmenter, arrays, arrays.rows("validation"), sample=sample)
    if wanted.postprocessing:
        choice = choose(scans, segmenter.num_classes)
        changes["postprocessing"], dice = choice.postprocessing, choice.dice[PLAIN]
    else:
        dice = plain_dice(scans, segmenter.num_classes)
    if sample is not None:
        fitted = fit_temperature(sample.log_probabilities, sample.truth)
        changes["calibration"] = "at_limit" if fitted.at_limit else "fitted"
        if not fitted.at_limit:
            changes["temperature"] = round(fitted.value, 6)
    return segmenter.changed(**changes), dice


def model_card(
    architecture: str, params: Params, arrays: Arrays, *, parameters: int, policy: str, made: str
) -> ModelCard:
    """What is known of a model before anything is chosen on the validation patients.

    Args:
        architecture: Name of the network.
        params: All parameters.
        arrays: The prepared slices of the fold.
        parameters: Number of trained ones.
        policy: Precision.
        made: Of `folds.recipe`.
    """
    patch = params.train.sampling.patch_size
    rows = arrays.index[arrays.index["subset"] == "train"]
    return ModelCard(
        architecture=architecture,
        classes=arrays.classes,
        depth=params.train.model.depth,
        spacing_mm=(float(rows["spacing_y_mm"].median()), float(rows["spacing_x_mm"].median())),
        parameters=parameters,
        precision=policy,
        context=params.train.context,
        tiling=Tiling(patch, params.inference.overlap) if patch else None,
        flips=params.inference.flips,
        engine=params.inference.engine,
        recipe=made,
    )
