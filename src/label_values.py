"""What a key of data.labels stands for in a mask; for params.yaml and for what reads masks."""

from __future__ import annotations

COLOUR = 1 << 24  # label values from here on are colours: COLOUR + 0xRRGGBB


def label_value(key: int | str) -> int:
    """The label value that a whole number or "#rrggbb" stands for; "#0a0a0a" is the grey value 10.

    Raises:
        ValueError: A text that is no "#rrggbb".
    """
    if isinstance(key, int):
        return key
    colour = int(key.removeprefix("#"), 16)
    grey = colour & 0xFF
    return grey if colour == grey * 0x010101 else COLOUR | colour
