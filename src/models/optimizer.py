"""Adam, with decoupled weight decay or without, by TensorFlow's fused kernel where there is one."""

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="ct_segmentation")
class FusedAdam(keras.optimizers.Adam):  # type: ignore[misc]  # Keras is untyped
    """Keras' Adam; the update of a variable is one operation in place of some twenty.

    A U-Net has 64 variables, most of them small: Keras' elementary operations are 1,500 a step,
    whose starts cost more than their arithmetic. The state, its names and the result (within
    rounding) are those of `keras.optimizers.Adam`; with `weight_decay` it is AdamW.

    Other backends, variables of another type than float32, and `amsgrad` go to Keras.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2; Kingma and Ba 2015,
        arXiv:1412.6980, the reformulation at the end of section 2.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Moves one variable.

        Args:
            gradient: Of the loss, in the shape of the variable.
            variable: Of the model; changed in place, with the state that belongs to it.
            learning_rate: A scalar.
        """
        if keras.backend.backend() != "tensorflow" or self.amsgrad or variable.dtype != "float32":
            super().update_step(gradient, variable, learning_rate)
            return
        # keras.ops has no fused update.
        import tensorflow as tf

        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, tf.float32),
        )
