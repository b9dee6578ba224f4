"""What all encoder-decoder networks have in common: their numbers, the encoder and the heads."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from src.models import blocks
from src.models.data_parallel import DataParallel
from src.models.supervision import DeeplySupervised


@dataclass(frozen=True)
class Design:
    """The arguments of every network.

    Attributes:
        in_channels: Channels of a picture, at least 1.
        num_classes: Number of classes, background included, at least 2.
        depth: Number of down-samplings, at least 1; at least 2 with deep supervision.
        filters: Channels of the first level; each further level has twice as many.
        dropout: Share of the feature maps that is dropped in training, 0 (none) to below 1.
        normalisation: "batch", "instance" or "none".
        upsampling: "transpose", "bilinear" or "nearest".
        residual: Whether the blocks of the encoder are residual
            (see :func:`src.models.blocks.convolution_block`).
        deep_supervision: Whether the network has further outputs in training, `depth` in all
            (see :class:`src.models.supervision.DeeplySupervised`); with weights for them, at least
            0 and the main output's first, in place of those of the network's paper.

    Raises:
        ValueError: An argument is out of its range. (The names are checked where they are used.)
    """

    in_channels: int
    num_classes: int
    depth: int
    filters: int
    dropout: float
    normalisation: str
    upsampling: str
    residual: bool = False
    deep_supervision: bool | Sequence[float] = False

    def __post_init__(self) -> None:
        if self.in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {self.in_channels}.")
        if self.num_classes < 2:
            raise ValueError(
                f"num_classes must be at least 2, got {self.num_classes}. "
                "Count the background: it is class 0 of `classes`."
            )
        if self.depth < 1:
            raise ValueError(
                f"depth must be at least 1, got {self.depth}. "
                "It counts the down-samplings; the network of the paper has 4."
            )
        if self.filters < 1:
            raise ValueError(f"filters must be at least 1, got {self.filters}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}.")
        if self.deep_supervision and self.depth < 2:
            raise ValueError(
                f"deep_supervision needs a depth of at least 2, got {self.depth}: there is no "
                "second output. Set train.model.deep_supervision: false."
            )
        if not isinstance(self.deep_supervision, bool):
            self._check_weights(self.deep_supervision)

    def _check_weights(self, weights: Sequence[float]) -> None:
        if len(weights) != self.depth:
            raise ValueError(
                f"deep_supervision must have one weight for each of the {self.depth} outputs, as "
                f"many as depth says, the main one first, got {len(weights)}: {list(weights)}."
            )
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not weights[0]:
            raise ValueError(
                "the weights of deep_supervision must be at least 0, and that of the main output, "
                f"the first, above it, got {list(weights)}."
            )

    @property
    def is_deeply_supervised(self) -> bool:
        """Whether the network has further outputs in training."""
        return bool(self.deep_supervision)

    def block(
        self, inputs: keras.KerasTensor, level: int, name: str, *, residual: bool = False
    ) -> keras.KerasTensor:
        """The convolution block of a level, with filters * 2 ** level channels.

        Dropout is in the blocks of the bottleneck and of the level beside it, on the way down and
        up. The paper of the U-Net has it at the end of the contracting path; the central levels
        are also where it serves Monte-Carlo dropout best (Kendall et al. 2015, arXiv:1511.02680,
        table 1).
        """
        return blocks.convolution_block(
            inputs,
            self.filters * 2**level,
            normalisation=self.normalisation,
            dropout=self.dropout if level >= self.depth - 1 else 0.0,
            residual=residual,
            name=name,
        )

    def upsample(self, inputs: keras.KerasTensor, level: int, name: str) -> keras.KerasTensor:
        """Bring the features of level + 1 to the size and channels of a level."""
        return blocks.upsample(
            inputs, self.filters * 2**level, upsampling=self.upsampling, name=name
        )

    def encode(
        self, inputs: keras.KerasTensor, uses: Sequence[int]
    ) -> list[list[keras.KerasTensor]]:
        """The contracting path, down to the bottleneck.

        Args:
            inputs: (B, H, W, in_channels), float.
            uses: How often the decoder uses the result of each level; depth + 1 numbers.

        Returns:
            depth + 1 lists, of `uses` copies each, of the features of a level l,
            (B, H / 2 ** l, W / 2 ** l, filters * 2 ** l).
        """
        levels = []
        outputs = inputs
        for level in range(self.depth + 1):
            is_last = level == self.depth
            name = "bottleneck" if is_last else f"encoder{level}"
            outputs = self.block(outputs, level, name, residual=self.residual)
            copies = blocks.branch(outputs, uses[level] + (not is_last), name=f"{name}_branch")
            if not is_last:
                outputs = keras.layers.MaxPooling2D(2, name=f"{name}_pool")(copies.pop())
            levels.append(copies)
        return levels

    def model(
        self,
        inputs: keras.KerasTensor,
        features: Sequence[tuple[str, keras.KerasTensor]],
        *,
        strides: Sequence[int],
        weights: Sequence[float],
        name: str,
    ) -> keras.Model:
        """Put a head on each of the features, and make a model of it.

        Args:
            inputs: The pictures.
            features: End of the names of the head's layers, and what it reads; the main one first.
            strides: See :class:`src.models.supervision.DeeplySupervised`.
            weights: See there; those of the design come first.
            name: Name of the model.

        Returns:
            A model with an output for each of the features.
        """
        outputs = [
            blocks.class_probabilities(tensor, self.num_classes, suffix=suffix)
            for suffix, tensor in features
        ]
        if len(outputs) == 1:
            return DataParallel(inputs, outputs[0], name=name)
        if not isinstance(self.deep_supervision, bool):
            weights = self.deep_supervision
        return DeeplySupervised(inputs, outputs, name=name, strides=strides, weights=weights)
