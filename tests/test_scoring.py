from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.scoring import Measures, SubsetScores, count_table, measure, metrics_of, read_counts
from src.scoring import scores_of as score

CLASSES = ("background", "lesion")
DIAGONAL = np.hypot(10 * 2.0, 10 * 1.0)  # of 10 x 10 pixels of 2 x 1 mm


def mask(rows: slice, columns: slice) -> np.ndarray:
    labels = np.zeros((10, 10), np.uint8)
    labels[rows, columns] = 1
    return labels


def measured(truth: np.ndarray, prediction: np.ndarray) -> Measures:
    return measure(truth, prediction, 2, spacing_mm=(2.0, 1.0), tolerance_mm=1.0)


NOTHING = mask(slice(0), slice(0))
SQUARE = mask(slice(3, 7), slice(3, 7))  # 16 pixels
LOWER = mask(slice(4, 8), slice(3, 7))  # 12 of them, and 4 others: a row, 2 mm
MEASURES = [measured(SQUARE, LOWER), measured(SQUARE, NOTHING), measured(NOTHING, NOTHING)]


@pytest.fixture
def table() -> pd.DataFrame:
    """P-1 with a shifted square and a missed one, P-2 without a lesion."""
    cases = pd.DataFrame(
        {
            "case_id": ["Doe/1", "Doe/2", "Roe/1"],
            "case_pseudonym": ["P-1/000", "P-1/001", "P-2/000"],
            "pseudonym": ["P-1", "P-1", "P-2"],
            "source": ["a", "a", ""],
        },
        index=[5, 3, 9],
    )
    return count_table(cases, MEASURES, CLASSES)


def scores_of(table: pd.DataFrame) -> SubsetScores:
    return score(table, CLASSES, seed=1, resamples=100)


def test_what_is_measured_of_a_slice_stands_under_a_pseudonym(table: pd.DataFrame) -> None:
    assert "Doe" not in table.to_csv()
    # One side is empty: the diagonal of the image, and nothing within the tolerance.
    assert table.iloc[1].to_dict() == {
        "case": "P-1/001",
        "patient_pseudonym": "P-1",
        "source": "a",
        "true_positives_background": 84,
        "false_positives_background": 16,
        "false_negatives_background": 0,
        "true_positives_lesion": 0,
        "false_positives_lesion": 0,
        "false_negatives_lesion": 16,
        "hd95_mm_lesion": pytest.approx(DIAGONAL, abs=1e-6),
        "assd_mm_lesion": pytest.approx(DIAGONAL, abs=1e-6),
        "nsd_lesion": 0,
    }


def test_overlap_of_a_patient_is_of_the_pixels_of_all_slices_together(table: pd.DataFrame) -> None:
    scores = scores_of(table)
    # 12 true positives, 4 false positives, 4 + 16 false negatives: 24 / (24 + 4 + 20).
    assert scores.patients["dice_lesion"].tolist() == pytest.approx([0.5, np.nan], nan_ok=True)
    assert scores.patients["slices"].tolist() == [2, 1]
    assert scores.patients["truth_pixels_lesion"].tolist() == [32, 0]
    assert scores.slices["dice_lesion"].tolist() == pytest.approx([0.75, 0, np.nan], nan_ok=True)
    assert scores.summary.overlap.patients["lesion"].num_unscored == 1


def test_distances_of_a_patient_are_the_mean_over_its_scored_slices(table: pd.DataFrame) -> None:
    scores = scores_of(table)
    # The square moved by a row: 4 of its 12 boundary pixels, the upper ones, lie 2 mm from the
    # other boundary, and none further, so that the 95th percentile is 2 mm.
    assert scores.slices["hd95_mm_lesion"].tolist() == pytest.approx(
        [2.0, DIAGONAL, np.nan], nan_ok=True, abs=1e-6
    )
    assert scores.patients["hd95_mm_lesion"].tolist() == pytest.approx(
        [(2.0 + DIAGONAL) / 2, np.nan], nan_ok=True, abs=1e-6
    )
    # The contour: 3 pieces of 1 mm above and below, 3 of 2 mm on either side, 4 corners. Further
    # than 1 mm from the other one are the upper pieces and corners, and the middle of the lower.
    corner = np.hypot(1.0, 0.5)
    length = 2 * 3 * 1 + 2 * 3 * 2 + 4 * corner
    near = length - (3 * 1 + 2 * corner) - 1
    assert scores.slices["nsd_lesion"][0] == pytest.approx(near / length, abs=1e-6)
    assert scores.patients["nsd_lesion"][0] == pytest.approx(near / length / 2, abs=1e-6)


def test_slices_with_a_class_on_one_side_alone_are_counted(table: pd.DataFrame) -> None:
    scores = scores_of(table)
    assert scores.patients["one_empty_slices_lesion"].tolist() == [1, 0]
    groups = scores.summary.to_dict()
    assert groups["num_one_empty_cases"]["lesion"] == 1
    assert groups["num_surface_cases"]["lesion"] == 2


def test_the_summary_has_means_and_intervals_of_overlap_and_distances() -> None:
    cases = pd.DataFrame(
        {"case_pseudonym": ["P-1/000", "P-2/000"], "pseudonym": ["P-1", "P-2"], "source": ""}
    )
    same = measured(SQUARE, SQUARE)
    scores = scores_of(count_table(cases, [same, measured(SQUARE, LOWER)], CLASSES))
    groups = scores.summary.to_dict()
    assert groups["dice"]["lesion"] == pytest.approx((1 + 0.75) / 2)
    assert groups["hd95_mm"]["lesion"] == pytest.approx(1.0)
    assert (groups["hd95_mm_low"]["lesion"], groups["hd95_mm_high"]["lesion"]) == (0, 2)
    assert groups["hd95_mm"]["mean_foreground"] == groups["hd95_mm"]["lesion"]
    assert groups["hd95_mm"]["background"] is None
    assert set(scores.summary.scores) == {
        "dice", "iou", "precision", "recall", "hd95_mm", "assd_mm", "nsd",
    }  # fmt: skip


def test_mlflow_gets_no_distance_of_the_background(table: pd.DataFrame) -> None:
    metrics = metrics_of(scores_of(table).summary)
    assert metrics["dice/lesion"] == pytest.approx(0.5)
    assert metrics["hd95_mm/lesion"] == pytest.approx((2.0 + DIAGONAL) / 2)
    assert "iou/background" in metrics
    assert "hd95_mm/background" not in metrics


def test_scores_do_not_change_on_the_way_through_a_file(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    table.to_csv(tmp_path / "test_counts.csv", index=False)
    again = read_counts(tmp_path / "test_counts.csv")
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    assert scores_of(again).summary.to_dict() == scores_of(table).summary.to_dict()


def test_a_class_that_nobody_has_is_not_scored() -> None:
    cases = pd.DataFrame({"case_pseudonym": ["P-1/000"], "pseudonym": ["P-1"], "source": [""]})
    scores = scores_of(count_table(cases, [MEASURES[2]], CLASSES))
    groups = scores.summary.to_dict()
    assert groups["hd95_mm"]["lesion"] is None
    assert groups["num_surface_cases"]["lesion"] == 0


def test_counts_that_are_not_there_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"test_counts.csv is missing.*dvc repro evaluate"):
        read_counts(tmp_path / "test_counts.csv")


def test_counts_of_other_classes_are_refused(table: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"no column true_positives_organ.*expected the classes"):
        score(table, ("background", "organ"), seed=1, resamples=100)
    with pytest.raises(ValueError, match=r"no column nsd_lesion.*Make it again"):
        scores_of(table.drop(columns="nsd_lesion"))
