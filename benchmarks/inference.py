"""Slices a second of a trained U-Net: this project, OpenVINO itself, Keras and PyTorch.

    python benchmarks/inference.py

Two questions: how quick is the network alone, and how long does it take from 1000 files to 1000
mask files, each program in a process of its own. The programs take turns, and the median of the
rounds is told. README.md beside this file says how to install PyTorch.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this is started as a file, and the project is not installed

from benchmarks.machine import machine  # noqa: E402
from src import terminal  # noqa: E402
from src.data.phantom import make_patient  # noqa: E402
from src.processor import cores  # noqa: E402

HERE = ROOT / "benchmarks"
CLASSES = ("background", "organ", "lesion")
SPACING_MM = (2.5, 2.5)
OURS, RAW, TORCH = "this project", "OpenVINO itself", "PyTorch"
WORKED_ON = ((128, 8), (128, 16), (256, 8), (256, 16))  # height and width, slices of a batch


# --- What is worked on ----------------------------------------------------------------------------


def phantom_slices(number: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """So many slices of the demo's patients, (N, 128, 128) HU, and their masks."""
    images: list[NDArray[Any]] = []
    masks: list[NDArray[Any]] = []
    index = 0
    while sum(map(len, images)) < number:
        patient = make_patient(index, 2026)
        images.append(patient.hu)
        masks.append(patient.mask)
        index += 1
    return np.concatenate(images)[:number].astype(np.int16), np.concatenate(masks)[:number]


def make_model(folder: Path, images: NDArray[np.int16], masks: NDArray[np.uint8]) -> None:
    """Trains the U-Net of the demo for a moment, so that its masks are no noise, and saves it."""
    import keras

    from src.data.preprocessing import Preprocessing, preprocess
    from src.engine_export import export
    from src.model_files import ModelCard, save_model
    from src.models import build_loss, build_model
    from src.models.precision import choose_precision

    policy, _ = choose_precision("auto")
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(1)
    model = build_model(
        "unet", in_channels=1, num_classes=3, depth=4, filters=16, dropout=0.1,
        normalisation="batch", upsampling="transpose",
    )  # fmt: skip
    loss = build_loss("dice_cross_entropy", num_classes=3)
    model.compile(keras.optimizers.Adam(2e-3), loss=loss, jit_compile=False)
    settings = Preprocessing(-160.0, 240.0, 0.5, 0.3, "native", (128, 128), 16)
    slices = np.stack([preprocess(image, settings) for image in images[:256]]).astype(np.float32)
    model.fit(slices[..., None], masks[:256], batch_size=8, epochs=2, verbose=0)
    # As after training: a temperature is the rule.
    card = ModelCard("unet", CLASSES, 4, SPACING_MM, model.count_params(), policy, temperature=1.2)
    save_model(folder, model, card, settings)
    export(model, folder, "bfloat16" if policy == "mixed_bfloat16" else "float32")


# --- The network alone ----------------------------------------------------------------------------


class Program:
    """A program that answers orders, see inference_programs.py."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log.open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env=_environment(),
        )  # fmt: skip

    def rate(self, size: int, batch: int, seconds: float) -> float:
        """Slices a second."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"size": size, "batch": batch, "seconds": seconds}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise ValueError(f"a program ended early; {self._log.name} says why")
        return float(answer)

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()
        self._log.close()


def time_networks(
    model: Path, peers_python: Path | None, logs: Path, rounds: int, seconds: float
) -> None:
    """Prints slices a second of each program, and what share of it this project has."""
    script = str(HERE / "inference_programs.py")
    names = (OURS, RAW, "tf.function", "keras predict")
    commands = {name: [sys.executable, script, name, str(model)] for name in names}
    if peers_python:
        peer = str(HERE / "peers" / "torch_inference.py")
        commands[TORCH] = [str(peers_python), peer, str(cores())]
    programs = {name: Program(command, logs / f"{name}.log") for name, command in commands.items()}
    others = [name for name in programs if name != OURS]
    table = Table("slices a second", *programs, *(f"ours / {name}" for name in others))
    for program in programs.values():
        program.rate(32, 1, 0.0)  # all have started before one is timed
    with terminal.progress("the network alone", len(WORKED_ON) * rounds) as tick:
        for size, batch in WORKED_ON:
            found: dict[str, list[float]] = {name: [] for name in programs}
            for program in programs.values():
                program.rate(size, batch, 0.0)  # compiles
            for _ in range(rounds):
                for name, program in programs.items():
                    found[name].append(program.rate(size, batch, seconds))
                tick()
            rates = {name: statistics.median(values) for name, values in found.items()}
            table.add_row(
                f"{size} x {size}, batches of {batch}",
                *(f"{rate:.0f}" for rate in rates.values()),
                *(f"{rates[OURS] / rates[name]:.2f}" for name in others),
            )
    for program in programs.values():
        program.close()
    terminal.console.print(table)


# --- Files to mask files --------------------------------------------------------------------------


def time_files(
    model: Path, images: NDArray[np.int16], peers_python: Path | None, work: Path, rounds: int
) -> None:
    """Prints the time from files to mask files of each program, its start and the rest."""
    few, all_of_them = work / "few", work / "all"
    for folder, number in ((few, 1), (all_of_them, len(images))):
        folder.mkdir()
        for place, image in enumerate(images[:number]):
            stored = (image + 1024).astype(np.uint16)
            cv2.imwrite(str(folder / f"{place:05d}.png"), stored)
    commands = {
        OURS: [sys.executable, "-m", "src.predict", "IMAGES", "--out", "MASKS", "--model",
               str(model), "--overwrite"],
        "keras predict": [sys.executable, str(HERE / "keras_files.py"), "IMAGES", "MASKS",
                          str(model)],
    }  # fmt: skip
    if peers_python:
        commands[TORCH] = [
            str(peers_python), str(HERE / "peers" / "torch_inference.py"), str(cores()), "IMAGES",
            "MASKS", str(model), str(Path(cv2.__file__).parent.parent),
        ]  # fmt: skip
    seconds: dict[str, dict[Path, list[float]]] = {
        name: {few: [], all_of_them: []} for name in commands
    }
    with terminal.progress("files to mask files", rounds) as tick:
        for _ in range(rounds):
            for name, command in commands.items():
                for folder in (few, all_of_them):
                    masks = work / f"{name} {folder.name}"
                    masks.mkdir(exist_ok=True)
                    seconds[name][folder].append(_seconds_of(command, folder, masks))
            tick()
    table = Table(
        f"{len(images)} slices of {images.shape[1]} x {images.shape[2]}", "all (s)", "start (s)",
        "slices a second after the start", "ours is quicker", "after the start",
    )  # fmt: skip
    medians = {
        name: (statistics.median(found[all_of_them]), statistics.median(found[few]))
        for name, found in seconds.items()
    }
    whole, start = medians[OURS]
    for name, (total, first) in medians.items():
        table.add_row(
            name, f"{total:.2f}", f"{first:.2f}", f"{(len(images) - 1) / (total - first):.0f}",
            f"{total / whole:.2f}", f"{(total - first) / (whole - start):.2f}",
        )  # fmt: skip
    terminal.console.print(table)
    terminal.console.print(_agreement(work / f"{OURS} all", work / "keras predict all"))


def _seconds_of(command: list[str], images: Path, masks: Path) -> float:
    filled = [str({"IMAGES": images, "MASKS": masks}.get(word, word)) for word in command]
    started = time.perf_counter()
    done = subprocess.run(
        filled, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ValueError(f"{' '.join(filled)} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - started


def _agreement(ours: Path, theirs: Path) -> str:
    """How many pixels of the masks are the same."""
    same = [
        np.mean(cv2.imread(str(path), -1) == cv2.imread(str(ours / f"{path.stem}_mask.png"), -1))
        for path in sorted(theirs.glob("*.png"))
    ]
    return f"pixels of the same class by this project and by keras predict: {np.mean(same):.4%}"


def _environment() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}


def main(
    peers_python: Annotated[
        Path, typer.Option(help="Python with PyTorch; left out where it is not there")
    ] = HERE / "peers" / ".venv" / "bin" / "python",
    files: Annotated[int, typer.Option(min=2, help="slices of the second question")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="the median of them is told")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="of a program in a round")] = 2.0,
    network: Annotated[bool, typer.Option(help="the first question")] = True,
    predict: Annotated[bool, typer.Option(help="the second question")] = True,
) -> None:
    """Times a U-Net of 16 filters and depth 4 alone, and from files to mask files.

    Example: python benchmarks/inference.py --files 200 --rounds 2 --seconds 0.5
    """
    found = peers_python if peers_python.is_file() else None
    if found is None:
        terminal.warn(f"{peers_python} is not there: PyTorch is left out")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        images, masks = phantom_slices(max(files, 256))
        make_model(work / "model", images, masks)
        if network:
            time_networks(work / "model", found, work, rounds, seconds)
            for log in sorted(work.glob("*.log")):
                choices = [line for line in log.read_text().splitlines() if "a second" in line]
                terminal.console.print(*choices, sep="\n")
        if predict:
            time_files(work / "model", images[:files], found, work, rounds)
    packages = ("openvino", "tensorflow", "keras", "opencv-python-headless")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    terminal.console.print(f"{machine()}, {date.today().isoformat()}; {versions}")


if __name__ == "__main__":
    terminal.run(main)
