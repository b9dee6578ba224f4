"""A trained network written for OpenVINO, and kept only where it segments as Keras does."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.data.arrays import Arrays
from src.engines import (
    FOLDER,
    NETWORK,
    Identity,
    Precision,
    has_openvino,
    openvino,
    openvino_engine,
)
from src.files import md5_of
from src.inference import Segmenter, predicted_scans
from src.postprocessing import plain_dice

if TYPE_CHECKING:
    import keras

TOLERANCE = 1e-3  # of the Dice of a class, mean over patients
MESSAGE_LENGTH = 400  # the part of it that names the operation


def export(model: keras.Model, model_folder: Path, precision: Precision) -> Path:
    """Writes engine/ into the folder of a saved model: the same bytes for the same weights.

    Args:
        model: The network, as it stands in model.keras.
        model_folder: Holds model.keras.
        precision: What the processor may compute in, where it can. The weights are kept in float32.

    Returns:
        The folder engine/.

    Raises:
        RuntimeError: OpenVINO cannot read the network.
    """
    folder = model_folder / FOLDER
    folder.mkdir()
    with tempfile.TemporaryDirectory() as aside:
        # Straight to OpenVINO, Keras' own export goes through a converter that reports its use.
        _in_float32(model).export(aside, format="tf_saved_model", verbose=False)
        network = openvino().Core().read_model(aside)
    _rename(network, model.name)
    openvino().save_model(network, folder / NETWORK, compress_to_fp16=False)
    Identity(
        md5_of(model_folder / "model.keras"),
        architecture=model.name,
        in_channels=model.inputs[0].shape[-1],
        num_classes=model.outputs[0].shape[-1],
        precision=precision,
    ).save(folder)
    return folder


def _in_float32(model: keras.Model) -> keras.Model:
    """The network without the casts of mixed precision: OpenVINO places its own."""
    import keras

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    twin = keras.models.clone_model(model, clone_function=copied)
    twin.set_weights(model.get_weights())
    return twin


def _rename(network: Any, architecture: str) -> None:
    """Gives the parts names that depend on their place alone: TensorFlow's count what it made."""
    network.set_friendly_name(architecture)
    for number, part in enumerate(network.get_ordered_ops()):
        part.set_friendly_name(f"{part.get_type_name()}_{number}")
        for output in part.outputs():
            output.get_tensor().set_names(set())
    network.input(0).get_tensor().set_names({"slices"})
    network.output(0).get_tensor().set_names({"probabilities"})


def export_checked(
    segmenter: Segmenter,
    model_folder: Path,
    arrays: Arrays,
    rows: NDArray[np.int64],
    expected: NDArray[np.float64] | None = None,
) -> str:
    """Writes engine/ and keeps it if the validation patients get the same Dice from it.

    Args:
        segmenter: The model, run by Keras.
        model_folder: Where it was saved.
        arrays: The prepared slices.
        rows: (M,), those of the validation side.
        expected: (C,) Dice of each class by Keras, see `validation_dice`; None where it is not
            known yet.

    Returns:
        What came of it, one sentence that begins with "openvino:" or "keras:".
    """
    if segmenter.card.engine == "keras":
        return "keras: as inference.engine asks for"
    if not has_openvino():
        return "keras: OpenVINO is not installed; `make setup` does that"
    mixed = segmenter.card.precision == "mixed_bfloat16"
    try:
        folder = export(segmenter.model, model_folder, "bfloat16" if mixed else "float32")
        found = validation_dice(segmenter.run_by(openvino_engine(folder)), arrays, rows)
    except RuntimeError as error:
        shutil.rmtree(model_folder / FOLDER, ignore_errors=True)
        words = " ".join(str(error).split())
        return f"keras: OpenVINO cannot run the network ({words[:MESSAGE_LENGTH]})"
    if expected is None:
        expected = validation_dice(segmenter, arrays, rows)
    gap = float(np.max(np.abs(np.nan_to_num(found) - np.nan_to_num(expected))))
    said = f"Dice of the validation patients within {gap:.1e} of that by Keras"
    if not gap <= TOLERANCE:
        shutil.rmtree(folder)
        return f"keras: OpenVINO gave a {said}, more than {TOLERANCE:g}"
    return f"openvino: {said}"


def validation_dice(
    segmenter: Segmenter, arrays: Arrays, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(C,) Dice of each class at the size of the prepared slices, mean over patients; NaN if none.

    Args:
        segmenter: The model; its postprocessing is not applied.
        arrays: The prepared slices.
        rows: (M,), all slices of some scans.
    """
    return plain_dice(predicted_scans(segmenter, arrays, rows), segmenter.num_classes)
