from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.evaluation.overlap import Counts
from src.stages.scores import count_table, metrics_of, read_counts, scores_of

CLASSES = ("background", "lesion")


def counts(true_positives: int, false_positives: int, false_negatives: int) -> Counts:
    """Of 100 pixels."""
    right = 100 - true_positives - false_positives - false_negatives
    return Counts(
        np.array([right, true_positives]),
        np.array([false_negatives, false_positives]),
        np.array([false_positives, false_negatives]),
    )


@pytest.fixture
def table() -> pd.DataFrame:
    cases = pd.DataFrame(
        {
            "case_id": ["Doe/1", "Doe/2", "Roe/1"],
            "case_pseudonym": ["P-1/000", "P-1/001", "P-2/000"],
            "pseudonym": ["P-1", "P-1", "P-2"],
            "source": ["a", "a", ""],
        },
        index=[5, 3, 9],
    )
    return count_table(cases, [counts(10, 0, 10), counts(20, 10, 0), counts(0, 0, 0)], CLASSES)


def test_the_counts_of_a_slice_are_whole_numbers_under_a_pseudonym(table: pd.DataFrame) -> None:
    assert "Doe" not in table.to_csv()
    assert table.iloc[1].to_dict() == {
        "case": "P-1/001",
        "patient_pseudonym": "P-1",
        "source": "a",
        "true_positives_background": 70,
        "false_positives_background": 0,
        "false_negatives_background": 10,
        "true_positives_lesion": 20,
        "false_positives_lesion": 10,
        "false_negatives_lesion": 0,
    }


def test_a_patient_is_scored_by_the_pixels_of_all_slices_together(table: pd.DataFrame) -> None:
    scores = scores_of(table, CLASSES, seed=1, resamples=100)
    # Lesion of P-1: 30 true positives, 10 false positives, 10 false negatives: 60 / 80.
    assert scores.patients["dice_lesion"].tolist() == pytest.approx([0.75, np.nan], nan_ok=True)
    assert scores.patients["slices"].tolist() == [2, 1]
    assert scores.patients["truth_pixels_lesion"].tolist() == [40, 0]
    # Slices: 20 / 30, 40 / 50, and none.
    assert scores.slices["dice_lesion"].tolist() == pytest.approx(
        [2 / 3, 0.8, np.nan], nan_ok=True, abs=1e-6
    )
    assert scores.summary.patients["lesion"].num_unscored == 1
    assert metrics_of(scores.summary)["dice/lesion"] == 0.75


def test_scores_do_not_change_on_the_way_through_a_file(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    table.to_csv(tmp_path / "test_counts.csv", index=False)
    again = read_counts(tmp_path / "test_counts.csv")
    pd.testing.assert_frame_equal(again, table)
    summaries = [scores_of(t, CLASSES, seed=1, resamples=100).summary for t in (table, again)]
    assert summaries[0].to_dict() == summaries[1].to_dict()


def test_counts_that_are_not_there_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"test_counts.csv is missing.*dvc repro evaluate"):
        read_counts(tmp_path / "test_counts.csv")
