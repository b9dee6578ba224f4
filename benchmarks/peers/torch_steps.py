"""Training steps of PyTorch, for benchmarks/training.py.

The number format and memory layout are those that are the fastest for this network here: they are
tried at the start.

Runs in an environment of its own (requirements-peers.lock): it imports nothing of this project but
the two files that say what to do and when.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_networks import build, parameters

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.training_task import CHANNELS, CLASSES, Task, batch
from benchmarks.turns import Turns

FORMATS = {
    "bfloat16, channels last": (torch.bfloat16, torch.channels_last),
    "bfloat16": (torch.bfloat16, torch.contiguous_format),
    "float32, channels last": (torch.float32, torch.channels_last),
    "float32": (torch.float32, torch.contiguous_format),
}
TRIED_ROUNDS = 5


def dice_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean cross entropy plus the Dice loss of the foreground classes over the batch.

    Args:
        logits: (B, C, H, W) float32.
        masks: (B, H, W) int64.

    Returns:
        A scalar.
    """
    found = logits.softmax(dim=1)[:, 1:]
    truth = functional.one_hot(masks, logits.shape[1]).movedim(-1, 1)[:, 1:].to(found.dtype)
    axes = (0, 2, 3)
    score = (2 * (found * truth).sum(axes) + 1) / (found.sum(axes) + truth.sum(axes) + 1)
    return functional.cross_entropy(logits, masks) + 1 - score.mean()


class Trainer:
    """A network with its optimiser, computing in one of FORMATS by autocast, weights in float32."""

    def __init__(self, task: Task, form: str, *, compiled: bool = False) -> None:
        torch.manual_seed(0)
        self._dtype, layout = FORMATS[form]
        network = build(
            task.architecture,
            CHANNELS,
            CLASSES,
            task.filters,
            task.depth,
            task.normalisation,
            task.dropout,
        ).to(memory_format=layout)
        images, masks = batch(task)
        self._images = torch.from_numpy(images).movedim(-1, 1).contiguous(memory_format=layout)
        self._masks = torch.from_numpy(masks).long()
        # Scales, offsets and biases are not decayed.
        decayed = [weight for weight in network.parameters() if weight.ndim > 1]
        others = [weight for weight in network.parameters() if weight.ndim <= 1]
        self._optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
            lr=task.learning_rate,
            weight_decay=task.weight_decay,
            fused=True,
        )
        self.parameters = parameters(network)
        network.train()
        self._network: nn.Module = torch.compile(network) if compiled else network

    def run(self, steps: int) -> float:
        """Does so many steps; returns the seconds that they took."""
        started = time.perf_counter()
        for _ in range(steps):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._dtype is torch.bfloat16):
                logits = self._network(self._images)
            loss = dice_cross_entropy(logits.float(), self._masks)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
        return time.perf_counter() - started


def _seconds(trainers: dict[str, Trainer]) -> dict[str, float]:
    """Of a step, the shortest. They take turns: other work for a moment then hits them alike."""
    for trainer in trainers.values():
        trainer.run(1)
    rounds = [
        {name: trainer.run(1) for name, trainer in trainers.items()} for _ in range(TRIED_ROUNDS)
    ]
    return {name: min(spent[name] for spent in rounds) for name in trainers}


def main() -> None:
    """Finds the fastest format, then does the steps that it is told to."""
    task, turns = Task.from_argument(sys.argv[1]), Turns()
    torch.set_num_threads(task.cores)
    trainers = {form: Trainer(task, form) for form in FORMATS}
    seconds = _seconds(trainers)
    best = min(seconds, key=lambda name: seconds[name])
    if task.compiled:
        trainers[f"{best}, compiled"] = Trainer(task, best, compiled=True)
        seconds = _seconds(trainers)
        best = min(seconds, key=lambda name: seconds[name])
    trainer = trainers[best]
    trainers.clear()
    rates = {name: round(task.batch_size / spent, 1) for name, spent in seconds.items()}
    turns.serve(
        trainer.run,
        parameters=trainer.parameters,
        form=best,
        tried=rates,
        versions=f"PyTorch {torch.__version__}",
    )


if __name__ == "__main__":
    main()
