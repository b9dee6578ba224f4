"""Pictures as data URIs, small enough that a page of hundreds of them stays quick to open."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

BUDGET_BYTES = 10 * 2**20  # of all pictures together, as they stand in the page
# Greatest width and WebP quality, from the best to the smallest; the first that fits is taken.
_STEPS = ((1536, 85), (1152, 80), (1024, 70), (900, 60), (768, 55), (640, 50), (512, 45), (384, 35))


@dataclass(frozen=True)
class Picture:
    """A picture inside the page.

    Attributes:
        uri: data:image/webp;base64,…
        width: In pixels.
        height: In pixels.
    """

    uri: str
    width: int
    height: int


def embed(path: Path, budget_bytes: float) -> Picture:
    """Encodes a picture so that it takes no more than its share of the page.

    Args:
        path: A file that OpenCV reads, in colour or grey.
        budget_bytes: What its data URI may take. A picture that is larger even at the smallest
            step is taken at that step.

    Returns:
        The picture, never enlarged.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no picture.
    """
    import cv2
    import numpy as np

    where = f"reports/evaluation/…/{path.parent.name}/{path.name}"
    if not path.is_file():
        raise FileNotFoundError(f"{where} is missing. Make it with `dvc repro --force evaluate`.")
    # Not cv2.imread: it does not open names beyond ASCII on every system.
    picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(
            f"{where}: found no picture, expected a PNG. Make it with `dvc repro --force evaluate`."
        )
    for most, quality in _STEPS:
        factor = min(1.0, most / picture.shape[1])
        size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if factor < 1 else picture
        _, data = cv2.imencode(".webp", small, [cv2.IMWRITE_WEBP_QUALITY, quality])
        if len(data) * 4 / 3 <= budget_bytes:
            break
    text = base64.b64encode(data.tobytes()).decode("ascii")
    return Picture(f"data:image/webp;base64,{text}", size[0], size[1])
