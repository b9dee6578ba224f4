"""What every program of benchmarks/training.py is given: a network, an optimiser, one batch.

NumPy alone is imported, for the peers read this file in environments of their own.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

CLASSES = 3
CHANNELS = 1


@dataclass(frozen=True)
class Task:
    """A training step.

    Attributes:
        architecture: "unet", "unetpp" or "attention_unet".
        normalisation: "instance" or "batch".
        size: Height and width of the pictures.
        cores: Threads of the program.
        batch_size: Pictures of a step.
        filters: Channels at full resolution.
        depth: Number of down-samplings.
        dropout: Share of the feature maps dropped in the two deepest levels.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        compiled: Whether PyTorch may use torch.compile; needs a C++ compiler.
    """

    architecture: str
    normalisation: str
    size: int
    cores: int
    batch_size: int
    filters: int = 16
    depth: int = 4
    dropout: float = 0.1
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    compiled: bool = False

    def to_argument(self) -> str:
        """As one argument of a command."""
        return json.dumps(asdict(self))

    @classmethod
    def from_argument(cls, argument: str) -> Task:
        """What `to_argument` made an argument of."""
        return cls(**json.loads(argument))


def batch(task: Task) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Noisy discs in larger discs, the same for every program.

    Returns:
        Images (B, size, size, 1) float32, of mean 0 and deviation 1, and masks (B, size, size) of
        class indices.
    """
    random = np.random.default_rng(0)
    y, x = np.mgrid[: task.size, : task.size] / task.size
    masks = np.zeros((task.batch_size, task.size, task.size), np.uint8)
    for mask in masks:
        centre = random.uniform(0.4, 0.6, 2)
        distance = np.hypot(y - centre[0], x - centre[1])
        mask[distance < 0.3] = 1
        mask[distance < random.uniform(0.05, 0.2)] = 2
    images = masks[..., None] + random.normal(0, 0.5, (*masks.shape, CHANNELS))
    return ((images - images.mean()) / images.std()).astype(np.float32), masks
