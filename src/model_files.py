"""The folder of a model: its weights, its preprocessing, its card; and the folders of its folds."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from src.data.preprocessing import Preprocessing
from src.files import md5_of, write_text
from src.postprocessing import Postprocessing
from src.tiling import Tiling

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class ModelCard:
    """What a model folder says of its model, and how the model is used.

    Attributes:
        architecture: Name in `src.models.ARCHITECTURES`.
        classes: Class names in the order of the class index.
        depth: Number of down-samplings.
        spacing_mm: Median (y, x) spacing of the training slices.
        parameters: Number of trainable parameters.
        precision: Keras policy it was trained with.
        context: Neighbouring slices on either side that the network sees as channels.
        tiling: The patches that the network sees; None for whole slices.
        flips: Whether to average over mirrored pictures.
        postprocessing: What is done to the masks.
        temperature: Logits are divided by it, so that probabilities mean what they say; 1: as the
            network gives them. It moves no pixel to another class.
        calibration: How the temperature came about: "fitted" on the validation patients; "off";
            "at_limit" where the fit ended at a limit and was not used; "unknown" of an older model.
        engine: What is to run the network: auto, keras or openvino.
        recipe: The same for the models of all folds that were made alike, of the same data.
    """

    architecture: str
    classes: tuple[str, ...]
    depth: int
    spacing_mm: tuple[float, float]
    parameters: int
    precision: str
    context: int = 0
    tiling: Tiling | None = None
    flips: bool = False
    postprocessing: Postprocessing = field(default_factory=Postprocessing)
    temperature: float = 1.0
    calibration: Literal["off", "fitted", "at_limit", "unknown"] = "off"
    engine: str = "auto"
    recipe: str = ""

    @property
    def in_channels(self) -> int:
        """Channels of a picture as the network sees it: the slice and its neighbours."""
        return 2 * self.context + 1


def save_model(folder: Path, model: keras.Model, card: ModelCard, settings: Preprocessing) -> None:
    """Writes a model folder: model.keras, preprocessing.json, model.json.

    `engine_export.export_checked` adds the network for OpenVINO.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "model.keras")
    settings.save(folder / "preprocessing.json")
    write_text(folder / "model.json", json.dumps(asdict(card), indent=2) + "\n")


def load_card(folder: Path) -> ModelCard:
    """Reads model.json; starts no TensorFlow.

    Raises:
        FileNotFoundError: The folder holds no model.
        ValueError: model.json says more or less than this version of the project knows.
    """
    path = folder / "model.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder}: no model there (model.json is missing). Train one with `dvc repro train`."
        )
    content = json.loads(path.read_text(encoding="utf-8"))
    # A model that was saved before there was a choice does not name one.
    content.setdefault("engine", "auto")
    # Nor does one that was saved before say whether its temperature was fitted; any but 1 was.
    was_fitted = content.get("temperature", 1) != 1
    content.setdefault("calibration", "fitted" if was_fitted else "unknown")
    known = {entry.name for entry in fields(ModelCard)}
    if set(content) != known:
        raise ValueError(
            f"{path}: must hold {sorted(known)}; missing are {sorted(known - set(content))}, "
            f"unknown {sorted(set(content) - known)}. Another version of the project wrote it: "
            "train the model again with `dvc repro train`."
        )
    tiling = content["tiling"]
    if tiling is not None:
        tiling = Tiling(tuple(tiling["patch_size"]), tiling["overlap"])
    steps = {name: tuple(classes) for name, classes in content["postprocessing"].items()}
    return ModelCard(
        **{
            **content,
            "classes": tuple(content["classes"]),
            "spacing_mm": tuple(content["spacing_mm"]),
            "tiling": tiling,
            "postprocessing": Postprocessing(**steps),
        }
    )


def model_folders(folder: Path) -> list[Path]:
    """The folders of the models in a folder: itself, or fold0, fold1, … below it.

    Raises:
        FileNotFoundError: There is no model.
    """
    folds = {
        int(found[1]): path
        for path in folder.glob("fold*")
        if path.is_dir() and (found := re.fullmatch(r"fold(\d+)", path.name))
    }
    if (folder / "model.json").is_file() or not folds:
        load_card(folder)
        return [folder]
    return [folds[number] for number in sorted(folds)]


def model_hash(folder: Path) -> str:
    """Twelve hex digits that tell the weights in a folder from all others."""
    digests = [md5_of(path / "model.keras") for path in model_folders(folder)]
    if len(digests) > 1:
        digests = [hashlib.md5("".join(digests).encode(), usedforsecurity=False).hexdigest()]
    return digests[0][:12]


def check_network(
    folder: Path, card: ModelCard, *, architecture: str, in_channels: int, num_classes: int
) -> None:
    """Raises where a model folder holds another network than its card describes.

    Args:
        folder: The model folder.
        card: Its model.json.
        architecture: Of the network there.
        in_channels: Likewise, channels of a picture.
        num_classes: Likewise, background included.
    """
    described = (card.architecture, card.in_channels, len(card.classes))
    found = (architecture, in_channels, num_classes)
    if found != described:
        raise ValueError(
            "{}: model.json describes a {} of {} channels and {} classes, model.keras holds a {} "
            "of {} channels and {} classes. Restore both from one run, or train again with `dvc "
            "repro train`.".format(folder, *described, *found)
        )


def check_alike(folder: Path, cards: dict[Path, ModelCard]) -> None:
    """Raises where folds of an earlier run lie beside those of a later one.

    They were made of other patients, perhaps of those on which the others are tested.
    """
    by_recipe: dict[str, list[str]] = defaultdict(list)
    for path, card in cards.items():
        by_recipe[card.recipe].append(path.name)
    if len(by_recipe) > 1:
        kinds = "; ".join(", ".join(names) for names in by_recipe.values())
        raise ValueError(
            f"{folder}: the models in it were made in different ways or of different data and are "
            f"no ensemble: {kinds}. Remove the folders of the earlier run, or name a single one, "
            f"such as {folder / next(iter(cards)).name}."
        )
