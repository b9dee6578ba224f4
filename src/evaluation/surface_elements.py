"""How much boundary passes between neighbouring pixels: marching squares, and cubes for volumes.

A boundary is taken to run between the centres of 2 x 2 pixels (2 x 2 x 2 voxels), halfway between
each neighbouring pair of which one is inside. What such a cell holds depends on its code alone: the
sum of 2^i over the corners i that are inside, corner i standing at the offset whose binary digits
(z)yx are those of i.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# The four corners of a pixel cell in cyclic order, and the six faces of a voxel cell, each in the
# order in which it is seen from outside: an edge is then walked once in either direction.
_SQUARE = (0, 1, 3, 2)
_CUBE = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))

_Edge = frozenset[int]  # the two corners at its ends


@lru_cache(maxsize=256)
def element_sizes(spacing_mm: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the boundary in a cell of each code.

    In a volume the corners of a cell's surface need not lie in one plane; it is then spanned from
    their centroid. Inside pixels that meet at a corner alone are kept apart, in every cell alike,
    so that the surface of a volume has no holes.

    Args:
        spacing_mm: Spacing in mm, (y, x) or (z, y, x).

    Returns:
        (16,) float64 lengths in mm, or (256,) float64 areas in mm²; 0 for a cell all inside or all
        outside. Read-only, for it is kept.

    Source: Nikolov et al. 2018, Deep learning to achieve clinically applicable segmentation of head
    and neck anatomy for radiotherapy, for boundary weighted by its size; Lorensen and Cline 1987,
    Marching cubes, for its shape.
    """
    ndim = len(spacing_mm)
    size = _length if ndim == 2 else _area
    spacing = np.array(spacing_mm)
    sizes = np.array([size(code, spacing) for code in range(1 << (1 << ndim))])
    sizes.flags.writeable = False
    return sizes


def _length(code: int, spacing: NDArray[np.float64]) -> float:
    """Return the length of the contour in a cell of 2 x 2 pixels."""
    ends = [_midpoints(segment, spacing) for segment in _segments(_SQUARE, code)]
    return sum(float(np.linalg.norm(stop - start)) for start, stop in ends)


def _area(code: int, spacing: NDArray[np.float64]) -> float:
    """Return the area of the surface in a cell of 2 x 2 x 2 voxels."""
    following = dict(segment for face in _CUBE for segment in _segments(face, code))
    area = 0.0
    while following:
        loop = list(following.popitem())
        while loop[-1] != loop[0]:
            loop.append(following.pop(loop[-1]))
        corners = _midpoints(loop, spacing)
        spokes = corners - corners[:-1].mean(axis=0)
        area += float(np.linalg.norm(np.cross(spokes[:-1], spokes[1:]), axis=1).sum()) / 2
    return area


def _segments(face: Sequence[int], code: int) -> list[tuple[_Edge, _Edge]]:
    """Return the lines on a face, each cutting off the inside corners that follow each other.

    A line goes from the edge where the walk around the face leaves these corners to the one where
    it entered them.
    """
    inside = [bool(code >> corner & 1) for corner in face]
    crossed = [i for i in range(4) if inside[i - 1] != inside[i]]
    if crossed and not inside[crossed[0]]:
        crossed = [*crossed[1:], crossed[0]]
    edges = [frozenset((face[i - 1], face[i])) for i in crossed]
    return list(zip(edges[1::2], edges[::2], strict=True))


def _midpoints(edges: Sequence[_Edge], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (N, ndim) midpoints of edges in mm."""
    corners = np.array([sorted(edge) for edge in edges])
    digits = np.arange(spacing.size)[::-1]
    return (corners[:, :, None] >> digits & 1).mean(axis=1) * spacing
