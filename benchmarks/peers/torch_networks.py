"""The networks of src/models in PyTorch, layer by layer: U-Net, U-Net++ and Attention U-Net.

The same convolutions, normalisations, dropout and joins, hence the same number of parameters; the
weights of one can be put into the other. Axes are PyTorch's, (B, C, H, W), in either memory format.

Runs in an environment of its own (requirements-peers.lock): it imports nothing of this project.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

EPSILON = 1e-3  # of the normalisations; PyTorch's own is 1e-5
MOMENTUM = 0.1  # weight of the present in the moving statistics; Keras counts that of the past
GATE_BIAS = 3.0

NORMALISATIONS: dict[str, Callable[[int], nn.Module]] = {
    "batch": partial(nn.BatchNorm2d, eps=EPSILON, momentum=MOMENTUM),
    "instance": partial(nn.InstanceNorm2d, eps=EPSILON, affine=True),
    "none": nn.Identity,
}


class Block(nn.Sequential):
    """[3x3 convolution, normalisation, ReLU] twice, then dropout of whole feature maps."""

    def __init__(self, inputs: int, outputs: int, normalisation: str, dropout: float) -> None:
        bias = normalisation == "none"
        normalise = NORMALISATIONS[normalisation]
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias),
            normalise(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=bias),
            normalise(outputs),
            nn.ReLU(inplace=True),
        )
        if dropout:
            self.append(nn.Dropout2d(dropout))


class Design:
    """The numbers of a network, and the parts that they make.

    Attributes:
        channels: Of each level; depth + 1 numbers.
    """

    def __init__(
        self, in_channels: int, filters: int, depth: int, normalisation: str, dropout: float
    ) -> None:
        self.channels = [filters * 2**level for level in range(depth + 1)]
        self._in_channels, self._depth = in_channels, depth
        self._normalisation, self._dropout = normalisation, dropout

    def block(self, inputs: int, level: int) -> Block:
        """A block of this level; dropout is in the bottleneck and the level beside it."""
        dropout = self._dropout if level >= self._depth - 1 else 0.0
        return Block(inputs, self.channels[level], self._normalisation, dropout)

    def encoder(self) -> nn.ModuleList:
        """The blocks of all levels on the way down."""
        inputs = [self._in_channels, *self.channels]
        return nn.ModuleList(self.block(inputs[n], n) for n in range(self._depth + 1))

    def up(self, level: int) -> nn.ConvTranspose2d:
        """From level + 1 to a level."""
        return nn.ConvTranspose2d(self.channels[level + 1], self.channels[level], 2, stride=2)


def encode(encoder: nn.ModuleList, pool: nn.Module, outputs: Tensor) -> list[Tensor]:
    """(B, C, H, W) -> the features of every level."""
    levels = []
    for level, block in enumerate(encoder):
        outputs = block(pool(outputs) if level else outputs)
        levels.append(outputs)
    return levels


class UNet(nn.Module):
    """src/models/unet.py."""

    def __init__(self, design: Design, classes: int) -> None:
        super().__init__()
        levels, channels = range(len(design.channels) - 1), design.channels
        self.pool = nn.MaxPool2d(2)
        self.encoder = design.encoder()
        self.ups = nn.ModuleList(design.up(n) for n in levels)
        self.decoder = nn.ModuleList(design.block(2 * channels[n], n) for n in levels)
        self.logits = nn.Conv2d(channels[0], classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, classes, H, W)."""
        *skips, outputs = encode(self.encoder, self.pool, images)
        for level in reversed(range(len(skips))):
            joined = torch.cat([skips[level], self.ups[level](outputs)], dim=1)
            outputs = self.decoder[level](joined)
        return self.logits(outputs)


class UNetPlusPlus(nn.Module):
    """src/models/unetpp.py: node (row, column) reads those to the left of it and the one below."""

    def __init__(self, design: Design, classes: int) -> None:
        super().__init__()
        channels = design.channels
        self.depth = len(channels) - 1
        self.pool = nn.MaxPool2d(2)
        self.encoder = design.encoder()
        self.ups, self.nodes = nn.ModuleDict(), nn.ModuleDict()
        for column in range(1, self.depth + 1):
            for row in range(self.depth - column + 1):
                self.ups[f"{row}_{column}"] = design.up(row)
                self.nodes[f"{row}_{column}"] = design.block((column + 1) * channels[row], row)
        self.logits = nn.Conv2d(channels[0], classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, classes, H, W)."""
        rows = [[node] for node in encode(self.encoder, self.pool, images)]
        for column in range(1, self.depth + 1):
            for row in range(self.depth - column + 1):
                name = f"{row}_{column}"
                below = self.ups[name](rows[row + 1][column - 1])
                rows[row].append(self.nodes[name](torch.cat([*rows[row], below], dim=1)))
        return self.logits(rows[0][-1])


class Gate(nn.Module):
    """src.models.blocks.attention_gate: weighs the pixels of a skip connection."""

    def __init__(self, skip: int, gating: int) -> None:
        super().__init__()
        between = max(skip // 2, 1)
        self.skip = nn.Conv2d(skip, between, 2, stride=2, bias=False)
        self.gating = nn.Conv2d(gating, between, 1)
        self.psi = nn.Conv2d(between, 1, 1)
        nn.init.constant_(self.psi.bias, GATE_BIAS)
        self.resize = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """(B, C, 2 H, 2 W), (B, any, H, W) -> (B, C, 2 H, 2 W)."""
        coefficients = torch.relu(self.skip(skip) + self.gating(gating))
        return skip * self.resize(torch.sigmoid(self.psi(coefficients)))


class AttentionUNet(UNet):
    """src/models/attention_unet.py: a U-Net whose skip connections pass a gate."""

    def __init__(self, design: Design, classes: int) -> None:
        super().__init__(design, classes)
        channels = design.channels
        self.gates = nn.ModuleList(
            Gate(channels[n], channels[n + 1]) for n in range(len(channels) - 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, classes, H, W)."""
        *skips, outputs = encode(self.encoder, self.pool, images)
        for level in reversed(range(len(skips))):
            gated = self.gates[level](skips[level], outputs)
            outputs = self.decoder[level](torch.cat([gated, self.ups[level](outputs)], dim=1))
        return self.logits(outputs)


ARCHITECTURES = {"unet": UNet, "unetpp": UNetPlusPlus, "attention_unet": AttentionUNet}


def build(
    architecture: str,
    in_channels: int,
    classes: int,
    filters: int = 16,
    depth: int = 4,
    normalisation: str = "batch",
    dropout: float = 0.1,
) -> nn.Module:
    """Build a network, as `src.models.build_model` does with up-sampling by transposed convolution.

    Args:
        architecture: "unet", "unetpp" or "attention_unet".
        in_channels: Channels of a picture.
        classes: Number of classes, background included.
        filters: Channels of the first level; each further level has twice as many.
        depth: Number of down-samplings.
        normalisation: "batch", "instance" or "none".
        dropout: Share of the feature maps that is dropped in training.

    Returns:
        A network from (B, in_channels, H, W) to logits (B, classes, H, W), initialised after He.
    """
    design = Design(in_channels, filters, depth, normalisation, dropout)
    network = ARCHITECTURES[architecture](design, classes)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight)
    return network


def parameters(network: nn.Module) -> int:
    """How many numbers of a network are trained."""
    return sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
