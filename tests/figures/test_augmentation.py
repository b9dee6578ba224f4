import numpy as np
import pytest

from src.figures import augmentation_sheet


def case(size: int) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((size, size), np.uint8)
    mask[2:6, 2:6] = 1
    return mask.astype(np.float32), mask


def test_each_case_has_a_row_and_each_version_a_panel() -> None:
    sheet = augmentation_sheet(
        [[case(16), case(8), case(8)], [case(16), case(8), case(8)]],
        num_classes=2,
        window=(0.0, 1.0),
    )
    assert len(sheet.axes) == 6
    assert [panel.get_title() for panel in sheet.axes[:3]] == ["as it is", "epoch 1", "epoch 2"]


def test_the_truth_is_outlined_where_it_is() -> None:
    sheet = augmentation_sheet([[case(16)]], num_classes=2, window=(0.0, 1.0))
    outline = sheet.axes[0].collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([outline.min(), outline.max()], [1.5, 5.5])


def test_rows_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="rows must be one or more, of one length"):
        augmentation_sheet([[case(8)], [case(8), case(8)]], num_classes=2, window=(0.0, 1.0))
