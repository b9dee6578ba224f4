"""The values in masks that are scored: their classes, and what to say of values without one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from src.data.findings import Finding
from src.data.masks import (
    class_indices,
    label_lookup,
    shown_values,
    suggested_labels,
    value_counts,
)

Labels = Mapping[int | str, str]
"""Label value or "#rrggbb" -> class name."""


class UnknownValuesError(ValueError):
    """A mask holds values that stand for no class.

    Attributes:
        name: Of the file.
        option: That says what values mean: --labels or --prediction-labels.
        held: All values of the mask.
    """

    def __init__(self, name: str, option: str, held: Collection[int]) -> None:
        super().__init__(f"{name}: found values that stand for no class")
        self.name, self.option, self.held = name, option, held


def indices(
    values: NDArray[np.int32], name: str, labels: Labels, classes: Sequence[str], option: str
) -> NDArray[np.uint8]:
    """Label values -> class indices.

    Args:
        values: (D, H, W).
        name: Of the file.
        labels: What they mean.
        classes: Class names, background first.
        option: That says so.

    Returns:
        (D, H, W) uint8.

    Raises:
        UnknownValuesError: A value stands for no class.
    """
    held = value_counts(values)
    if not held.keys() <= label_lookup(labels, classes).keys():
        raise UnknownValuesError(name, option, held)
    return class_indices(values, labels, classes)


def findings_of(
    errors: Iterable[UnknownValuesError], labels: Mapping[str, Labels], classes: Sequence[str]
) -> list[Finding]:
    """A finding for each file with unknown values, worded for all that have one cause.

    An image in place of a mask holds many values, another labelling of the classes a few: what is
    said of the one would be wrong of the other.

    Args:
        errors: One a file.
        labels: Option -> what it says.
        classes: Class names, background first.
    """
    alike: dict[tuple[str, bool], list[UnknownValuesError]] = {}
    for error in errors:
        few = len(error.held) <= 2 * len(classes)
        alike.setdefault((error.option, few), []).append(error)
    found: list[Finding] = []
    for (option, few), group in alike.items():
        held = sorted({value for error in group for value in error.held})
        known = label_lookup(labels[option], classes)
        unknown = [value for value in held if value not in known]
        guess = f"If that is what they mean, give {option} {_example(held, known, classes)}."
        found += [
            Finding(
                "unknown-label", "error", (error.name,),
                f"the {'value' if len(unknown) == 1 else 'values'} {shown_values(unknown)}",
                f"one of {shown_values(known)}",
                guess if few else suggested_labels(held, classes),
            )
            for error in group
        ]  # fmt: skip
    return found


def _example(held: Sequence[int], known: Mapping[int, int], classes: Sequence[str]) -> str:
    """Labels that name all values of masks: those that are known, and a guess at the others.

    A guess where as many classes have no value in the masks as they have unknown values; else CLASS
    stands for what the user has to say.
    """
    unknown = [value for value in held if value not in known]
    left = [name for index, name in enumerate(classes) if index not in map(known.get, held)]
    if len(left) == len(unknown):
        named = {value: classes[known[value]] for value in held if value in known}
        named |= dict(zip(unknown, left, strict=True))
    else:
        named = {value: classes[index] for value, index in known.items()}
        named |= dict.fromkeys(unknown, "CLASS")
    return ",".join(f"{shown_values([value])}={named[value]}" for value in sorted(named))
