"""Names that may stand for one patient: P00 beside p00, P00_pre beside P00_post.

The second is a guess, so it is made only where a name ends in what is known to be no part of it,
behind a word with a number: a word of an occasion or side, a numbered visit, a date; or a year,
behind a word with a letter and a number. Names that are only numbered (case_001, siteA_001, P00_1)
say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_OCCASIONS = (
    "pre|post|preop|postop|before|after|baseline|follow[-_ ]?up|initial|first|second|third|prior"
    "|arterial|venous|portal[-_ ]?venous|portal|delayed|native|contrast|noncontrast|enhanced"
    "|unenhanced|left|right|inspiration|expiration|inhale|exhale|rescan|retest"
    "|(?:visit|v|scan|session|ses|time|timepoint|tp|t|exam|study|phase|day|week|month|fu)"
    "[-_ ]?[0-9]+"
)
_YEAR = "(?:19[5-9]|20[0-4])[0-9]"
_DATE = rf"{_YEAR}(?:[-_.]?[0-9]{{2}}){{1,2}}|[0-9]{{1,2}}[-_.][0-9]{{1,2}}[-_.]{_YEAR}"
_ENDS = tuple(
    re.compile(rf"(?P<patient>.*?{word}[^\W_]+)[-_. ]+(?:{end})", re.IGNORECASE)
    for word, end in (
        (r"(?=[^\W_]*\d)", f"{_OCCASIONS}|{_DATE}"),
        (r"(?=[^\W_]*\d)(?=[^\W_]*[^\W\d_])", _YEAR),
    )
)
_CHANNEL = re.compile(r"(?<=.)_0000$")  # as nnU-Net numbers the channels of an image


def spelling(name: str) -> str:
    """A name in lower case, with single blanks."""
    return " ".join(name.casefold().split())


def without_occasion(name: str, is_role: Callable[[str], bool]) -> str:
    """What is left of a name without its occasions at the end.

    Args:
        name: Of a patient.
        is_role: Whether a word says image or mask; such words at the end are taken off too.

    Returns:
        The name itself where it ends in none.
    """
    rest = _without_roles(_CHANNEL.sub("", name), is_role)
    found = name
    while hit := next(filter(None, (end.fullmatch(rest) for end in _ENDS)), None):
        found = rest = _without_roles(hit["patient"], is_role)
    return found


def _without_roles(name: str, is_role: Callable[[str], bool]) -> str:
    while (hit := re.fullmatch(r"(.+?)[-_. ]+([^-_. ]+)", name)) and is_role(hit[2]):
        name = hit[1]
    return name
