"""One model: slices of any size -> class probabilities and masks of that size."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.data.arrays import Arrays
from src.data.preprocessing import Preprocessing, Spacing, preprocess, restore, single
from src.data.stacks import neighbours
from src.engines import Engine, keras_engine
from src.evaluation.temperature import PixelSample, apply_temperature
from src.model_files import ModelCard, check_network
from src.postprocessing import Postprocessing, postprocess
from src.tiling import Forward, mean_over_flips, sliding_window

if TYPE_CHECKING:
    import keras

Images = NDArray[Any] | Sequence[NDArray[Any]]
"""Slices (B, H, W), or a list of (H, W) of any sizes, in HU."""

Spacings = Spacing | Sequence[Spacing] | None
"""(y, x) in mm of the pixels of all slices, or of each slice; None where nobody knows."""


class Segmenter:
    """A model together with its preprocessing.

    Attributes:
        settings: What is done to a slice first; comes with the model, not from params.yaml.
        card: Classes, architecture and so on.
        engine: What runs the network.
    """

    def __init__(
        self,
        model: keras.Model | Path,
        settings: Preprocessing,
        card: ModelCard,
        *,
        engine: Engine | None = None,
    ) -> None:
        """Put them together.

        Args:
            model: (B, H, W, 2 * context + 1) normalised -> (B, H, W, C) probabilities; or where
                it lies, with an engine that does not need it.
            settings: What is done to a slice first.
            card: Classes, architecture and so on.
            engine: What runs the network; None for Keras.
        """
        self._model = model
        self.settings = settings
        self.card = card
        self.engine = engine or keras_engine(self.model, card.in_channels)
        self._network: Forward = self.engine.forward

    @property
    def model(self) -> keras.Model:
        """The Keras model, loaded when it is first asked for."""
        if isinstance(self._model, Path):
            self._model = keras_model(self._model, self.card)
        return self._model

    def run_by(self, engine: Engine) -> Segmenter:
        """The same model run by another engine."""
        return Segmenter(self._model, self.settings, self.card, engine=engine)

    @property
    def _forward(self) -> Forward:
        return mean_over_flips(self._network) if self.card.flips else self._network

    def changed(self, **changes: Any) -> Segmenter:
        """The same model used in another way: its card with some values changed.

        Args:
            **changes: Of `ModelCard`, such as flips=True, or temperature=1.0 for the probabilities
                as the network gives them.
        """
        other = copy.copy(self)
        other.card = replace(self.card, **changes)
        return other

    def with_dropout(self, *, seed: int) -> Segmenter | None:
        """The same model with dropout at work: each time it looks at a picture it says otherwise.

        Args:
            seed: Of the dropout; two segmenters of one seed say the same, one look after the other.

        Returns:
            The model without flips; None where it has no dropout.
        """
        from src.models.dropout import monte_carlo, reseed_dropout

        twin = monte_carlo(self.model)
        if twin is None:
            return None
        reseed_dropout(twin, seed=seed, epoch=0)
        return Segmenter(twin, self.settings, replace(self.card, flips=False))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the class index."""
        return self.card.classes

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.card.classes)

    @property
    def name(self) -> str:
        """What it is, for people: its architecture."""
        return self.card.architecture

    @property
    def engine_note(self) -> str:
        """What runs the network, and why, for people."""
        return self.engine.note

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """Median (y, x) spacing of the training slices."""
        return self.card.spacing_mm

    @property
    def postprocessing(self) -> Postprocessing:
        """What is done to the masks."""
        return self.card.postprocessing

    @property
    def needs_spacing(self) -> bool:
        """Whether the spacing of the slices given must be known."""
        return self.settings.spacing_mm is not None

    @property
    def needs_whole_scans(self) -> bool:
        """Whether the slices given must be all slices of one scan, in order."""
        return self.sees_neighbours or bool(self.postprocessing)

    @property
    def sees_neighbours(self) -> bool:
        """Whether what a slice gives depends on the slices beside it in a scan."""
        return self.card.context > 0

    def probabilities(
        self, images_hu: Images, spacing_mm: Spacings = None, *, batch_size: int = 16
    ) -> list[NDArray[np.float32]]:
        """Class probabilities of slices, each at its own size.

        Args:
            images_hu: (B, H, W), or a list of (H, W) of any sizes, in HU. Where the model has
                context, the slices of one scan, in order.
            spacing_mm: Of their pixels; needed by a model whose slices get a common spacing
                (`needs_spacing`), looked at by no other.
            batch_size: Slices or patches that go through the network together.

        Returns:
            A (H, W, C) float32 array for each slice, summing to 1 over C; an empty list for none.

        Raises:
            ValueError: A slice that is not 2-D, is empty, or holds values that are not finite; a
                spacing that is needed is not given.
        """
        results: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(images_hu)
        for number, probability in self.each(images_hu, spacing_mm, batch_size=batch_size):
            results[number] = probability
        return results

    def each(
        self, images_hu: Images, spacing_mm: Spacings = None, *, batch_size: int = 16
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The class probabilities of `probabilities`, one slice after the other as they are made.

        So that a scan of any length needs no more memory than a batch of probabilities.

        Args:
            images_hu: As in `probabilities`.
            spacing_mm: As in `probabilities`.
            batch_size: As in `probabilities`.

        Yields:
            Number of the slice and its (H, W, C) float32 probabilities, in any order.

        Raises:
            ValueError: As in `probabilities`.
        """
        spacings = _of_each(spacing_mm, len(images_hu))
        prepared = [
            preprocess(_checked(image, number), self.settings, spacings[number])
            for number, image in enumerate(images_hu)
        ]
        for number, probability in self.prepared_probabilities(prepared, batch_size=batch_size):
            height, width = images_hu[number].shape
            restored = restore(probability, height, width, self.settings, spacings[number])
            if self.card.temperature != 1:
                restored = apply_temperature(restored, self.card.temperature)
            yield number, restored

    def each_with_mask(
        self, images_hu: Images, spacing_mm: Spacings = None, *, batch_size: int = 16
    ) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.float32]]]:
        """`each` with the most probable class of each pixel, as it is scored.

        Args:
            images_hu: As in `probabilities`.
            spacing_mm: As in `probabilities`.
            batch_size: As in `probabilities`.

        Yields:
            Number of the slice, its (H, W) uint8 class indices, not cleaned, and its (H, W, C)
            float32 probabilities, in any order.

        Raises:
            ValueError: As in `probabilities`.
        """
        # By what the network says: at another temperature two classes may become equally probable.
        plain = self.changed(temperature=1.0)
        for number, before in plain.each(images_hu, spacing_mm, batch_size=batch_size):
            after = before
            if self.card.temperature != 1:
                after = apply_temperature(before, self.card.temperature)
            yield number, most_probable(before), after

    def masks(
        self, images_hu: Images, spacing_mm: Spacings = None, *, batch_size: int = 16
    ) -> list[NDArray[np.uint8]]:
        """The most probable class of each pixel, cleaned as the model's card says.

        Args:
            images_hu: As in `probabilities`; where the model has postprocessing too, the slices
                of one scan, in order. Slices of different size are cleaned one by one.
            spacing_mm: As in `probabilities`.
            batch_size: As in `probabilities`. Probabilities of no more slices are held at once.

        Returns:
            (H, W) uint8 class indices for each slice.

        Raises:
            ValueError: As in `probabilities`.
        """
        results: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)] * len(images_hu)
        plain = self.changed(temperature=1.0)  # which moves no pixel to another class
        for number, probability in plain.each(images_hu, spacing_mm, batch_size=batch_size):
            results[number] = most_probable(probability)
        return cleaned(results, self.postprocessing)

    def prepared_probabilities(
        self, slices: Sequence[NDArray[np.floating[Any]]], *, batch_size: int = 16
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Class probabilities of slices that are preprocessed already, at that size.

        Args:
            slices: (H, W) each, normalised, such as those of `Arrays`; where the model has
                context, those of one scan, in order.
            batch_size: Slices or patches that go through the network together.

        Yields:
            Number of the slice and its (H, W, C) float32 probabilities; slices of one size
            together.
        """
        sizes = np.array([image.shape for image in slices], np.int64).reshape(-1, 2)
        one_scan = np.zeros(len(slices), np.int64)
        table = neighbours(one_scan, np.arange(len(slices)), sizes, self.card.context)
        by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, image in enumerate(slices):
            by_size[image.shape].append(number)
        tiling, air = self.card.tiling, self.settings.pad_value
        for numbers in by_size.values():
            together = batch_size if tiling is None else 1
            for start in range(0, len(numbers), together):
                part = numbers[start : start + together]
                stacks = [np.stack([slices[row] for row in rows], axis=-1) for rows in table[part]]
                batch = single(np.stack(stacks))
                if tiling is None:
                    yield from zip(part, self._forward(batch), strict=True)
                else:
                    yield (
                        part[0],
                        sliding_window(
                            self._forward, batch[0], tiling, batch_size=batch_size, pad_value=air
                        ),
                    )


def most_probable(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H, W, C) probabilities -> (H, W) uint8 class indices; of equal ones the first."""
    # Class by class in memory: NumPy is slow over a short last axis.
    highest, *others = np.ascontiguousarray(np.moveaxis(probability, -1, 0))
    mask = np.zeros(highest.shape, np.uint8)
    for index, plane in enumerate(others, start=1):
        mask[plane > highest] = index
        highest = np.maximum(highest, plane)
    return mask


def cleaned(masks: list[NDArray[np.uint8]], steps: Postprocessing) -> list[NDArray[np.uint8]]:
    """Postprocessing of the slices of one scan together; of different sizes, one by one."""
    if not steps or not masks:
        return masks
    if len({mask.shape for mask in masks}) > 1:
        return [postprocess(mask, steps) for mask in masks]
    return list(postprocess(np.stack(masks), steps))


def predicted_scans(
    segmenter: Segmenter,
    arrays: Arrays,
    rows: NDArray[np.int64],
    *,
    sample: PixelSample | None = None,
    batch_size: int = 16,
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
    """The masks of prepared scans beside the truth, for `postprocessing.choose`.

    Args:
        segmenter: The model; its card's own postprocessing is not applied.
        arrays: The prepared slices, with `pseudonym` in their index.
        rows: (M,), such as those of the validation side: all slices of each scan.
        sample: Is shown the probabilities, so that a temperature can be fitted to them.
        batch_size: Slices or patches that go through the network together.

    Yields:
        Patient, truth and prediction of each scan, (D, H, W) uint8 at the size of the prepared
        slices; (H, W) of each slice where they differ in size, for these are cleaned one by one.
    """
    for scan in arrays.scans(rows):
        images, truths = zip(*(arrays.slice(int(row)) for row in scan), strict=True)
        masks = [np.empty(0, np.uint8)] * len(scan)
        predicted = segmenter.prepared_probabilities(images, batch_size=batch_size)
        for number, probability in predicted:
            masks[number] = most_probable(probability)
            if sample is not None:
                sample.add(probability, truths[number])
        patient = str(arrays.index["pseudonym"].iloc[scan[0]])
        if len({mask.shape for mask in masks}) == 1:
            yield patient, np.stack(truths), np.stack(masks)
        else:
            yield from zip([patient] * len(masks), truths, masks, strict=True)


def _of_each(spacing_mm: Spacings, number: int) -> list[Spacing | None]:
    """The spacing of each of so many slices."""
    if spacing_mm is None:
        return [None] * number
    pairs = np.asarray(spacing_mm, np.float64)
    if pairs.shape not in ((2,), (number, 2)):
        raise ValueError(
            f"spacing_mm must be one pair (y, x) or one of each of the {number} slices, got shape "
            f"{pairs.shape}"
        )
    return [(float(y), float(x)) for y, x in np.broadcast_to(pairs, (number, 2))]


def _checked(image: NDArray[Any], number: int) -> NDArray[Any]:
    if image.ndim != 2 or image.size == 0:
        raise ValueError(f"slice {number} must be a 2-D picture in HU, got shape {image.shape}")
    if not np.isfinite(image).all():
        raise ValueError(f"slice {number} holds values that are not finite: mend the scan first")
    return image


def keras_model(path: Path, card: ModelCard) -> keras.Model:
    """The network of a model.keras, after a look whether it is the one that its card describes."""
    import keras

    import src.models  # noqa: F401  # registers the layers of model.keras

    model = keras.models.load_model(path, compile=False)
    check_network(
        path.parent,
        card,
        architecture=model.name,
        in_channels=model.inputs[0].shape[-1],
        num_classes=model.outputs[0].shape[-1],
    )
    return model
