"""What runs a trained network: OpenVINO where there is no GPU, else TensorFlow through Keras.

The folder of a model holds the network twice: model.keras, and engine/ for OpenVINO, which
`engine_export` writes and checks. Where OpenVINO runs it, TensorFlow is not even imported, which
alone saves seconds a command.
"""

from __future__ import annotations

import importlib.util
import json
import queue
import sys
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from src.files import md5_of, write_text
from src.processor import cores, cpu_bfloat16, cpu_flags, has_nvidia_gpu
from src.tiling import Forward

if TYPE_CHECKING:
    import keras

Precision = Literal["float32", "bfloat16"]

FOLDER = "engine"  # within the folder of a model
NETWORK = "network.xml"  # its weights stand beside it, in network.bin
MOST_STREAMS = 16  # slices under way at once; no batch is larger by default
SIZES_KEPT = 8  # sizes of slices for which the network stays compiled


@dataclass(frozen=True)
class Engine:
    """What runs a network.

    Attributes:
        forward: The network; may be called from several threads at once.
        name: "keras" or "openvino".
        note: What it is and why it was chosen, for people.
    """

    forward: Forward
    name: str
    note: str


@dataclass(frozen=True)
class Identity:
    """What engine/engine.json says: which network it is, and how it was checked.

    Attributes:
        model_md5: Of model.keras, which holds the same weights.
        architecture: Name in `src.models.ARCHITECTURES`.
        in_channels: Channels of a picture.
        num_classes: Number of classes, background included.
        precision: What the processor may compute in, where it can.
    """

    model_md5: str
    architecture: str
    in_channels: int
    num_classes: int
    precision: Precision

    def save(self, folder: Path) -> None:
        """Writes engine.json."""
        write_text(folder / "engine.json", json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Identity:
        """Reads what `save` wrote."""
        return cls(**json.loads((folder / "engine.json").read_text(encoding="utf-8")))


def openvino() -> Any:
    """The package OpenVINO, without the part of it that reports its use to its makers."""
    # It imports that part where it is to be had, and does without where it is not.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # documented
    import openvino

    return openvino


def has_openvino() -> bool:
    """Whether OpenVINO is installed; it is not imported."""
    return importlib.util.find_spec("openvino") is not None


# --- The choice -----------------------------------------------------------------------------------


def why_keras(requested: str, model_folder: Path, *, gpu: bool | None = None) -> str:
    """Why Keras is to run the network of a model folder; empty where OpenVINO is.

    Args:
        requested: "auto", "keras" or "openvino".
        model_folder: Holds model.keras and, where the network was exported, engine/.
        gpu: Whether there is an NVIDIA GPU, which TensorFlow uses; None to look.

    Raises:
        ValueError: The request is none of the three.
    """
    if requested not in ("auto", "keras", "openvino"):
        raise ValueError(
            f"the engine must be auto, keras or openvino, got {requested!r}. Mend --engine, or "
            "inference.engine in params.yaml."
        )
    if requested == "keras":
        return "as asked for"
    if requested == "auto" and (has_nvidia_gpu() if gpu is None else gpu):
        return "there is a GPU"
    if not has_openvino():
        return "OpenVINO is not installed; `make setup` does that"
    folder = model_folder / FOLDER
    if not (folder / "engine.json").is_file():
        return (
            f"{model_folder.name} has no {FOLDER}/ for OpenVINO: run.json says why, or it was made "
            "before there was one"
        )
    if Identity.load(folder).model_md5 != md5_of(model_folder / "model.keras"):
        return f"{FOLDER}/ in {model_folder.name} holds other weights than model.keras"
    return ""


# --- Keras ----------------------------------------------------------------------------------------


def keras_engine(model: keras.Model, in_channels: int, why: str = "") -> Engine:
    """A Keras model on TensorFlow.

    Args:
        model: (B, H, W, in_channels) -> (B, H, W, C) probabilities.
        in_channels: Channels of a picture.
        why: The reason for it.
    """
    import tensorflow as tf

    # keras.Model.predict has a high fixed cost a call; one traced function has not. Sizes are
    # left open so that scans of many sizes share one trace.
    traced = tf.function(
        lambda batch: model(batch, training=False),
        input_signature=[tf.TensorSpec((None, None, None, in_channels), tf.float32)],
        jit_compile=False,
    )

    def forward(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return traced(batch).numpy()

    return Engine(forward, "keras", "Keras" + (f": {why}" if why else ""))


# --- OpenVINO -------------------------------------------------------------------------------------


def openvino_engine(folder: Path) -> Engine:
    """A network as `engine_export.export` wrote it.

    Args:
        folder: engine/ of a model folder. Where it allows bfloat16, that is used if the processor
            has instructions for it.
    """
    quick, reason = cpu_bfloat16(cpu_flags())
    used: Precision = "float32"
    if Identity.load(folder).precision == "float32":
        reason = "as in training"
    elif quick:
        used = "bfloat16"
    number = cores()
    forward = OpenVinoNetwork(folder / NETWORK, used, cores=number)
    version = openvino().__version__.partition("-")[0]
    plural = "core" if number == 1 else "cores"
    note = f"OpenVINO {version} on {number} {plural} in {used} ({reason})"
    return Engine(forward, "openvino", note)


class OpenVinoNetwork:
    """A network run by OpenVINO: (B, H, W, channels) float32 -> (B, H, W, C) float32.

    The slices of a batch go through it one by one, as many at a time as there are cores: that is
    quicker than all cores on one slice or on one batch (benchmarks/README.md), and what a slice
    gives does not depend on the slices beside it.
    """

    def __init__(self, path: Path, precision: Precision, *, cores: int) -> None:
        """Read a network.

        Args:
            path: Of network.xml.
            precision: What is computed in.
            cores: How many are used.
        """
        self._core = openvino().Core()
        self._network = self._core.read_model(path)
        self._streams = min(cores, MOST_STREAMS)
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "NUM_STREAMS": str(self._streams),
            "INFERENCE_NUM_THREADS": cores,
        }
        self._classes = int(self._network.output(0).partial_shape[3].get_length())
        self._sizes: OrderedDict[tuple[int, ...], _OfSize] = OrderedDict()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(self._streams, "slices")

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network; may be called from several threads at once."""
        network = self._of_size(batch.shape[1:])
        pictures = np.ascontiguousarray(batch, np.float32)
        results = np.empty((*batch.shape[:3], self._classes), np.float32)
        if len(batch) == 1:
            network.run(pictures, results)
        else:
            parts = [slice(n, n + 1) for n in range(len(batch))]
            list(self._threads.map(lambda one: network.run(pictures[one], results[one]), parts))
        return results

    def _of_size(self, shape: tuple[int, ...]) -> _OfSize:
        # OpenVINO can leave sizes open, but plans memory and kernels only for those it knows.
        with self._lock:
            if shape not in self._sizes:
                network = self._network.clone()
                network.reshape([1, *shape])
                compiled = self._core.compile_model(network, "CPU", self._settings)
                self._sizes[shape] = _OfSize(compiled, self._streams)
            self._sizes.move_to_end(shape)
            while len(self._sizes) > SIZES_KEPT:
                self._sizes.popitem(last=False)
            return self._sizes[shape]


class _OfSize:
    """A network compiled for slices of one size, with a request for each stream."""

    def __init__(self, compiled: Any, streams: int) -> None:
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self._free.put(compiled.create_infer_request())

    def run(self, picture: NDArray[np.float32], result: NDArray[np.float32]) -> None:
        """(1, H, W, channels) -> (1, H, W, C), written into `result`."""
        request = self._free.get()
        try:
            request.start_async({0: picture}, share_inputs=True)
            request.wait()  # other threads run meanwhile
            np.copyto(result, request.get_output_tensor(0).data)
        finally:
            self._free.put(request)
