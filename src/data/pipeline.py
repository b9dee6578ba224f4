"""Batches of slices for training and validation, with stateless augmentation.

What a slice looks like depends on (seed, epoch, index of the slice) alone: not on the order, the
other slices of its batch, or the number of threads. An epoch that is run again after a crash
therefore shows the same pictures, bit for bit.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# Positions in the vector of random numbers of a slice. A number keeps its position when another
# augmentation is switched off, so that switching one does not change all others.
_FLIP_X, _FLIP_Y, _ANGLE, _SCALE, _SHIFT_X, _SHIFT_Y, _BRIGHTNESS, _CONTRAST, _GAMMA = range(9)


@dataclass(frozen=True)
class Augmentation:
    """How far the pictures of the training set are changed at random; 0 switches a change off.

    Picture and mask are moved together, by one affine map about the centre of the slice; the
    intensities are changed in the picture alone. All numbers are drawn uniformly, the exponent
    of gamma uniformly in its logarithm.

    Attributes:
        flip_horizontal: Probability of exchanging left and right, 0 to 1.
        flip_vertical: Probability of exchanging top and bottom, 0 to 1.
        rotation_degrees: Largest angle to either side, 0 to 180.
        scale: Largest change of size: a structure grows by a factor from 1 - scale to
            1 + scale; 0 to 0.9.
        translation: Largest shift in either direction, as a fraction of height and width, 0 to 1.
        brightness: Largest value that is added or taken off, in units of the normalised picture.
        contrast: Largest change of contrast: distances from the mean of the slice are multiplied
            by 1 - contrast to 1 + contrast; 0 to 1.
        gamma: With the values of the slice mapped to [0, 1], they are raised to a power from
            1 / (1 + gamma) to 1 + gamma.
        noise: Standard deviation of Gaussian noise, in units of the normalised picture.

    Raises:
        ValueError: A value is out of its range.
    """

    flip_horizontal: float
    flip_vertical: float
    rotation_degrees: float
    scale: float
    translation: float
    brightness: float
    contrast: float
    gamma: float
    noise: float

    def __post_init__(self) -> None:
        largest = {
            "flip_horizontal": 1.0,
            "flip_vertical": 1.0,
            "rotation_degrees": 180.0,
            "scale": 0.9,
            "translation": 1.0,
            "contrast": 1.0,
        }
        for field in fields(self):
            value, high = getattr(self, field.name), largest.get(field.name, math.inf)
            if not (0 <= value <= high and math.isfinite(value)):
                raise ValueError(
                    f"augmentation {field.name} must be from 0 (off) to {high}, got {value}."
                )


def batches(
    images: npt.NDArray[np.floating[Any]],
    masks: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.integer[Any]],
    heights: npt.NDArray[np.integer[Any]],
    widths: npt.NDArray[np.integer[Any]],
    indices: npt.NDArray[np.integer[Any]],
    *,
    batch_size: int,
    multiple: int,
    pad_value: float,
    augmentation: Augmentation | None = None,
    shuffle: bool,
    seed: int,
    epoch: int,
) -> tf.data.Dataset:
    """Make the batches of one epoch.

    Slices of different size in a batch are padded at the bottom and on the right to the largest
    of them, rounded up to `multiple`. The last batch may be smaller; no slice is left out.

    Args:
        images: (P,), float, the normalised pixels of all slices one after the other, usually
            memory-mapped: a slice is read when its batch is made.
        masks: (P,), uint8, their class indices.
        offsets: (N,), int, where each slice begins in the two.
        heights: (N,), int, height of each slice in pixels.
        widths: (N,), int, width of each slice in pixels.
        indices: (M,), int, the slices of this epoch, in order. A slice that is named twice comes
            twice, augmented in the same way.
        batch_size: Slices in a batch, at least 1.
        multiple: The sides of a batch are divisible by this; 2 ** depth of the network.
        pad_value: The normalised value around a slice, that of air.
        augmentation: The random changes; None for none.
        shuffle: Whether to put the slices into a random order, drawn from seed and epoch.
        seed: Seed of the run, at least 0.
        epoch: Number of the epoch, at least 0.

    Returns:
        A data set of (picture, mask): (B, H, W, 1) float32 and (B, H, W) uint8, of known length.

    Raises:
        ValueError: A number is out of its range, there is no slice, or a slice lies outside the
            arrays.
    """
    order = np.asarray(indices, dtype=np.int64)
    _check_numbers(batch_size=batch_size, multiple=multiple, seed=seed, epoch=epoch)
    _check_slices(images, masks, offsets, heights, widths, order)
    if shuffle:
        order = np.random.default_rng((seed, epoch)).permutation(order)

    def read(index: np.int64) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], Any]:
        height, width, start = int(heights[index]), int(widths[index]), int(offsets[index])
        pixels = slice(start, start + height * width)
        picture = np.asarray(images[pixels], dtype=np.float32).reshape(height, width)
        # Taken here: a sum in TensorFlow may depend on the number of threads in its last digit.
        statistics = np.array([picture.min(), picture.max(), picture.mean()], dtype=np.float32)
        return picture, np.asarray(masks[pixels]).reshape(height, width), statistics

    def load(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Without the promise of statelessness, op determinism would read slice after slice.
        picture, mask, statistics = tf.numpy_function(
            read, [index], (tf.float32, tf.uint8, tf.float32), stateful=False
        )
        picture.set_shape((None, None))
        mask.set_shape((None, None))
        statistics.set_shape((3,))
        if augmentation is not None:
            key = _slice_key(seed, epoch, index)
            picture, mask = _augment(picture, mask, statistics, key, augmentation, pad_value)
        return picture[..., None], mask

    height, width = (_common_side(sides[order], multiple) for sides in (heights, widths))

    def pad(picture: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        below, right = (-tf.shape(mask)[axis] % multiple for axis in (0, 1))
        picture = tf.pad(picture, [(0, below), (0, right), (0, 0)], constant_values=pad_value)
        return (
            tf.ensure_shape(picture, (height, width, 1)),
            tf.ensure_shape(tf.pad(mask, [(0, below), (0, right)]), (height, width)),
        )

    return (
        tf.data.Dataset.from_tensor_slices(order)
        .map(
            lambda index: pad(*load(index)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .padded_batch(
            batch_size,
            padded_shapes=((height, width, 1), (height, width)),
            padding_values=(np.float32(pad_value), np.uint8(0)),
        )
        .prefetch(tf.data.AUTOTUNE)
    )


def _check_numbers(**numbers: int) -> None:
    """Check that sizes are at least 1, and seed and epoch at least 0."""
    for name, value in numbers.items():
        lowest = 0 if name in ("seed", "epoch") else 1
        if value < lowest:
            raise ValueError(f"{name} must be at least {lowest}, got {value}.")


def _check_slices(
    images: npt.NDArray[Any],
    masks: npt.NDArray[Any],
    offsets: npt.NDArray[Any],
    heights: npt.NDArray[Any],
    widths: npt.NDArray[Any],
    indices: npt.NDArray[np.int64],
) -> None:
    """Check that every slice asked for lies inside the arrays."""
    if images.ndim != 1 or images.shape != masks.shape:
        raise ValueError(
            "images and masks must be one-dimensional and of one length, got shapes "
            f"{images.shape} and {masks.shape}. Run `dvc repro prepare`."
        )
    if not len(offsets) == len(heights) == len(widths):
        raise ValueError(
            "offsets, heights and widths must be of one length, got "
            f"{len(offsets)}, {len(heights)} and {len(widths)}. Run `dvc repro prepare`."
        )
    if indices.size == 0:
        raise ValueError("indices must name at least one slice, got none. Look at the split.")
    if indices.min() < 0 or indices.max() >= len(offsets):
        raise ValueError(
            f"indices must be from 0 to {len(offsets) - 1}, got {indices.min()} to "
            f"{indices.max()}. The split and the arrays are not of the same data."
        )
    ends = offsets[indices] + heights[indices] * widths[indices]
    if ends.max() > len(images) or offsets[indices].min() < 0:
        raise ValueError(
            f"slices must lie within the {len(images)} pixels of the arrays, got one that ends "
            f"at {ends.max()}. Run `dvc repro prepare`."
        )


def _common_side(sides: npt.NDArray[np.integer[Any]], multiple: int) -> int | None:
    """Return the padded side if it is the same for all slices (XLA is glad to know), else None."""
    padded = set(np.unique(-(-np.asarray(sides) // multiple) * multiple).tolist())
    return padded.pop() if len(padded) == 1 else None


def _slice_key(seed: int, epoch: int, index: tf.Tensor) -> tf.Tensor:
    """Return the key, (2,) int64, of the random numbers of one slice in one epoch."""
    return tf.random.fold_in(tf.constant([seed, epoch], tf.int64), index, alg="philox")


def _augment(
    picture: tf.Tensor,
    mask: tf.Tensor,
    statistics: tf.Tensor,
    key: tf.Tensor,
    augmentation: Augmentation,
    pad_value: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Change one slice at random.

    The map comes first, so that air which it moves in is changed like the air of the slice.

    Args:
        picture: (H, W), float32.
        mask: (H, W), uint8.
        statistics: (3,), float32: minimum, maximum and mean of the picture.
        key: (2,), int64: the same key changes in the same way.
        augmentation: How far.
        pad_value: Value of what is moved in from outside; the mask has background there.

    Returns:
        Picture and mask of the same shape.
    """
    numbers = tf.random.stateless_uniform((9,), key, alg="philox")  # in [0, 1)
    transform = _inverse_map(tf.shape(picture), numbers, augmentation)
    picture = _warp(picture, transform, "BILINEAR", pad_value)
    mask = _warp(mask, transform, "NEAREST", 0.0)

    signed = 2.0 * numbers - 1.0
    low, high, mean = tf.unstack(statistics)
    if augmentation.gamma:
        low, high = tf.minimum(low, pad_value), tf.maximum(high, pad_value)
        power = tf.exp(signed[_GAMMA] * math.log1p(augmentation.gamma))
        unit = tf.clip_by_value(tf.math.divide_no_nan(picture - low, high - low), 0.0, 1.0)
        picture = low + (high - low) * unit**power
    if augmentation.contrast:
        picture = mean + (1.0 + signed[_CONTRAST] * augmentation.contrast) * (picture - mean)
    if augmentation.brightness:
        picture += signed[_BRIGHTNESS] * augmentation.brightness
    if augmentation.noise:
        # A key of its own (fold 0), or the noise would repeat the numbers above.
        noise_key = tf.random.fold_in(key, 0, alg="philox")
        noise = tf.random.stateless_normal(tf.shape(picture), noise_key, alg="philox")
        picture += augmentation.noise * noise
    return picture, mask


def _inverse_map(shape: tf.Tensor, numbers: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """Draw the affine map, as the matrix that ImageProjectiveTransformV3 takes.

    It says where each point (x, y) of the result comes from, with c the centre, t the shift, s
    the factor of size and F the flips:

        source = c + F R(-angle) (target - c - t) / s

    Args:
        shape: (2,), int32, height and width.
        numbers: (9,), float32, uniform in [0, 1).
        augmentation: How far.

    Returns:
        (8,), float32: a0, a1, a2, b0, b1, b2, 0, 0 with x' = a0 x + a1 y + a2 and
        y' = b0 x + b1 y + b2.
    """
    signed = 2.0 * numbers - 1.0
    height, width = tf.unstack(tf.cast(shape, tf.float32))
    centre_x, centre_y = (width - 1.0) / 2.0, (height - 1.0) / 2.0
    shift_x = signed[_SHIFT_X] * augmentation.translation * width
    shift_y = signed[_SHIFT_Y] * augmentation.translation * height
    angle = signed[_ANGLE] * math.radians(augmentation.rotation_degrees)
    factor = 1.0 + signed[_SCALE] * augmentation.scale
    cosine, sine = tf.cos(angle) / factor, tf.sin(angle) / factor
    flip_x = tf.where(numbers[_FLIP_X] < augmentation.flip_horizontal, -1.0, 1.0)
    flip_y = tf.where(numbers[_FLIP_Y] < augmentation.flip_vertical, -1.0, 1.0)

    a0, a1 = flip_x * cosine, flip_x * sine
    b0, b1 = -flip_y * sine, flip_y * cosine
    a2 = centre_x - a0 * (centre_x + shift_x) - a1 * (centre_y + shift_y)
    b2 = centre_y - b0 * (centre_x + shift_x) - b1 * (centre_y + shift_y)
    return tf.stack([a0, a1, a2, b0, b1, b2, 0.0, 0.0])


def _warp(pixels: tf.Tensor, transform: tf.Tensor, interpolation: str, fill: float) -> tf.Tensor:
    """Apply an inverse map (8,) to (H, W) pixels of any dtype; points from outside are `fill`."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels[None, ..., None],
        transforms=transform[None],
        output_shape=tf.shape(pixels),
        fill_value=fill,
        interpolation=interpolation,
        fill_mode="CONSTANT",
    )[0, ..., 0]
