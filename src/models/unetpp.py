"""The U-Net++ of Zhou et al. 2018: a U-Net whose skip connections are nested and dense."""

import keras

from src.models import blocks
from src.models.design import Design


def unetpp(design: Design) -> keras.Model:
    """Build a U-Net++.

    Node X(i, j) stands on level i = 0 ... depth, of f_i = filters * 2 ** i channels, at the j-th
    place of its row, j = 0 ... depth - i. The first column is the encoder, and every other node
    reads all nodes to the left of it in its row and the one below:

        X(i, 0) = block(maxpool2x2(X(i-1, 0)))
        X(i, j) = block([X(i, 0), ..., X(i, j-1), up(X(i+1, j-1))])

    with block and up as in :func:`src.models.unet.unet`. The probabilities are
    softmax(W * X(0, depth)) with a 1x1 convolution.

    With deep supervision X(0, 1) to X(0, depth), all of the size of the picture, have a head each,
    of equal weight, as in the paper. After training the last one alone is used. The paper's other
    two choices are a head before it (a pruned network: less time, less accuracy) and the mean of
    all. The last one is the network that would be trained without deep supervision, so that the
    two can be compared; it costs as much as the mean; and its probabilities are one softmax, not
    a mixture of shallow and deep ones.

    Parameters: the encoder's blocks as in the U-Net; node X(i, j), j >= 1, has a block of
    (j + 1) f_i inputs and f_i outputs, and up. With 1 channel, 2 classes, depth 4, filters 64,
    "none" and "transpose" that makes 36,156,866 (with filters 32 9,041,634, the paper's 9.04 M);
    with filters 16, 3 classes and "batch", 2,267,107.

    Args:
        design: The numbers of the network.

    Returns:
        A model as of :func:`src.models.unet.unet`; with deep supervision the list is of
        X(0, depth), ..., X(0, 1).

    Raises:
        ValueError: The normalisation or the upsampling is unknown.

    Source: Zhou et al. 2018, arXiv:1807.10165, equation 1; Zhou et al. 2020, arXiv:1912.05074.
    """
    depth = design.depth

    def uses(row: int, column: int) -> int:
        """How many nodes and heads read a node (the encoder's pooling apart)."""
        has_head = row == 0 and (column == depth or (column > 0 and design.is_deeply_supervised))
        return (depth - row - column) + (row > 0) + has_head

    inputs = keras.Input((None, None, design.in_channels), name="image")
    # The copies of each node that are not read yet.
    rows = [[node] for node in design.encode(inputs, uses=[uses(i, 0) for i in range(depth + 1)])]
    for column in range(1, depth + 1):
        for row in range(depth - column + 1):
            name = f"node{row}_{column}"
            below = design.upsample(rows[row + 1][column - 1].pop(), row, f"{name}_up")
            left = [copies.pop() for copies in rows[row]]
            joined = keras.layers.Concatenate(name=f"{name}_join")([*left, below])
            outputs = design.block(joined, row, name)
            rows[row].append(blocks.branch(outputs, uses(row, column), name=f"{name}_branch"))
    columns = range(depth, 0, -1) if design.is_deeply_supervised else [depth]
    return design.model(
        inputs,
        [("" if j == depth else f"_column{j}", rows[0][j].pop()) for j in columns],
        strides=[1] * len(columns),
        weights=[1.0] * len(columns),
        name="unetpp",
    )
