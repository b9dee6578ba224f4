"""U-Net inference in PyTorch for benchmarks/inference.py: bfloat16, channels last.

    python torch_inference.py THREADS                                  # orders from standard input
    python torch_inference.py THREADS IMAGES MASKS MODEL_FOLDER CV2    # files to mask files

Orders and answers are those of benchmarks/inference_programs.py. Runs in an environment of its own
(requirements-peers.lock): it imports nothing of this project. The weights are random: a network
of trained ones takes the same time.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch_networks import build

BATCH = 16
CLASSES = 3


def frozen(network: torch.nn.Module, example: torch.Tensor) -> torch.nn.Module:
    """The network with its normalisations folded into the convolutions."""
    return torch.jit.freeze(torch.jit.trace(network, example))


def plain(network: torch.nn.Module, example: torch.Tensor) -> torch.nn.Module:
    """The network as it is."""
    return network


def program(batch: np.ndarray, way: Callable[..., torch.nn.Module]) -> Callable[..., np.ndarray]:
    """(B, H, W, 1) float32 -> probabilities (B, H, W, C) float32, both NumPy."""
    torch.manual_seed(0)
    network = build("unet", 1, CLASSES, filters=16, depth=4).eval()
    network = network.to(torch.bfloat16, memory_format=torch.channels_last)

    def taken(pictures: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(pictures).permute(0, 3, 1, 2).to(torch.bfloat16)

    with torch.inference_mode():
        run = way(network, taken(batch))

    def forward(pictures: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits = run(taken(pictures)).float()
            return torch.softmax(logits, dim=1).permute(0, 2, 3, 1).numpy()

    return forward


def quickest(batch: np.ndarray) -> Callable[..., np.ndarray]:
    """The quicker of the network as it is and the frozen one."""
    found = []
    for way in (plain, frozen):
        run = program(batch, way)
        for _ in range(3):
            run(batch)
        started = time.perf_counter()
        for _ in range(5):
            run(batch)
        seconds = (time.perf_counter() - started) / 5
        sys.stderr.write(f"{batch.shape} {way.__name__}: {len(batch) / seconds:.0f} a second\n")
        found.append((seconds, run))
    return min(found, key=lambda entry: entry[0])[1]


def serve() -> None:
    """Answers orders until there are no more."""
    known: dict[tuple[int, ...], Callable[..., np.ndarray]] = {}
    for line in sys.stdin:
        order = json.loads(line)
        size = order["size"]
        random = np.random.default_rng(0)
        batch = random.normal(0, 1, (order["batch"], size, size, 1)).astype(np.float32)
        run = known[batch.shape] = known.get(batch.shape) or quickest(batch)
        run(batch)
        done, started = 0, time.perf_counter()
        while not done or time.perf_counter() - started < order["seconds"]:
            run(batch)
            done += len(batch)
        print(done / (time.perf_counter() - started), flush=True)  # noqa: T201  # the answer


def files_to_masks(images: Path, masks: Path, model: Path) -> None:
    """Reads with OpenCV, a batch at a time, and writes class indices with it."""
    import cv2

    settings = json.loads((model / "preprocessing.json").read_text(encoding="utf-8"))
    low, high = settings["window_low"], settings["window_high"]
    paths = sorted(images.glob("*.png"))
    run = None
    for start in range(0, len(paths), BATCH):
        part = paths[start : start + BATCH]
        hu = np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in part]) - 1024.0
        share = np.clip((hu - low) / (high - low), 0, 1)
        batch = ((share - settings["mean"]) / settings["deviation"]).astype(np.float32)[..., None]
        run = run or program(batch, frozen if len(paths) > BATCH else plain)
        for path, found in zip(part, run(batch).argmax(-1).astype(np.uint8), strict=True):
            cv2.imwrite(str(masks / path.name), found)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    if len(sys.argv) > 2:
        sys.path.append(sys.argv[5])  # at the end: NumPy stays this environment's
        files_to_masks(*(Path(word) for word in sys.argv[2:5]))
    else:
        serve()
