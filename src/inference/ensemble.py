"""Several models that segment as one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from src.data.preprocessing import Preprocessing
from src.inference.segmenter import Images, Segmenter, Spacings, cleaned, most_probable
from src.postprocessing import Postprocessing


class Ensemble:
    """Several models that segment as one: the mean of their probabilities.

    It takes the place of a `Segmenter` wherever masks or probabilities are wanted.

    Attributes:
        segmenters: The models, each with its own preprocessing.
        postprocessing: What is done to the masks; that of the models is not used.
    """

    def __init__(self, segmenters: Sequence[Segmenter], postprocessing: Postprocessing) -> None:
        """Put models together.

        Args:
            segmenters: At least one, all with the same classes in the same order.
            postprocessing: For the masks of the ensemble; Postprocessing() for nothing.

        Raises:
            ValueError: There is no model, or their classes differ.
        """
        classes = {segmenter.class_names for segmenter in segmenters}
        if len(classes) != 1:
            raise ValueError(
                "an ensemble needs one or more models with the same classes in the same order, got "
                f"{len(segmenters)} models with {sorted(classes)}. Name other model folders."
            )
        self.segmenters = tuple(segmenters)
        self.postprocessing = postprocessing

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the class index."""
        return self.segmenters[0].class_names

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.class_names)

    @property
    def name(self) -> str:
        """What it is, for people: its architectures and how many models it has."""
        architectures = ", ".join(sorted({s.name for s in self.segmenters}))
        return f"{architectures}, ensemble of {len(self.segmenters)}"

    @property
    def engine_note(self) -> str:
        """What runs the networks, and why, for people."""
        return "; ".join(sorted({s.engine_note for s in self.segmenters}))

    @property
    def settings(self) -> Preprocessing:
        """Preprocessing of the first model, for drawing and warnings; each model uses its own."""
        return self.segmenters[0].settings

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """Median over the models of the (y, x) spacing of their training slices."""
        y, x = np.median([s.spacing_mm for s in self.segmenters], axis=0).tolist()
        return y, x

    @property
    def needs_spacing(self) -> bool:
        """Whether the spacing of the slices given must be known."""
        return any(s.needs_spacing for s in self.segmenters)

    @property
    def needs_whole_scans(self) -> bool:
        """Whether the slices given must be all slices of one scan, in order."""
        return self.sees_neighbours or bool(self.postprocessing)

    @property
    def sees_neighbours(self) -> bool:
        """Whether what a slice gives depends on the slices beside it in a scan."""
        return any(s.sees_neighbours for s in self.segmenters)

    def probabilities(
        self, images_hu: Images, spacing_mm: Spacings = None, *, batch_size: int = 16
    ) -> list[NDArray[np.float32]]:
        """The mean of the models' probabilities; see `Segmenter.probabilities`."""
        by_number = dict(self.each(images_hu, spacing_mm, batch_size=batch_size))
        return [by_number[number] for number in range(len(images_hu))]

    def each(
        self, images_hu: Images, spacing_mm: Spacings = None, *, batch_size: int = 16
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The mean of the models' probabilities, slice by slice; see `Segmenter.each`."""
        # The models go side by side, so that only slices that some have not reached are waiting.
        waiting: dict[int, list[NDArray[np.float32]]] = defaultdict(list)
        models = [s.each(images_hu, spacing_mm, batch_size=batch_size) for s in self.segmenters]
        for step in zip(*models, strict=True):
            for number, probability in step:
                waiting[number].append(probability)
                if len(waiting[number]) == len(models):
                    yield number, np.mean(waiting.pop(number), axis=0, dtype=np.float32)

    def each_with_mask(
        self, images_hu: Images, spacing_mm: Spacings = None, *, batch_size: int = 16
    ) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.float32]]]:
        """`each` with the most probable class of each pixel; see `Segmenter.each_with_mask`."""
        for number, probability in self.each(images_hu, spacing_mm, batch_size=batch_size):
            yield number, most_probable(probability), probability

    def masks(
        self, images_hu: Images, spacing_mm: Spacings = None, *, batch_size: int = 16
    ) -> list[NDArray[np.uint8]]:
        """The most probable class of each pixel, cleaned; see `Segmenter.masks`."""
        results: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)] * len(images_hu)
        for number, probability in self.each(images_hu, spacing_mm, batch_size=batch_size):
            results[number] = most_probable(probability)
        return cleaned(results, self.postprocessing)


AnySegmenter = Segmenter | Ensemble
"""What segments: callers need not know which of the two it is."""
