import pytest

from src.label_values import COLOUR, label_value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (10, 10),
        (-32768, -32768),
        ("#0a0a0a", 10),
        ("#0A0A0A", 10),
        ("#FFFFFF", 255),
        ("#0000ff", COLOUR + 255),  # blue, and not the grey value 255
        ("#FF0000", COLOUR + 0xFF0000),
        ("#0a0a0b", COLOUR + 0x0A0A0B),
    ],
)
def test_a_key_of_the_labels_is_a_number_a_grey_value_or_a_colour(
    key: int | str, value: int
) -> None:
    assert label_value(key) == value
