"""Segmentation networks by name, and what trains them."""

from collections.abc import Callable
from typing import Any

import keras

from src.models.attention_unet import attention_unet
from src.models.checks import check_image_size, check_weights
from src.models.design import Design
from src.models.losses import LOSSES, build_loss
from src.models.supervision import inference_model
from src.models.unet import unet
from src.models.unetpp import unetpp

__all__ = [
    "ARCHITECTURES",
    "LOSSES",
    "build_loss",
    "build_model",
    "check_image_size",
    "check_weights",
    "inference_model",
]

ARCHITECTURES: dict[str, Callable[[Design], keras.Model]] = {
    "unet": unet,
    "unetpp": unetpp,
    "attention_unet": attention_unet,
}


def build_model(architecture: str, **parameters: Any) -> keras.Model:
    """Build a network by its name.

    Args:
        architecture: A key of `ARCHITECTURES`.
        **parameters: The attributes of :class:`src.models.design.Design`.

    Returns:
        An untrained model from pictures (B, H, W, channels) to float32 probabilities
        (B, H, W, classes); with `deep_supervision` one to train and then to pass through
        :func:`inference_model`.

    Raises:
        ValueError: There is no such architecture, or a parameter's value is refused.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture must be one of {sorted(ARCHITECTURES)}, got {architecture!r}."
        )
    return ARCHITECTURES[architecture](Design(**parameters))
