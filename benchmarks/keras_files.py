"""Files to mask files as a script would have it: OpenCV, one call of keras predict, OpenCV.

python benchmarks/keras_files.py IMAGES MASKS MODEL_FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this is started as a file, and the project is not installed

BATCH = 16


def main(images: Path, masks: Path, folder: Path) -> None:
    """Segments the pictures of a folder."""
    import keras

    import src.models  # noqa: F401  # registers the layers of model.keras

    settings = json.loads((folder / "preprocessing.json").read_text(encoding="utf-8"))
    low, high = settings["window_low"], settings["window_high"]
    model = keras.models.load_model(folder / "model.keras", compile=False)
    paths = sorted(images.glob("*.png"))
    hu = np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths]) - 1024.0
    share = np.clip((hu - low) / (high - low), 0, 1)
    slices = ((share - settings["mean"]) / settings["deviation"]).astype(np.float32)[..., None]
    found = model.predict(slices, batch_size=BATCH, verbose=0).argmax(-1).astype(np.uint8)
    for path, mask in zip(paths, found, strict=True):
        cv2.imwrite(str(masks / path.name), mask)


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:4]))
