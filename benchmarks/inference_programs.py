"""The ways of running a network that benchmarks/inference.py times, each in a process of its own.

    python benchmarks/inference_programs.py NAME MODEL_FOLDER

It reads orders from standard input, a line of JSON each: the size of the slices, the slices of a
batch and the seconds; and answers each with a line: slices a second.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this is started as a file, and the project is not installed

from src.engines import FOLDER, NETWORK, Identity, openvino  # noqa: E402
from src.inference import Segmenter, load_segmenter  # noqa: E402
from src.processor import cpu_bfloat16, cpu_flags  # noqa: E402

Batch = NDArray[np.float32]
Program = Callable[[Batch], Any]
CALLS = 4  # batches that raw OpenVINO and keras predict are given at a time


def this_project(folder: Path) -> Program:
    """What src.predict calls for the slices of a scan."""
    return _network(folder, "openvino")


def keras_function(folder: Path) -> Program:
    """The same without OpenVINO: a tf.function."""
    return _network(folder, "keras")


def _network(folder: Path, engine: str) -> Program:
    segmenter = load_segmenter(folder, engine)
    assert isinstance(segmenter, Segmenter)
    assert segmenter.engine.name == engine, segmenter.engine_note
    return segmenter.engine.forward


def keras_predict(folder: Path) -> Program:
    """`keras.Model.predict` of many batches at once, which suits it best."""
    segmenter = load_segmenter(folder, "keras")
    assert isinstance(segmenter, Segmenter)
    model = segmenter.model
    return lambda batch: model.predict(
        np.concatenate([batch] * CALLS), batch_size=len(batch), verbose=0
    )


keras_predict.calls = CALLS  # type: ignore[attr-defined]


class RawOpenVino:
    """The same files by OpenVINO's own asynchronous queue, the quickest of several settings.

    Results stay where they are: what is made of them is not OpenVINO's part.
    """

    calls = CALLS
    settings = (
        ("THROUGHPUT", 1),
        ("THROUGHPUT", 4),
        ("THROUGHPUT", None),
        ("LATENCY", 1),
        ("LATENCY", None),
    )

    def __init__(self, folder: Path) -> None:
        self._core = openvino().Core()
        self._network = self._core.read_model(folder / FOLDER / NETWORK)
        allowed = Identity.load(folder / FOLDER).precision == "bfloat16"
        self._precision = "bf16" if allowed and cpu_bfloat16(cpu_flags())[0] else "f32"
        self._best: dict[tuple[int, ...], tuple[Any, int]] = {}

    def __call__(self, batch: Batch) -> None:
        """Run `CALLS` such batches."""
        queue, together = self._best.get(batch.shape) or self._search(batch)
        self._run(queue, together, batch)

    def _run(self, queue: Any, together: int, batch: Batch) -> None:
        for _ in range(CALLS):
            for start in range(0, len(batch), together):
                queue.start_async({0: batch[start : start + together]}, share_inputs=True)
        queue.wait_all()

    def _search(self, batch: Batch) -> tuple[Any, int]:
        tried = []
        for hint, number in self.settings:
            together = min(number or len(batch), len(batch))
            network = self._network.clone()
            network.reshape([together, *batch.shape[1:]])
            compiled = self._core.compile_model(
                network, "CPU",
                {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": self._precision},
            )  # fmt: skip
            queue = openvino().AsyncInferQueue(compiled)
            self._run(queue, together, batch)
            started = time.perf_counter()
            self._run(queue, together, batch)
            seconds = time.perf_counter() - started
            rate = CALLS * len(batch) / seconds
            sys.stderr.write(f"{batch.shape} {hint} {together} together: {rate:.0f} a second\n")
            tried.append((seconds, (queue, together)))
        self._best[batch.shape] = min(tried, key=lambda entry: entry[0])[1]
        return self._best[batch.shape]


PROGRAMS: dict[str, Callable[[Path], Program]] = {
    "this project": this_project,
    "OpenVINO itself": RawOpenVino,
    "tf.function": keras_function,
    "keras predict": keras_predict,
}


def serve(program: Program, calls: int) -> None:
    """Answers orders until there are no more.

    Args:
        program: Takes a batch, (B, H, W, 1) float32.
        calls: How many such batches it then works on.
    """
    answers = sys.stdout
    sys.stdout = sys.stderr  # libraries talk
    for line in sys.stdin:
        order = json.loads(line)
        random = np.random.default_rng(0)
        size = order["size"]
        batch = random.normal(0, 1, (order["batch"], size, size, 1)).astype(np.float32)
        program(batch)
        done, started = 0, time.perf_counter()
        while not done or time.perf_counter() - started < order["seconds"]:
            program(batch)
            done += calls * len(batch)
        answers.write(f"{done / (time.perf_counter() - started)}\n")
        answers.flush()


if __name__ == "__main__":
    made = PROGRAMS[sys.argv[1]]
    serve(made(Path(sys.argv[2])), getattr(made, "calls", 1))
