"""The pictures of a training run: augmented cases, and fixed cases after every few epochs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from src import figures, tracking
from src.config import Params
from src.data.arrays import Arrays
from src.data.augmentation import Augmentation
from src.data.sampling import Sampling
from src.inference import most_probable

FIXED_CASES = 4
SHEET_CASES = 4
SHEET_VERSIONS = 5


def sizes_of_last_class(arrays: Arrays, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of pixels of the last class, which is the one people look for, in each slice."""
    last = len(arrays.classes) - 1
    return np.array([np.count_nonzero(arrays.slice(int(row))[1] == last) for row in rows])


def largest_of_patients(
    arrays: Arrays, rows: NDArray[np.int64], sizes: NDArray[np.int64]
) -> list[int]:
    """The slice of each patient that holds most of the last class, the largest first.

    Args:
        arrays: The prepared slices.
        rows: Of one side.
        sizes: Of `sizes_of_last_class`, for these rows.

    Returns:
        Rows of `arrays.index`; of equals the first; a patient without the class has none.
    """
    largest: dict[str, int] = {}
    for place in np.argsort(-sizes, kind="stable"):
        if sizes[place]:
            largest.setdefault(arrays.index["pseudonym"].iloc[rows[place]], int(rows[place]))
    return list(largest.values())


def fixed_cases(arrays: Arrays, number: int = FIXED_CASES) -> list[int]:
    """Validation slices that are drawn again and again, so that the pictures show learning.

    The slice of each patient that holds most of the last class, of patients spread from the
    largest to the smallest such slice; and one slice without it, where a network tends to see one.

    Args:
        arrays: The prepared slices.
        number: How many, at most.

    Returns:
        Rows of `arrays.index`, the same on every run over the same data and split.
    """
    rows = arrays.rows("validation")
    sizes = sizes_of_last_class(arrays, rows)
    ranked, without = largest_of_patients(arrays, rows, sizes), rows[sizes == 0].tolist()
    picks = np.unique(np.linspace(0, len(ranked) - 1, min(number - 1, len(ranked))).round())
    chosen = [ranked[int(pick)] for pick in picks]
    return [*chosen, *without[len(without) // 2 :][: number - len(chosen)][:1]]


def augmentation_sheet(params: Params, arrays: Arrays) -> Any:
    """The contact sheet of a few training cases, those that hold most of the last class."""
    from src.data.pipeline import augmented_examples

    rows = arrays.rows("train")
    shown = largest_of_patients(arrays, rows, sizes_of_last_class(arrays, rows))[:SHEET_CASES]
    examples = augmented_examples(
        arrays,
        np.array(shown or rows[:SHEET_CASES]),
        sampling=Sampling(**params.train.sampling.model_dump()),
        augmentation=Augmentation(**params.train.augmentation.model_dump()),
        versions=SHEET_VERSIONS,
        seed=params.train.seed,
    )
    settings = arrays.settings
    ends = [(end - settings.mean) / settings.deviation for end in (0.0, 1.0)]
    return figures.augmentation_sheet(
        [[(e.image, e.mask), *e.changed] for e in examples],
        num_classes=len(arrays.classes),
        window=(ends[0], ends[1]),
    )


class OverlayLogger:
    """Draws the fixed cases every few epochs, for the slider of the MLflow UI."""

    def __init__(
        self,
        run: tracking.Run,
        model: Any,
        arrays: Arrays,
        rows: list[int],
        *,
        context: int,
        every: int,
    ) -> None:
        self._run, self._model, self._arrays = run, model, arrays
        self._rows, self._every = rows, every
        self._context = context

    def __call__(self, epoch: int) -> None:
        """Draws where it is the epoch's turn: 0 (untrained), 1, and every few."""
        if self._is_turn_of(epoch):
            self._draw(epoch)

    def last(self, epoch: int) -> None:
        """Draws the last epoch where it was not its turn; no one knows it before training ends."""
        if not self._is_turn_of(epoch):
            self._draw(epoch)

    def _is_turn_of(self, epoch: int) -> bool:
        return epoch == 1 or epoch % self._every == 0

    def _draw(self, epoch: int) -> None:
        for number, row in enumerate(self._rows, start=1):
            picture = figures.overlay_picture(
                [self._case(row)],
                class_names=self._arrays.classes,
                window=(0.0, 1.0),
                heading=f"epoch {epoch}",
            )
            tracking.log_picture(self._run, f"overlay/case {number:02d}", picture, step=epoch)

    def _case(self, row: int) -> figures.OverlayCase:
        from src.evaluation.overlap import count, overlap

        image, truth = self._arrays.slice(row)
        entry = self._arrays.index.iloc[row]
        settings = self._arrays.settings
        batch = self._arrays.stack(row, self._context)[None].astype(np.float32)
        prediction = most_probable(np.asarray(self._model(batch, training=False))[0])
        dice = overlap(count(truth, prediction, len(self._arrays.classes))).dice[-1]
        name = self._arrays.classes[-1]
        score = f"no {name}, none predicted" if np.isnan(dice) else f"{name} Dice {dice:.2f}"
        return figures.OverlayCase(
            image=image.astype(np.float32) * settings.deviation + settings.mean,
            truth=truth,
            prediction=prediction,
            spacing_mm=(float(entry["spacing_y_mm"]), float(entry["spacing_x_mm"])),
            name=str(entry["case_pseudonym"]),
            score=score,
        )
