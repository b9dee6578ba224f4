"""Batches of slices or patches for training and validation.

What a case looks like depends on (seed, epoch, position in the epoch) alone: not on the order in
which batches are made, the number of threads, or the process. An epoch that is run again after a
crash therefore shows the same pictures, bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.data.arrays import Arrays
from src.data.augmentation import PLACE_STREAM, Augmentation, augment, cut, random_stream, whole
from src.data.sampling import Plan, Sampling, classes_held, place_view, plan_epoch

if TYPE_CHECKING:
    import tensorflow as tf

AHEAD = 4  # batches that are ready before training asks for them

Case = tuple[NDArray[np.float32], NDArray[np.uint8]]
"""Image (H, W, C) in normalised units and mask (H, W) of class indices; or a batch of them."""


@dataclass(frozen=True, eq=False)
class Batches:
    """A fixed list of batches, each made when it is asked for.

    Attributes:
        read: Position of a case -> the case.
        positions: The cases of each batch.
        channels: C of every case.
        sides: (height, width) of every batch; None where it differs from batch to batch.
        multiple: The sides of a batch are divisible by this.
        pad_value: Around cases that are smaller than their batch; the mask has 0 there.
    """

    read: Callable[[int], Case]
    positions: list[NDArray[np.int64]]
    channels: int
    sides: tuple[int | None, int | None]
    multiple: int
    pad_value: float

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, number: int) -> Case:
        """Batch `number`: images (B, H, W, C) float32 and masks (B, H, W) uint8.

        Cases of different size are padded at the bottom and on the right to the largest of them,
        rounded up to `multiple`.
        """
        cases = [self.read(int(position)) for position in self.positions[number]]
        height, width = (
            max(-(-mask.shape[axis] // self.multiple) * self.multiple for _, mask in cases)
            for axis in (0, 1)
        )
        images = np.full((len(cases), height, width, self.channels), self.pad_value, np.float32)
        masks = np.zeros((len(cases), height, width), np.uint8)
        for place, (image, mask) in enumerate(cases):
            images[place, : mask.shape[0], : mask.shape[1]] = image
            masks[place, : mask.shape[0], : mask.shape[1]] = mask
        return images, masks

    def __iter__(self) -> Iterator[Case]:
        return (self[number] for number in range(len(self)))

    def dataset(self) -> tf.data.Dataset:
        """The batches in order as a data set of known length, made ahead in several threads."""
        import tensorflow as tf

        height, width = self.sides

        def load(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # Without the promise of statelessness, op determinism would make batch after batch.
            images, masks = tf.numpy_function(
                self.__getitem__, [number], (tf.float32, tf.uint8), stateful=False
            )
            return (
                tf.ensure_shape(images, (None, height, width, self.channels)),
                tf.ensure_shape(masks, (None, height, width)),
            )

        batches = (
            tf.data.Dataset.range(len(self))
            .map(load, num_parallel_calls=os.cpu_count() or 1, deterministic=True)
            .prefetch(AHEAD)
        )
        # At the end of an epoch TensorFlow can wait until its tuner next wakes up: after 5, 10 or
        # 20 s, up to as long again as the epoch took. Nothing is left here to be tuned.
        options = tf.data.Options()
        options.autotune.enabled = False
        return batches.with_options(options)


class TrainingCases:
    """The training side: which cases each epoch shows, and how they are changed.

    Attributes:
        steps_per_epoch: Number of batches; the last one may be smaller.
    """

    def __init__(
        self,
        arrays: Arrays,
        rows: NDArray[np.integer[Any]],
        *,
        sampling: Sampling,
        augmentation: Augmentation | None,
        context: int,
        batch_size: int,
        multiple: int,
        seed: int,
    ) -> None:
        """Look at the slices once.

        Args:
            arrays: The prepared slices.
            rows: (N,), those of the training side, at least one.
            sampling: Which of them an epoch shows, whole or as patches.
            augmentation: How far cases are changed; None for not at all. With patches there is
                no translation: they lie at a random place as it is.
            context: Number of neighbouring slices on either side that come as channels.
            batch_size: Cases in a batch, at least 1.
            multiple: The sides of a batch are divisible by this; 2 ** depth of the network.
            seed: Seed of the run, at least 0.

        Raises:
            ValueError: A number is out of its range, there is no slice, or no foreground where
                some is asked for.
        """
        _check(rows, len(arrays.sizes), batch_size=batch_size, multiple=multiple, seed=seed)
        patch = sampling.patch_size
        if patch and any(side % multiple for side in patch):
            raise ValueError(
                f"patch_size must be divisible by {multiple}, got {list(patch)}. Mend "
                "train.sampling.patch_size in params.yaml."
            )
        if patch and augmentation:
            augmentation = replace(augmentation, translation=0.0)
        self._arrays, self._rows, self._seed = arrays, np.asarray(rows, np.int64), seed
        self._sampling, self._augmentation = sampling, augmentation
        self._batch_size, self._multiple = batch_size, multiple
        self._neighbours = arrays.neighbours(context)
        self._held = (
            classes_held(arrays, rows)
            if sampling.foreground
            else np.zeros((len(rows), len(arrays.classes)), bool)
        )
        self.steps_per_epoch = -(-(sampling.cases_per_epoch or len(rows)) // batch_size)

    def epoch(self, number: int) -> Batches:
        """The batches of an epoch, counted from 0; the same whenever it is asked for."""
        if not 0 <= number < 2**32:
            raise ValueError(f"epoch must be from 0 to 2**32 - 1, got {number}.")
        plan = plan_epoch(self._rows, self._held, self._sampling, seed=self._seed, epoch=number)
        patch = self._sampling.patch_size
        return Batches(
            read=lambda position: self.case(plan, number, position),
            positions=_consecutive(len(plan.rows), self._batch_size),
            channels=self._neighbours.shape[1],
            sides=patch or _common_sides(self._arrays.sizes[self._rows], self._multiple),
            multiple=self._multiple,
            pad_value=self._arrays.settings.pad_value,
        )

    def case(self, plan: Plan, epoch: int, position: int) -> Case:
        """Make one case of the plan of an epoch: image (H, W, C) float32, mask (H, W) uint8."""
        row, wanted = int(plan.rows[position]), int(plan.classes[position])
        mask = self._arrays.slice(row)[1]
        key = (self._seed, epoch, position)
        if self._sampling.patch_size is None:  # spares the random numbers of a place
            view = whole(*mask.shape)
        else:
            random = random_stream(key, PLACE_STREAM)
            view = place_view(mask, wanted, self._sampling.patch_size, random)
        channels = _channels(self._arrays, self._neighbours[row])
        air = self._arrays.settings.pad_value
        if self._augmentation is None:
            return cut(channels, mask, view, air)
        return augment(channels, mask, view, self._augmentation, pad_value=air, key=key)


def whole_slices(
    arrays: Arrays,
    rows: NDArray[np.integer[Any]],
    *,
    context: int,
    batch_size: int,
    multiple: int,
) -> Batches:
    """The batches of validation: every slice once, whole and as it is.

    Slices of one size come together, in the order of `rows`, so that hardly any padding is
    counted; networks that were trained on patches take whole slices too.

    Args:
        arrays: The prepared slices.
        rows: (M,), those to show, at least one.
        context: Number of neighbouring slices on either side that come as channels.
        batch_size: Slices in a batch, at least 1.
        multiple: The sides of a batch are divisible by this; 2 ** depth of the network.

    Returns:
        The batches.

    Raises:
        ValueError: A number is out of its range, or there is no slice.
    """
    _check(rows, len(arrays.sizes), batch_size=batch_size, multiple=multiple)
    table = arrays.neighbours(context)
    sizes = -(-arrays.sizes[rows] // multiple) * multiple
    positions = [
        group[part]
        for size in np.unique(sizes, axis=0)
        for group in [np.flatnonzero((sizes == size).all(axis=1))]
        for part in _consecutive(len(group), batch_size)
    ]

    def read(position: int) -> Case:
        row = int(rows[position])
        mask = arrays.slice(row)[1]
        channels = _channels(arrays, table[row])
        return cut(channels, mask, whole(*mask.shape), arrays.settings.pad_value)

    return Batches(
        read=read,
        positions=positions,
        channels=table.shape[1],
        sides=_common_sides(arrays.sizes[rows], multiple),
        multiple=multiple,
        pad_value=arrays.settings.pad_value,
    )


@dataclass(frozen=True, eq=False)
class Example:
    """One training slice beside what training makes of it; of channels, the slice itself.

    Attributes:
        row: Of the arrays.
        image: (H, W) float32, normalised, as it is.
        mask: (H, W) uint8, as it is.
        changed: Image and mask as in training, one pair a version.
    """

    row: int
    image: NDArray[np.float32]
    mask: NDArray[np.uint8]
    changed: list[Case]


def augmented_examples(
    arrays: Arrays,
    rows: NDArray[np.integer[Any]],
    *,
    sampling: Sampling,
    augmentation: Augmentation | None,
    versions: int,
    seed: int,
) -> list[Example]:
    """Make what a contact sheet of augmented cases shows.

    Patches are placed on the last class that the slice holds.

    Args:
        arrays: The prepared slices.
        rows: (k,), the slices to show.
        sampling: Whole slices or patches.
        augmentation: How far cases are changed; None for not at all.
        versions: Number of changed versions of each slice: those of epochs 0, 1, 2, …
        seed: Seed of the run.

    Returns:
        An example for each row.
    """
    cases = TrainingCases(
        arrays,
        rows,
        sampling=replace(sampling, foreground=0.0, cases_per_epoch=None),
        augmentation=augmentation,
        context=0,
        batch_size=1,
        multiple=1,
        seed=seed,
    )
    masks = [np.array(arrays.slice(int(row))[1]) for row in rows]
    classes = np.array([mask.max(initial=0) for mask in masks], np.int64)
    plan = Plan(np.asarray(rows, np.int64), classes)
    examples = []
    for position, (row, mask) in enumerate(zip(rows, masks, strict=True)):
        made = [cases.case(plan, epoch, position) for epoch in range(versions)]
        image = arrays.slice(int(row))[0].astype(np.float32)
        changed = [(picture[..., 0], truth) for picture, truth in made]
        examples.append(Example(int(row), image, mask, changed))
    return examples


def _channels(arrays: Arrays, rows: NDArray[np.integer[Any]]) -> list[NDArray[np.floating[Any]]]:
    """The images of these rows, (H, W) each, not read before use."""
    return [arrays.slice(int(row))[0] for row in rows]


def _consecutive(number: int, size: int) -> list[NDArray[np.int64]]:
    """0 … number - 1 in parts of `size`; the last one may be smaller."""
    return [np.arange(start, min(start + size, number)) for start in range(0, number, size)]


def _common_sides(sizes: NDArray[np.integer[Any]], multiple: int) -> tuple[int | None, int | None]:
    """The padded height and width where all slices share them (XLA is glad to know), else None."""
    padded = [np.unique(-(-side // multiple) * multiple) for side in sizes.T]
    height, width = (int(side[0]) if len(side) == 1 else None for side in padded)
    return height, width


def _check(rows: NDArray[np.integer[Any]], slices: int, **numbers: int) -> None:
    """Check that sizes are at least 1 and the seed at least 0, and that the rows are there."""
    for name, value in numbers.items():
        lowest = 0 if name == "seed" else 1
        if value < lowest:
            raise ValueError(f"{name} must be at least {lowest}, got {value}.")
    if not len(rows):
        raise ValueError("rows must name at least one slice, got none. Look at the split.")
    if np.min(rows) < 0 or np.max(rows) >= slices:
        raise ValueError(
            f"rows must be from 0 to {slices - 1}, got {np.min(rows)} to {np.max(rows)}. The split "
            "and the arrays are not of the same data: run `dvc repro prepare`."
        )
