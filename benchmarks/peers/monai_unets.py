"""MONAI's 2-D networks by the recipe of its tutorials, trained until a clock runs out.

CT window scaled to 0..1, patches of 128 x 128 drawn half and half around foreground and background
(RandCropByPosNegLabeld on cached volumes), light augmentation, Dice plus cross-entropy, AdamW with
a cosine, whole volumes by SliceInferer with Gaussian weights. The checkpoint is the one with the
best mean Dice of the validation patients.

Runs in an environment of its own (requirements-peers.lock): it imports nothing of this project.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai
import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from monai.data import DataLoader, Dataset, list_data_collate
from monai.inferers import SliceInferer
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.networks.nets import AttentionUnet, BasicUNet
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    FgBgToIndicesd,
    LoadImaged,
    RandAdjustContrastd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandRotated,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandZoomd,
    ScaleIntensityRanged,
    SpatialPadd,
    SqueezeDimd,
)

LOG = logging.getLogger("benchmark")
PATCH = 128
BATCH = 16  # patches; 4 of each of 4 volumes
PATCHES_OF_A_VOLUME = 4
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-5
WARM_UP = 0.02  # share of the clock
VALIDATIONS = 10  # over the whole clock, each on
VALIDATION_STRIDE = 4  # every fourth slice: on all of them it would take a third of the clock
PASSES = 1000  # over the training volumes, before the loader starts anew
FORMATS = {
    "float32": (torch.float32, torch.contiguous_format),
    "float32, channels last": (torch.float32, torch.channels_last),
    "bfloat16": (torch.bfloat16, torch.contiguous_format),
    "bfloat16, channels last": (torch.bfloat16, torch.channels_last),
}


@dataclass
class Outcome:
    """What a training came to.

    Attributes:
        steps: Batches seen.
        seconds: On the clock, validation included.
        best_step: The step whose weights the network holds at the end.
        best_dice: Mean Dice of the validation patients at that step.
        history: A row per validation.
    """

    steps: int
    seconds: float
    best_step: int
    best_dice: float
    history: list[dict[str, float]]


def network_of(name: str, num_classes: int) -> torch.nn.Module:
    """The network, 16 filters at full resolution and four down-samplings."""
    if name == "basicunet":
        features = (16, 32, 64, 128, 256, 16)
        return BasicUNet(spatial_dims=2, in_channels=1, out_channels=num_classes, features=features)
    return AttentionUnet(
        spatial_dims=2,
        in_channels=1,
        out_channels=num_classes,
        channels=(16, 32, 64, 128, 256),
        strides=(2, 2, 2, 2),
    )


def load(cases: Path, subset: str, names: list[str], window: tuple[float, float]) -> list[Any]:
    """The volumes of one side in memory: everything that is not random is done once."""
    keys = ["image", "label"]
    fixed = Compose(
        [
            LoadImaged(keys),
            EnsureChannelFirstd(keys, channel_dim="no_channel"),
            ScaleIntensityRanged(
                "image", a_min=window[0], a_max=window[1], b_min=0.0, b_max=1.0, clip=True
            ),
            SpatialPadd(keys, spatial_size=(PATCH, PATCH, 1)),
            EnsureTyped("image", dtype=torch.float32),
            EnsureTyped("label", dtype=torch.uint8),
            FgBgToIndicesd("label", image_key="image", image_threshold=0.0),
        ]
    )
    folder = cases / subset
    return [
        fixed(
            {
                "image": folder / "images" / f"{name}.nii.gz",
                "label": folder / "masks" / f"{name}.nii.gz",
            }
        )
        for name in names
    ]


def endless_batches(volumes: list[Any], seed: int, workers: int) -> Iterator[dict[str, Any]]:
    """Batches of augmented patches, without end."""
    keys = ["image", "label"]
    how = ("bilinear", "nearest")
    random = Compose(
        [
            RandCropByPosNegLabeld(
                keys, label_key="label", spatial_size=(PATCH, PATCH, 1), pos=1, neg=1,
                num_samples=PATCHES_OF_A_VOLUME, fg_indices_key="label_fg_indices",
                bg_indices_key="label_bg_indices",
            ),
            SqueezeDimd(keys, dim=-1),
            RandFlipd(keys, prob=0.5, spatial_axis=0),
            RandRotated(keys, range_x=math.radians(15), prob=0.3, mode=how),
            RandZoomd(keys, prob=0.3, min_zoom=0.9, max_zoom=1.1, mode=("bilinear", "nearest")),
            RandScaleIntensityd("image", factors=0.1, prob=0.5),
            RandShiftIntensityd("image", offsets=0.1, prob=0.5),
            RandAdjustContrastd("image", prob=0.2, gamma=(0.9, 1.1)),
            RandGaussianNoised("image", prob=0.2, std=0.02),
        ]
    )  # fmt: skip
    random.set_random_state(seed)
    loader = DataLoader(
        Dataset(volumes * PASSES, random),
        batch_size=BATCH // PATCHES_OF_A_VOLUME,
        shuffle=True,
        num_workers=workers,
        collate_fn=list_data_collate,
        drop_last=True,
    )
    return itertools.chain.from_iterable(itertools.repeat(loader))


class Trainer:
    """A network with its loss and optimiser, computing in one of FORMATS."""

    def __init__(self, network: torch.nn.Module, form: str) -> None:
        self._dtype, self._layout = FORMATS[form]
        self.network = network.to(memory_format=self._layout)
        self._loss = DiceCELoss(to_onehot_y=True, softmax=True, batch=True)
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
        )

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) -> (B, C, H, W) float32."""
        half = self._dtype is torch.bfloat16
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            return self.network(images.contiguous(memory_format=self._layout)).float()

    def step(self, batch: dict[str, Any], learning_rate: float = LEARNING_RATE) -> float:
        """One update; returns the loss."""
        self.network.train()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        loss = self._loss(self._logits(batch["image"]), batch["label"])
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())

    @torch.inference_mode()
    def predict(self, image: torch.Tensor, overlap: float) -> torch.Tensor:
        """Logits of a volume, (1, H, W, D) -> (C, H, W, D), slice by slice."""
        self.network.eval()
        inferer = SliceInferer(
            roi_size=(PATCH, PATCH), spatial_dim=2, sw_batch_size=BATCH, overlap=overlap,
            mode="gaussian",
        )  # fmt: skip
        return inferer(image[None], self._logits)[0]


def images_per_second(
    build: Callable[[], torch.nn.Module], batch: dict[str, Any]
) -> dict[str, float]:
    """How many images a second a training step sees here, in each of FORMATS."""
    rates = {}
    for form in FORMATS:
        trainer = Trainer(build(), form)
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            trainer.step(batch)
            seconds.append(time.perf_counter() - started)
        rates[form] = round(BATCH / min(seconds), 1)
    return rates


def validate(trainer: Trainer, volumes: list[Any], num_classes: int) -> float:
    """Mean over patients of the mean Dice of the foreground classes."""
    metric = DiceMetric(include_background=False, num_classes=num_classes)
    for volume in volumes:
        image, label = (volume[key][..., ::VALIDATION_STRIDE] for key in ("image", "label"))
        predicted = trainer.predict(image, overlap=0.25).argmax(dim=0, keepdim=True)
        metric(predicted[None], label[None].long())
    return float(metric.aggregate())


def fit(
    trainer: Trainer,
    batches: Iterator[dict[str, Any]],
    validation: list[Any],
    *,
    budget: float,
    num_classes: int,
) -> Outcome:
    """Trains until `budget` seconds are used up; the network then holds its best weights.

    The last validation is begun so early that it ends within the budget.
    """
    outcome = Outcome(0, 0.0, 0, -1.0, [])
    best = copy.deepcopy(trainer.network.state_dict())
    started = time.perf_counter()
    looked, cost, losses = 0, 0.0, []
    while True:
        elapsed = time.perf_counter() - started
        over = elapsed >= budget - cost
        if over or elapsed >= budget * (looked + 1) / VALIDATIONS:
            dice = validate(trainer, validation, num_classes)
            looked += 1
            cost = time.perf_counter() - started - elapsed
            loss = sum(losses) / max(1, len(losses))
            losses.clear()
            outcome.history.append({"seconds": elapsed, "loss": loss, "dice": dice})
            LOG.info("%6.0f s  step %d  loss %.4f  Dice %.4f", elapsed, outcome.steps, loss, dice)
            if dice > outcome.best_dice:
                outcome.best_dice, outcome.best_step = dice, outcome.steps
                best = copy.deepcopy(trainer.network.state_dict())
        if over:
            break
        share = elapsed / budget
        rate = LEARNING_RATE * min(1.0, share / WARM_UP) * 0.5 * (1 + math.cos(math.pi * share))
        losses.append(trainer.step(next(batches), rate))
        outcome.steps += 1
    outcome.seconds = time.perf_counter() - started
    trainer.network.load_state_dict(best)
    return outcome


def write_masks(trainer: Trainer, cases: Path, subset: str, volumes: list[Any], out: Path) -> None:
    """Writes the masks of one side with the geometry of the scans."""
    (out / subset).mkdir(parents=True, exist_ok=True)
    paths = sorted((cases / subset / "images").glob("*.nii.gz"))
    for path, volume in zip(paths, volumes, strict=True):
        scan = sitk.ReadImage(str(path))
        width, height, depth = scan.GetSize()
        mask = trainer.predict(volume["image"], overlap=0.5).argmax(dim=0).numpy().astype(np.uint8)
        # SpatialPadd pads evenly on both sides; NIfTI's first axis is SimpleITK's last.
        left, top = (mask.shape[0] - width) // 2, (mask.shape[1] - height) // 2
        mask = mask[left : left + width, top : top + height, :depth]
        picture = sitk.GetImageFromArray(np.ascontiguousarray(mask.transpose(2, 1, 0)))
        picture.CopyInformation(scan)
        sitk.WriteImage(picture, str(out / subset / path.name), useCompression=True)


def main() -> None:
    """Trains one network and writes the masks of the validation and test patients."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--network", choices=["basicunet", "attentionunet"], required=True)
    parser.add_argument("--cases", type=Path, required=True, help="folder with cases.json")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1, help="processes that make batches")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(options.threads)
    monai.utils.set_determinism(seed=options.seed)
    monai.data.set_track_meta(False)  # as MONAI's guide to fast training has it

    cases = json.loads((options.cases / "cases.json").read_text(encoding="utf-8"))
    num_classes, window = len(cases["classes"]), tuple(cases["window"])
    sides = {
        side: load(options.cases, side, cases[side], window)
        for side in ("train", "validation", "test")
    }
    batches = endless_batches(sides["train"], options.seed, options.workers)
    first = next(batches)
    rates = images_per_second(lambda: network_of(options.network, num_classes), first)
    form = max(rates, key=lambda name: rates[name])
    LOG.info("images per second: %s", rates)
    torch.manual_seed(options.seed)
    trainer = Trainer(network_of(options.network, num_classes), form)
    outcome = fit(
        trainer, batches, sides["validation"], budget=60 * options.minutes, num_classes=num_classes
    )
    for side in ("validation", "test"):
        write_masks(trainer, options.cases, side, sides[side], options.out)
    summary = {
        "seconds": round(outcome.seconds, 1),
        "steps": outcome.steps,
        "images": outcome.steps * BATCH,
        "epochs": None,
        "checkpoint": f"step {outcome.best_step}",
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "precision": form,
        "images_per_second": rates,
        "versions": f"MONAI {monai.__version__}, PyTorch {torch.__version__}",
        "history": outcome.history,
    }
    (options.out / "training.json").write_text(json.dumps(summary, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
