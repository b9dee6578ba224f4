"""Segmentation networks by name, and what trains them."""

from collections.abc import Callable
from typing import Any

import keras

from src.models.losses import LOSSES, loss_by_name
from src.models.unet import check_image_size, unet

__all__ = ["ARCHITECTURES", "LOSSES", "build_model", "check_image_size", "loss_by_name"]

ARCHITECTURES: dict[str, Callable[..., keras.Model]] = {"unet": unet}


def build_model(architecture: str, **parameters: Any) -> keras.Model:
    """Build a network by its name.

    Args:
        architecture: A key of `ARCHITECTURES`.
        **parameters: The arguments of its builder, e.g. those of :func:`src.models.unet.unet`.

    Returns:
        An untrained model from pictures (B, H, W, channels) to float32 probabilities
        (B, H, W, classes).

    Raises:
        ValueError: There is no such architecture, or the builder refuses a parameter's value.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture must be one of {sorted(ARCHITECTURES)}, got {architecture!r}."
        )
    return ARCHITECTURES[architecture](**parameters)
