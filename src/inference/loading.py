"""A model folder -> the model, by the engine that suits."""

from __future__ import annotations

from pathlib import Path

from src.data.preprocessing import Preprocessing
from src.engines import FOLDER, Identity, keras_engine, openvino_engine, why_keras
from src.inference.ensemble import AnySegmenter, Ensemble
from src.inference.segmenter import Segmenter, keras_model
from src.model_files import ModelCard, check_alike, check_network, load_card, model_folders
from src.postprocessing import majority


def load_segmenter(folder: Path, engine: str | None = None) -> AnySegmenter:
    """Loads what `save_model` wrote: one model, or those of several folds as one.

    Args:
        folder: A model folder, such as models/unet/fold0 or the one inside a registered model; or
            a folder of such folders, fold0, fold1, …, such as models/unet.
        engine: "auto", "keras" or "openvino"; None for what the model's card says.

    Returns:
        The model with its preprocessing. Several are an ensemble, whose postprocessing is what
        more than half of them chose.

    Raises:
        FileNotFoundError: The folder holds no model.
        ValueError: model.json is of another version of the project, or the models do not belong
            together.
    """
    cards = {path: load_card(path) for path in model_folders(folder)}
    check_alike(folder, cards)
    segmenters = [_load(path, card, engine or card.engine) for path, card in cards.items()]
    if len(segmenters) == 1:
        return segmenters[0]
    return Ensemble(segmenters, majority([card.postprocessing for card in cards.values()]))


def _load(folder: Path, card: ModelCard, wanted: str) -> Segmenter:
    path, settings = folder / "model.keras", Preprocessing.load(folder / "preprocessing.json")
    why = why_keras(wanted, folder)
    if why:
        model = keras_model(path, card)
        engine = keras_engine(model, card.in_channels, why)
        return Segmenter(model, settings, card, engine=engine)
    identity = Identity.load(folder / FOLDER)
    check_network(
        folder,
        card,
        architecture=identity.architecture,
        in_channels=identity.in_channels,
        num_classes=identity.num_classes,
    )
    return Segmenter(path, settings, card, engine=openvino_engine(folder / FOLDER))
