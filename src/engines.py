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
from collections.abc import Iterator
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
MOST_STREAMS = 16  # no batch is larger by default
QUEUED = 2  # requests a stream, so that the next is there when one is done
SHAPES_KEPT = 12  # for which the network stays compiled; to do so again takes a tenth of a second


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
    """The package OpenVINO, without what reports its use to its makers or is of no use here."""
    # It imports these where they are to be had, and does without where they are not. The converter
    # takes half the time of the import; what this project reads needs none.
    for part in ("openvino_telemetry", "openvino.tools.ovc"):
        sys.modules.setdefault(part, None)  # type: ignore[arg-type]  # documented
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


def keras_engine(
    model: keras.Model, in_channels: int, why: str = "", *, in_halves: bool = False
) -> Engine:
    """A Keras model on TensorFlow.

    Args:
        model: (B, H, W, in_channels) -> (B, H, W, C) probabilities.
        in_channels: Channels of a picture.
        why: The reason for it.
        in_halves: Whether the halves of a batch have cores of their own, see
            `src.models.data_parallel`.
    """
    import tensorflow as tf

    from src.models.data_parallel import by_halves

    def network(batch: Any) -> Any:
        return model(batch, training=False)

    # keras.Model.predict has a high fixed cost a call; one traced function has not. Sizes are
    # left open so that scans of many sizes share one trace.
    traced = tf.function(
        (lambda batch: by_halves(network, batch)) if in_halves else network,
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

    A batch is shared out among streams of one or a few cores, each with some of the slices: that is
    quicker than all cores on one batch, as they need not wait for each other at every layer.
    """

    def __init__(self, path: Path, precision: Precision, *, cores: int) -> None:
        """Read a network.

        Args:
            path: Of network.xml.
            precision: What is computed in.
            cores: How many are used.
        """
        self._core = openvino().Core()
        self._network = _class_by_class(self._core.read_model(path))
        self._streams = min(cores, MOST_STREAMS)
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "NUM_STREAMS": str(self._streams),
            "INFERENCE_NUM_THREADS": cores,
        }
        self._classes = int(self._network.output(0).partial_shape[1].get_length())
        self._compiled: OrderedDict[tuple[int, ...], _Compiled] = OrderedDict()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(QUEUED * self._streams, "slices")

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network; may be called from several threads at once.

        What it gives lies class by class in memory.
        """
        pictures = np.ascontiguousarray(batch, np.float32)
        number, height, width = batch.shape[:3]
        results = np.empty((number, self._classes, height, width), np.float32)

        def run(part: slice) -> None:
            network = self._of_shape(pictures[part].shape)
            network.run(pictures[part], results[part])

        parts = list(shared_out(len(batch), self._streams))
        if len(parts) == 1:
            run(parts[0])
        else:
            list(self._threads.map(run, parts))
        return np.moveaxis(results, 1, -1)

    def _of_shape(self, shape: tuple[int, ...]) -> _Compiled:
        # OpenVINO can leave sizes open, but plans memory and kernels only for those it knows.
        with self._lock:
            if shape not in self._compiled:
                network = self._network.clone()
                network.reshape(list(shape))
                compiled = self._core.compile_model(network, "CPU", self._settings)
                self._compiled[shape] = _Compiled(compiled, QUEUED * self._streams)
            self._compiled.move_to_end(shape)
            while len(self._compiled) > SHAPES_KEPT:
                self._compiled.popitem(last=False)
            return self._compiled[shape]


def _class_by_class(network: Any) -> Any:
    """A network (B, H, W, channels) -> (B, H, W, C) with results of the order (B, C, H, W).

    OpenVINO takes a softmax over a short last axis pixel by pixel, which costs as much as its
    largest convolutions; over whole planes it is twenty times as quick. So is NumPy on them.
    """
    opset, planes = openvino().opset8, [0, 3, 1, 2]
    last = network.output(0).get_node().input_value(0)
    if last.get_node().get_type_name() == "Softmax":  # TensorFlow's is over the last axis
        result = opset.softmax(opset.transpose(last.get_node().input_value(0), planes), 1)
    else:
        result = opset.transpose(last, planes)
    return openvino().Model([result], network.get_parameters(), network.get_friendly_name())


def shared_out(number: int, streams: int) -> Iterator[slice]:
    """Share so many slices out among streams: in fours or twos where all get some, else singly.

    Few kinds of parts, as each has to be compiled; four together are about 7 % quicker than one by
    one, and eight no quicker than four.
    """
    together = next(size for size in (4, 2, 1) if size * streams <= number or size == 1)
    whole = number - number % together
    yield from (slice(start, start + together) for start in range(0, whole, together))
    yield from (slice(start, start + 1) for start in range(whole, number))


class _Compiled:
    """A network compiled for one shape, with the requests that may be under way."""

    def __init__(self, compiled: Any, requests: int) -> None:
        self._tensor = openvino().Tensor
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(requests):
            self._free.put(compiled.create_infer_request())

    def run(self, pictures: NDArray[np.float32], results: NDArray[np.float32]) -> None:
        """Run it and write what it gives into `results`."""
        request = self._free.get()
        try:
            request.set_input_tensor(self._tensor(pictures, shared_memory=True))
            request.set_output_tensor(self._tensor(results, shared_memory=True))
            request.start_async()
            request.wait()  # other threads run meanwhile
        finally:
            self._free.put(request)
