"""The Attention U-Net of Oktay et al. 2018, in two dimensions."""

import keras

from src.models import blocks
from src.models.design import Design


def attention_unet(design: Design) -> keras.Model:
    """Build an Attention U-Net.

    It is the U-Net (see :func:`src.models.unet.unet` for e, d, block, up, the heads and their
    weights) whose skip connections pass a gate, which the coarser level opens and closes:

        d_l = block([gate(e_l, d_{l+1}), up(d_{l+1})])

    with the gate of :func:`src.models.blocks.attention_gate`. At the start the gates are nearly
    open, as in the paper. The coefficients of level l, a map of 0 to 1 at the size of e_l, come
    out of the layer `decoder{l}_gate_resize`.

    With deep supervision every d_l has a head, as in the U-Net: the paper has it so that the
    gates of every scale must tell the classes apart.

    Parameters: those of the U-Net, and for each gate, on a skip of f channels, with
    F = f // 2 (at least 1): 4 f F + 2 f F + F of the two inputs and F + 1 of psi. With 1 channel,
    2 classes, depth 4, filters 64, "none" and "transpose" that makes 32,076,102; with filters 16,
    3 classes and "batch", 2,010,791.

    Args:
        design: The numbers of the network.

    Returns:
        A model as of :func:`src.models.unet.unet`.

    Raises:
        ValueError: The normalisation or the upsampling is unknown.

    Source: Oktay et al. 2018, arXiv:1804.03999, figure 1; Schlemper et al. 2019, DOI
        10.1016/j.media.2019.01.012.
    """
    inputs = keras.Input((None, None, design.in_channels), name="image")
    # The bottleneck is used by the gate above it and to go on up, every other level by its gate.
    *skips, outputs = design.encode(inputs, uses=[2] * (design.depth + 1))
    features = []
    for level in reversed(range(design.depth)):
        gating, coarser = outputs
        gated = blocks.attention_gate(skips[level], gating, name=f"decoder{level}_gate")
        coarser = design.upsample(coarser, level, f"decoder{level}_up")
        joined = keras.layers.Concatenate(name=f"decoder{level}_join")([gated, coarser])
        decoded = design.block(joined, level, f"decoder{level}")
        has_head = level == 0 or design.is_deeply_supervised
        uses = has_head + (2 if level else 0)
        outputs = blocks.branch(decoded, uses, name=f"decoder{level}_branch")
        if has_head:
            features.append((f"_level{level}" if level else "", outputs.pop()))
    levels = range(len(features))
    return design.model(
        inputs,
        features[::-1],
        strides=[2**level for level in levels],
        weights=[0.5**level for level in levels],
        name="attention_unet",
    )
