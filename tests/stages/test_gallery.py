import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from src.figures import OverlayCase
from src.stages.gallery import gallery_cases, write_gallery


def slices(*rows: tuple[str, float, int]) -> pd.DataFrame:
    """Rows of patient, Dice and size of the lesion."""
    return pd.DataFrame(
        {
            "case": [f"{patient}/{number:03d}" for number, (patient, _, _) in enumerate(rows)],
            "patient_pseudonym": [patient for patient, _, _ in rows],
            "source": "s1",
            "dice_lesion": [dice for _, dice, _ in rows],
            "truth_pixels_lesion": [size for _, _, size in rows],
            "predicted_pixels_lesion": 2,
            "uncertainty": 0.25,
            "tags_lesion": "missed; at border",
        }
    )


def test_the_gallery_is_the_worst_slices_and_the_largest_of_each_patient() -> None:
    table = slices(("P", 0.9, 50), ("P", 0.1, 3), ("P", 0.5, 9), ("Q", 0.8, 4), ("Q", 0.7, 7))
    # The worst is P/001; the largest are P/000 and Q/004.
    assert gallery_cases(table, "lesion", 1) == ["P/001", "Q/004", "P/000"]
    assert gallery_cases(table, "lesion", 0) == ["Q/004", "P/000"]


def test_slices_of_equal_dice_take_turns_by_patient_and_by_what_is_wrong() -> None:
    # Of P three false ones and a missed one, of Q a false one: all at 0.
    table = slices(("P", 0.0, 0), ("P", 0.0, 0), ("P", 0.0, 0), ("P", 0.0, 9), ("Q", 0.0, 0),
                   ("P", 0.9, 50), ("Q", 0.9, 50))  # fmt: skip
    shown = gallery_cases(table, "lesion", 3)
    assert set(shown) == {"P/000", "P/003", "Q/004", "P/005", "Q/006"}


def test_a_patient_without_the_class_is_shown_last() -> None:
    table = slices(("P", 0.9, 50), ("Q", float("nan"), 0))
    assert gallery_cases(table, "lesion", 5) == ["P/000", "Q/001"]


def test_pictures_and_what_is_known_of_them_are_written(tmp_path: Path) -> None:
    mask = np.eye(16, dtype=np.uint8)
    shown = OverlayCase(
        np.zeros((16, 16)), mask, mask, (2.0, 0.5), "P/000", "Dice 0.90", np.zeros((16, 16))
    )
    table = slices(("P", 0.9, 3))
    write_gallery(
        tmp_path, table, {"P/000": shown},
        name="lesion", class_names=("background", "lesion"), window=(-100.0, 100.0),
    )  # fmt: skip
    (entry,) = json.loads((tmp_path / "gallery.json").read_text(encoding="utf-8"))
    assert entry["file"] == "gallery/P_000.png"
    assert cv2.imread(str(tmp_path / entry["file"])).shape[2] == 3
    assert (entry["truth_mm2"], entry["predicted_mm2"]) == (3.0, 2.0)  # pixels of 1 mm2
    assert entry["tags"] == ["missed", "at border"]
    assert (entry["patient"], entry["dice"], entry["hd95_mm"]) == ("P", 0.9, None)
