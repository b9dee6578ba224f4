"""Dropout that can be repeated, and dropout that is at work outside of training."""

import keras
import numpy as np


@keras.saving.register_keras_serializable(package="ct_segmentation")
class MonteCarloDropout2D(keras.layers.SpatialDropout2D):  # type: ignore[misc]  # Keras is untyped
    """Dropout of whole feature maps that is at work outside of training too."""

    def call(self, inputs: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        """Return (B, H, W, C) with some feature maps dropped, whatever `training` says."""
        return super().call(inputs, training=True)


def monte_carlo(model: keras.Model) -> keras.Model | None:
    """Make a network that drops feature maps whenever it runs, and is else as outside of training.

    So that several runs over one picture differ, and by how much says how sure the network is.

    Args:
        model: A trained network, as `inference_model` makes it.

    Returns:
        A network with the same weights, copied; None where the model has no dropout.

    Source: Gal and Ghahramani 2016, arXiv:1506.02142.
    """

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        dropout = isinstance(layer, keras.layers.SpatialDropout2D)
        return (MonteCarloDropout2D if dropout else type(layer)).from_config(layer.get_config())

    if not any(isinstance(layer, keras.layers.SpatialDropout2D) for layer in model.layers):
        return None
    twin = keras.models.clone_model(model, clone_function=copied)
    twin.set_weights(model.get_weights())
    return twin


def reseed_dropout(model: keras.Model, *, seed: int, epoch: int) -> None:
    """Start the random numbers of all dropout layers anew, to be called before each epoch.

    Keras does not save where they stand. Drawn from seed and epoch, they are the same in an
    epoch that is run again after a crash as in a run without one.

    Args:
        model: The network; changed in place.
        seed: Seed of the run, at least 0.
        epoch: Number of the epoch, at least 0.
    """
    for position, layer in enumerate(model.layers):
        if hasattr(layer, "seed_generator"):
            drawn = np.random.SeedSequence((seed, epoch, position)).generate_state(1)
            # Half of the range, as some backends keep the state as int32.
            layer.seed_generator.state.assign([int(drawn[0]) >> 1, 0])
