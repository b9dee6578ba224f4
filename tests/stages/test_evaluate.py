from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd

from src.stages.evaluate import keep_masks
from src.stages.gallery import extremes


def patients(*scores: float) -> pd.DataFrame:
    names = [f"P-{n}" for n in range(len(scores))]
    return pd.DataFrame({"patient_pseudonym": names, "dice_lesion": scores})


def test_best_median_and_worst_patients_are_different_patients() -> None:
    table = patients(0.5, 0.1, 0.9, 0.3, 0.7)
    assert extremes(table, "dice_lesion", 3) == {
        "best": ["P-2"],
        "median": ["P-0"],
        "worst": ["P-1"],
    }


def test_patients_without_a_score_are_not_drawn_as_the_worst() -> None:
    table = patients(float("nan"), 0.4, 0.6)
    drawn = extremes(table, "dice_lesion", 1)
    assert drawn["worst"] == ["P-1"]
    assert all("P-0" not in names for names in drawn.values())


def test_masks_are_kept_a_file_a_scan_under_pseudonyms_alone(tmp_path: Path) -> None:
    row = namedtuple("row", "case_id case_pseudonym")
    scan = [row("Doe/7", "P-3f9c1e2a/004"), row("Doe/8", "P-3f9c1e2a/005")]
    masks = [np.eye(3, dtype=np.uint8), np.full((2, 5), 2, np.uint8)]  # sizes may differ
    keep_masks(tmp_path, scan, masks)
    (path,) = tmp_path.iterdir()
    assert path.name == "P-3f9c1e2a_004.npz"
    with np.load(path) as kept:
        assert kept.files == ["004", "005"]
        for name, mask in zip(kept.files, masks, strict=True):
            assert kept[name].dtype == np.uint8
            np.testing.assert_array_equal(kept[name], mask)
