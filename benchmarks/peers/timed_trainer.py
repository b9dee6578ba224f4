"""nnU-Net's trainer, stopped by a clock.

Loss, augmentation, sampling, optimiser and the choice of checkpoint_best stay nnU-Net's own. Three
things follow the clock in place of counted epochs: the end, the polynomial fall of the learning
rate, and the length of an epoch.
"""

import json
import os
import random
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

EPOCHS = 20  # over the whole clock; one is a twentieth of it, not 250 steps


class Clock:
    """Seconds since training began, out of a budget."""

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self._started: float | None = None

    def start(self) -> None:
        """Begins to count."""
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since `start`; 0 before it."""
        return 0.0 if self._started is None else time.perf_counter() - self._started


class ClockedPolyLR(PolyLRScheduler):
    """nnU-Net's schedule, over seconds instead of epochs."""

    def __init__(self, optimizer: torch.optim.Optimizer, initial_lr: float, clock: Clock) -> None:
        self._clock = clock
        super().__init__(optimizer, initial_lr, clock.budget)

    def step(self, current_step: float | None = None) -> None:
        """Sets the rate that belongs to now; the epoch number is not looked at."""
        super().step(min(self._clock.seconds, 0.999 * self._clock.budget))


class TimedTrainer(nnUNetTrainer):
    """Trains for BENCHMARK_MINUTES, in the number format BENCHMARK_PRECISION.

    With bfloat16 the network computes under autocast, which nnU-Net itself does on a GPU alone.
    Channels last gained nothing beside it (AVX512-BF16).
    """

    # nnU-Net reads the arguments by their names.
    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device,
    ) -> None:
        seed = int(os.environ["BENCHMARK_SEED"])
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  (nnU-Net draws from this generator)
        torch.manual_seed(seed)
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        self.clock = Clock(60 * float(os.environ["BENCHMARK_MINUTES"]))
        self.half = os.environ["BENCHMARK_PRECISION"] == "bfloat16"
        self.steps = 0
        super().__init__(plans, configuration, fold, dataset_json, device)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, ClockedPolyLR]:
        """nnU-Net's SGD with the schedule by the clock."""
        optimizer, _ = super().configure_optimizers()
        return optimizer, ClockedPolyLR(optimizer, self.initial_lr, self.clock)

    def train_step(self, batch: dict) -> dict:
        """One update, as nnU-Net's own but for autocast on a CPU."""
        self.lr_scheduler.step()
        self.steps += 1
        if not self.half:
            return super().train_step(batch)
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            output = self.network(batch["data"])
        loss = self.loss([level.float() for level in output], batch["target"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.optimizer.step()
        return {"loss": loss.detach().numpy()}

    def validation_step(self, batch: dict) -> dict:
        """nnU-Net's own, in the number format of training."""
        with self._autocast():
            return super().validation_step(batch)

    def _autocast(self) -> Any:
        return torch.autocast("cpu", dtype=torch.bfloat16) if self.half else nullcontext()

    def run_training(self) -> None:
        """Epochs of equal time until the budget is used up; a sixth of each validates.

        nnU-Net gives 50 of 300 steps to validation. What an epoch takes beyond its share (a step is
        not cut short) is taken from those after it, so that the last one ends in time.
        """
        self.on_train_start()
        self.clock.start()
        while self.clock.seconds < self.clock.budget:
            end = self.clock.budget * (self.current_epoch + 1) / EPOCHS
            self.on_epoch_start()
            self.on_train_epoch_start()
            started, trained = self.clock.seconds, []
            while not trained or self.clock.seconds < started + (end - started) * 5 / 6:
                trained.append(self.train_step(next(self.dataloader_train)))
            self.on_train_epoch_end(trained)
            self.on_validation_epoch_start()
            with torch.no_grad():
                looked = [
                    self.validation_step(next(self.dataloader_val))
                    for _ in range(max(1, round(len(trained) / 5)))
                ]
            self.on_validation_epoch_end(looked)
            self.on_epoch_end()
        summary = {
            "seconds": round(self.clock.seconds, 1),
            "steps": self.steps,
            "images": self.steps * self.batch_size,
            "epochs": self.current_epoch,
            "parameters": sum(p.numel() for p in self.network.parameters()),
        }
        path = Path(self.output_folder) / "clock.json"
        path.write_text(json.dumps(summary) + "\n", encoding="utf-8")
        self.on_train_end()
