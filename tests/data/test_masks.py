import numpy as np
import pytest

from src.data.masks import class_indices, label_lookup, shown_values, value_counts
from src.label_values import COLOUR

CLASSES = ("background", "organ", "lesion")


def test_label_values_become_class_indices() -> None:
    labels = {0: "background", 7: "lesion", 255: "organ"}
    found = class_indices(np.array([[0, 7], [255, 0]], np.int32), labels, CLASSES)
    np.testing.assert_array_equal(found, [[0, 2], [1, 0]])
    assert found.dtype == np.uint8


def test_label_values_beyond_a_byte_and_below_zero_become_class_indices() -> None:
    labels = {-32768: "background", "#010203": "lesion"}
    found = class_indices(np.array([[-32768, COLOUR + 0x010203]], np.int32), labels, CLASSES)
    np.testing.assert_array_equal(found, [[0, 2]])


def test_a_grey_colour_is_its_grey_value_and_blue_is_not() -> None:
    labels = {"#000000": "background", "#FFFFFF": "organ", "#0000ff": "lesion"}
    lookup = label_lookup(labels, CLASSES)
    assert lookup == {0: 0, 255: 1, COLOUR + 255: 2}
    assert shown_values(lookup) == "0, 255, #0000ff"


def test_a_stack_becomes_class_indices_of_its_shape() -> None:
    values = np.random.default_rng(0).integers(0, 3, (5, 4, 700), dtype=np.int32)
    found = class_indices(values, {0: "background", 1: "organ", 2: "lesion"}, CLASSES)
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("value", [3, 255, 256, -1])
def test_a_value_without_a_class_is_an_error_that_names_it(value: int) -> None:
    values = np.array([[0, value]], np.int32)
    with pytest.raises(ValueError, match=rf"mask values {value} stand for no class"):
        class_indices(values, {0: "background"}, CLASSES)


def test_as_many_classes_as_a_byte_holds_are_told_apart() -> None:
    names = [str(number) for number in range(256)]
    values = np.arange(256, dtype=np.int32)[None]
    np.testing.assert_array_equal(class_indices(values, dict(enumerate(names)), names), values)


@pytest.mark.parametrize("values", [[0, 0, 2, 2, 2], [255, 1, 255], [-5, 70_000, -5], [256, 0]])
def test_values_are_counted_in_ascending_order(values: list[int]) -> None:
    found = value_counts(np.array([values], np.int32))
    assert list(found.items()) == [(value, values.count(value)) for value in sorted(set(values))]
