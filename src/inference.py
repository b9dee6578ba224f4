"""A trained model -> class probabilities for scans of any size, at the scan's own size."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.data.arrays import Preprocessing, preprocess, restore

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class ModelCard:
    """What a model folder says of its model.

    Attributes:
        architecture: Name in `src.models.ARCHITECTURES`.
        classes: Class names in the order of the class index.
        depth: Number of down-samplings.
        spacing_mm: Median (y, x) spacing of the training slices.
        parameters: Number of trainable parameters.
        precision: Keras policy it was trained with.
    """

    architecture: str
    classes: tuple[str, ...]
    depth: int
    spacing_mm: tuple[float, float]
    parameters: int
    precision: str


def save_model(folder: Path, model: keras.Model, card: ModelCard, settings: Preprocessing) -> None:
    """Writes a model folder: model.keras, preprocessing.json, model.json."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "model.keras")
    settings.save(folder / "preprocessing.json")
    (folder / "model.json").write_text(json.dumps(asdict(card), indent=2) + "\n", encoding="utf-8")


def load_card(folder: Path) -> ModelCard:
    """Reads model.json; starts no TensorFlow.

    Raises:
        FileNotFoundError: The folder holds no model.
    """
    path = folder / "model.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder}: no model there (model.json is missing). Train one with `dvc repro train`."
        )
    content = json.loads(path.read_text(encoding="utf-8"))
    content["classes"] = tuple(content["classes"])
    content["spacing_mm"] = tuple(content["spacing_mm"])
    return ModelCard(**content)


class Segmenter:
    """A model together with its preprocessing.

    Attributes:
        model: Keras model, (B, H, W, 1) normalised -> (B, H, W, C) probabilities.
        settings: What is done to a slice first; comes with the model, not from params.yaml.
        card: Classes, architecture and so on.
    """

    def __init__(self, model: keras.Model, settings: Preprocessing, card: ModelCard) -> None:
        import tensorflow as tf

        self.model = model
        self.settings = settings
        self.card = card
        # keras.Model.predict has a high fixed cost a call; one traced function has not. Sizes are
        # left open so that scans of many sizes share one trace.
        self._forward = tf.function(
            lambda batch: model(batch, training=False),
            input_signature=[tf.TensorSpec((None, None, None, 1), tf.float32)],
            jit_compile=False,
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the class index."""
        return self.card.classes

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.card.classes)

    def probabilities(
        self, images_hu: NDArray[Any] | list[NDArray[Any]], *, batch_size: int = 16
    ) -> list[NDArray[np.float32]]:
        """Class probabilities of slices, each at its own size.

        Args:
            images_hu: (B, H, W), or a list of (H, W) of any sizes, in HU.
            batch_size: Slices that go through the network together.

        Returns:
            A (H, W, C) float32 array for each slice, summing to 1 over C; an empty list for none.

        Raises:
            ValueError: A slice that is not 2-D, is empty, or holds values that are not finite.
        """
        ready: dict[tuple[int, ...], list[int]] = defaultdict(list)
        prepared = []
        for number, image in enumerate(images_hu):
            prepared.append(preprocess(_checked(image, number), self.settings))
            ready[prepared[-1].shape].append(number)
        results: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(prepared)
        for numbers in ready.values():
            for start in range(0, len(numbers), batch_size):
                part = numbers[start : start + batch_size]
                batch = np.stack([prepared[number] for number in part])[..., None]
                output = self._forward(batch.astype(np.float32)).numpy()
                for number, probability in zip(part, output, strict=True):
                    height, width = images_hu[number].shape
                    results[number] = restore(probability, height, width, self.settings)
        return results

    def masks(
        self, images_hu: NDArray[Any] | list[NDArray[Any]], *, batch_size: int = 16
    ) -> list[NDArray[np.uint8]]:
        """The most probable class of each pixel, (H, W) uint8 class indices for each slice."""
        return [
            probability.argmax(axis=-1).astype(np.uint8)
            for probability in self.probabilities(images_hu, batch_size=batch_size)
        ]


def _checked(image: NDArray[Any], number: int) -> NDArray[Any]:
    if image.ndim != 2 or image.size == 0:
        raise ValueError(f"slice {number} must be a 2-D picture in HU, got shape {image.shape}")
    if not np.isfinite(image).all():
        raise ValueError(f"slice {number} holds values that are not finite: mend the scan first")
    return image


def load_segmenter(folder: Path) -> Segmenter:
    """Loads what `save_model` wrote.

    Args:
        folder: A model folder, such as models/unet or the one inside a registered model.

    Returns:
        The model with its preprocessing.

    Raises:
        FileNotFoundError: The folder holds no model.
    """
    card = load_card(folder)
    import keras

    import src.models  # noqa: F401  (registers the layers that model.keras names)

    model = keras.models.load_model(folder / "model.keras", compile=False)
    return Segmenter(model, Preprocessing.load(folder / "preprocessing.json"), card)
