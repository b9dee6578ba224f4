"""Deep supervision: further outputs of a network that are compared with the truth in training."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from src.models.data_parallel import DataParallel


@keras.saving.register_keras_serializable(package="ct_segmentation")
class DeeplySupervised(DataParallel):
    """A network with several outputs, compiled with the loss and the metrics of one.

    In training the loss is the mean over the outputs, by their weights,

        L = sum_k w_k loss(truth at every s_k-th pixel, output_k) / sum_k w_k

    The truth of a coarse output is taken, not interpolated: of the s x s pixels that one of its
    pixels stands for, the one beside their centre. In validation the loss is that of the first
    output, the main one, alone, and the metrics always are: there the further ones are means, not
    ends. :func:`inference_model` has only the main output.

    Args:
        inputs: As of `keras.Model`.
        outputs: A list of probabilities, (B, H / s_k, W / s_k, C); the main one, of stride 1,
            first.
        name: As of `keras.Model`.
        strides: s, pixels of the truth for each pixel of an output.
        weights: w, at least 0, one an output.
        **kwargs: Further arguments of `keras.Model`.

    Source: Lee et al. 2015, arXiv:1409.5185; truth and weights as in Isensee et al. 2021,
        DOI 10.1038/s41592-020-01008-z.
    """

    def __init__(
        self,
        inputs: Any,
        outputs: Any,
        name: str | None = None,
        *,
        strides: Sequence[int],
        weights: Sequence[float],
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs, outputs, name=name, **kwargs)
        self.output_strides = tuple(strides)
        self.output_weights = tuple(weights)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> keras.KerasTensor:
        """Return the scalar loss of truth `y`, (B, H, W), and the outputs `y_pred`."""
        if not training:
            return super().compute_loss(x, y, y_pred[0], sample_weight, training=False)
        losses = []
        for stride, output in zip(self.output_strides, y_pred, strict=True):
            coarse = y[:, stride // 2 :: stride, stride // 2 :: stride]
            losses.append(super().compute_loss(x, coarse, output, sample_weight, training=True))
        # One sum of a stack, so that its order is fixed (see `blocks`).
        total = ops.sum(ops.stack(losses) * ops.convert_to_tensor(self.output_weights))
        return total / sum(self.output_weights)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Return the metrics of the main output."""
        return super().compute_metrics(x, y, y_pred[0], sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that build this model again."""
        return {
            **super().get_config(),
            "strides": self.output_strides,
            "weights": self.output_weights,
        }


def inference_model(model: keras.Model) -> keras.Model:
    """The network with its main output alone: what is saved and used after training.

    Args:
        model: What `build_model` returned.

    Returns:
        A plain model from pictures to one tensor of probabilities that shares its weights with
        `model`.
    """
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
