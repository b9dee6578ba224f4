"""What the tests of the networks share: small designs, a batch to learn from, a training."""

import keras
import numpy as np

from src.models import build_loss, build_model

SMALL = {
    "in_channels": 1,
    "num_classes": 3,
    "depth": 2,
    "filters": 4,
    "dropout": 0.2,
    "normalisation": "batch",
    "upsampling": "transpose",
}
PAPER = {**SMALL, "num_classes": 2, "depth": 4, "filters": 64, "normalisation": "none"}
DEMO = {**PAPER, "num_classes": 3, "filters": 16, "normalisation": "batch"}
EVERYTHING = {**SMALL, "residual": True, "deep_supervision": True}


def batch():
    """Discs of two classes, which a network can learn from the grey value alone."""
    rows, columns = np.mgrid[:16, :16]
    distance = np.hypot(rows - 7.5, columns - 7.5)
    truth = np.stack([(distance < radius) + (distance < radius / 2) for radius in (4, 5, 6, 7)])
    noise = np.random.default_rng(0).normal(0, 0.1, (4, 16, 16, 1))
    return (truth[..., None] + noise).astype(np.float32), truth.astype(np.uint8)


def compiled(architecture, seed=0, loss="dice_cross_entropy", **changes):
    keras.utils.set_random_seed(seed)
    model = build_model(architecture, **{**SMALL, **changes})
    model.compile(
        keras.optimizers.Adam(0.01), loss=build_loss(loss, num_classes=3), jit_compile=False
    )
    return model


def trained(architecture, *, steps, seed=0, **changes):
    model = compiled(architecture, seed, **changes)
    return model, [float(model.train_on_batch(*batch())) for _ in range(steps)]


def block_parameters(b, f, *, batch_norm, residual=False):
    """Of two 3 x 3 convolutions from b to f channels, and of the 1 x 1 one beside them."""
    per_convolution = 4 if batch_norm else 1  # scale, offset, moving mean, variance; or bias
    shortcut = b * f + per_convolution * f if residual and b != f else 0
    return 9 * b * f + 9 * f * f + 2 * per_convolution * f + shortcut


def channels(design):
    return [design["filters"] * 2**level for level in range(design["depth"] + 1)]


def encoder_parameters(design, *, residual=False):
    batch_norm = design["normalisation"] == "batch"
    before = [design["in_channels"], *channels(design)]
    return sum(
        block_parameters(b, f, batch_norm=batch_norm, residual=residual)
        for b, f in zip(before, channels(design), strict=False)
    )


def unet_parameters(design, *, residual=False, deep_supervision=False):
    batch_norm = design["normalisation"] == "batch"
    levels = channels(design)[:-1]
    decoder = sum(8 * f * f + f + block_parameters(2 * f, f, batch_norm=batch_norm) for f in levels)
    heads = levels if deep_supervision else levels[:1]
    return (
        encoder_parameters(design, residual=residual)
        + decoder
        + sum((f + 1) * design["num_classes"] for f in heads)
    )
