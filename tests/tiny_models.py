"""Model folders that are made in a moment: an untrained U-Net, and one whose masks are known."""

from pathlib import Path

import numpy as np

from src.data.preprocessing import Preprocessing
from src.model_files import ModelCard, save_model

CLASSES = ("background", "organ", "lesion")
SPACING = (0.75, 0.5)  # of the slices that the models claim to be trained on
NATIVE = Preprocessing(-100.0, 100.0, 0.5, 1.0, "native", (16, 16), 1)


def card(**changes: object) -> ModelCard:
    """What the model folders say of themselves."""
    settings: dict[str, object] = {
        "architecture": "unet",
        "classes": CLASSES,
        "depth": 2,
        "spacing_mm": SPACING,
        "parameters": 6,
        "precision": "float32",
    }
    return ModelCard(**(settings | changes))  # type: ignore[arg-type]


def save_threshold_model(
    folder: Path, settings: Preprocessing = NATIVE, *, context: int = 0, **changes: object
) -> Path:
    """A network that says background up to 0 HU, organ up to 50 HU, and lesion above.

    The window maps 0 HU to x = 0 and 50 HU to x = 0.25; the logits 0, 40 x and 80 x - 10 cross
    there. With context, x of the organ is that of the first slice seen, and of the lesion that of
    the last. `changes` are of its card.
    """
    import keras

    inputs = keras.Input((None, None, 2 * context + 1))
    layer = keras.layers.Conv2D(3, 1, activation="softmax")
    model = keras.Model(inputs, layer(inputs), name="threshold")
    kernel = np.zeros((1, 1, 2 * context + 1, 3))
    kernel[0, 0, 0, 1], kernel[0, 0, -1, 2] = 40.0, 80.0
    layer.set_weights([kernel, np.array([0.0, 0.0, -10.0])])
    used = card(architecture="threshold", depth=0, context=context, **changes)
    save_model(folder, model, used, settings)
    return folder


def expected_mask(image_hu: np.ndarray) -> np.ndarray:
    """What the network of `save_threshold_model` says."""
    return (image_hu > 0).astype(np.uint8) + (image_hu > 50)


def save_unet(
    folder: Path, settings: Preprocessing, *, bias: tuple[float, ...] = (), **changes: object
) -> Path:
    """An untrained U-Net of depth 2; with a bias, the same probabilities at every pixel.

    `changes` are of its card.
    """
    import keras

    from src.models import build_model

    keras.utils.set_random_seed(7)
    model = build_model(
        "unet", in_channels=1, num_classes=3, depth=2, filters=4, dropout=0.0,
        normalisation="batch", upsampling="transpose",
    )  # fmt: skip
    if bias:
        last = [layer for layer in model.layers if layer.weights][-1]
        kernel, _ = last.get_weights()
        last.set_weights([np.zeros_like(kernel), np.array(bias)])
    save_model(folder, model, card(**changes), settings)
    return folder
