"""The registered model: what MLflow runs when it loads a version from the registry.

MLflow copies this file, the whole of `src/` and the model folder into the run (models from code),
so a loaded version brings its own preprocessing and its own inference code. It is run by MLflow
alone; nothing imports it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np

BATCH_SIZE = 16  # slices that go through the network together


class SegmentationModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # mlflow is untyped
    """CT slices in Hounsfield units in, class masks or class probabilities out."""

    def load_context(self, context: Any) -> None:
        """Load the network and its preprocessing from the artifact `model`.

        Args:
            context: MLflow's; `context.artifacts["model"]` is the copied folder of one model, or
                of those of several folds. MLflow requires this very name.
        """
        # Imported here: MLflow also runs this file to log a model, and must not need TensorFlow.
        from src.inference import load_segmenter

        self.segmenter = load_segmenter(Path(context.artifacts["model"]))

    def predict(
        self,
        context: Any,
        model_input: np.ndarray,  # this very type: MLflow reads others as a schema
        params: dict[str, Any] | None = None,
    ) -> np.ndarray:
        """Segment a stack of slices.

        Args:
            context: MLflow's, not used.
            model_input: Slices of shape (B, H, W), float32, in HU; any height and width. A model
                with context or postprocessing (see model.json) takes them for one scan: give all
                of its slices, in order, and of no other.
            params: `{"output": "mask"}` (the default) or `{"output": "probabilities"}`; and
                `"spacing_mm": [y, x]`, which a model needs whose slices get a common spacing (see
                preprocessing.json).

        Returns:
            `mask`: class indices (B, H, W), uint8. `probabilities`: (B, H, W, C), float32, in
            [0, 1]. B = 0 gives an empty array of the same number of axes.

        Raises:
            ValueError: if `output` is neither of the two, or the spacing is needed and not given.
        """
        output = (params or {}).get("output", "mask")
        if output not in ("mask", "probabilities"):
            raise ValueError(
                f'output must be "mask" or "probabilities", got {output!r}. '
                'Pass params={"output": "mask"}.'
            )
        given = (params or {}).get("spacing_mm", ())
        spacing_mm = tuple(given) if len(given) else None  # MLflow hands an array over
        if self.segmenter.needs_spacing and spacing_mm is None:
            raise ValueError(
                "this model resamples slices to one spacing and must know theirs, got none. Pass "
                'params={"spacing_mm": [y, x]}, in mm.'
            )
        images = np.asarray(model_input, dtype=np.float32)
        result: np.ndarray
        segment: Any
        if output == "mask":
            result = np.empty(images.shape, np.uint8)
            segment = self.segmenter.masks
        else:
            result = np.empty((*images.shape, self.segmenter.num_classes), np.float32)
            segment = self.segmenter.probabilities
        # In parts where slices do not need each other, so that the memory needed beside the result
        # does not grow with B.
        step = max(len(images), 1) if self.segmenter.needs_whole_scans else BATCH_SIZE
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            result[part] = np.stack(segment(images[part], spacing_mm, batch_size=BATCH_SIZE))
        return result


mlflow.models.set_model(SegmentationModel())
