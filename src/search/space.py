"""What a study searches: dimensions, and how a point in them becomes parameters.

A dimension is a parameter by its path (`train.learning_rate`), or a factor under a name of its own
on several of them. Nothing here knows a parameter by name, so a new one needs no code.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DIGITS = 4  # significant ones of a searched number; more say nothing and cannot be read


@dataclass(frozen=True)
class Dimension:
    """One dimension of the search.

    Attributes:
        name: Path of a parameter, or a name of its own with `multiplies`.
        current: The present value; 1.0 of a factor.
        low: Lowest value of a range; None where there are choices.
        high: Highest value, included.
        log: Whether the logarithm is searched evenly.
        choices: None of a range.
        multiplies: Path -> present value of the parameters that a factor multiplies.
    """

    name: str
    current: Any
    low: Any = None
    high: Any = None
    log: bool = False
    choices: tuple[Any, ...] | None = None
    multiplies: Mapping[str, float] | None = None

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers."""
        return all(isinstance(end, int) for end in (self.low, self.high, self.current))

    def distribution(self) -> Any:
        """What Optuna calls this dimension."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        kind = IntDistribution if self.whole else FloatDistribution
        return kind(self.low, self.high, log=self.log)


def dimensions(
    space: Mapping[str, Mapping[str, Any]], current: Mapping[str, Any]
) -> tuple[Dimension, ...]:
    """The dimensions of a study.

    Args:
        space: `tune.space` of params.yaml: name -> low, high and scale, or choices; multiplies.
        current: Path -> present value, of all parameters that may be named.

    Raises:
        ValueError: There is none, or a range does not suit its parameter; all of them are named.
    """
    found, wrong = [], []
    for name, entry in space.items():
        factors = entry.get("multiplies")
        paths = [name] if factors is None else factors
        values = {path: current[path] for path in paths}
        if entry.get("choices") is not None:
            found.append(Dimension(name, current[name], choices=tuple(entry["choices"])))
            continue
        low, high, log = entry["low"], entry["high"], entry["scale"] == "log"
        for path, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                wrong.append(f"{name}: {path} is {value!r}, no number; give choices instead")
            elif factors and isinstance(value, int):
                wrong.append(f"{name}: {path} is {value}, a whole number; it takes no factor")
            elif not factors and isinstance(value, int) and not isinstance(low * high, int):
                wrong.append(f"{name}: is a whole number ({value}), got {low} to {high}")
        if factors is None:
            found.append(Dimension(name, current[name], low, high, log))
        else:
            found.append(Dimension(name, 1.0, float(low), float(high), log, multiplies=values))
    if not found:
        wrong.append("names no parameter, so there is nothing to search")
    if wrong:
        raise ValueError("tune.space in params.yaml:\n" + "\n".join(f"  {line}" for line in wrong))
    return tuple(found)


def baseline(space: Sequence[Dimension]) -> dict[str, Any]:
    """The point of the present parameters.

    Raises:
        ValueError: It lies outside; every such dimension is named.
    """
    wrong = []
    for one in space:
        if one.choices is not None and one.current not in one.choices:
            wrong.append(f"{one.name}: {one.current!r} is not among {list(one.choices)}")
        elif one.choices is None and not one.low <= one.current <= one.high:
            wrong.append(f"{one.name}: {one.current} is not within {one.low} to {one.high}")
    if wrong:
        raise ValueError(
            "the present parameters are the first trial of a study, so they must lie within "
            "tune.space in params.yaml. Widen it, or change the parameter:\n"
            + "\n".join(f"  {line}" for line in wrong)
        )
    return {one.name: one.current for one in space}


def ends(one: Dimension) -> tuple[Any, ...]:
    """The values of a dimension that are the likeliest to be impossible."""
    return (one.low, one.high) if one.choices is None else one.choices


def parameters_of(space: Sequence[Dimension], point: Mapping[str, Any]) -> dict[str, Any]:
    """A point of the search as parameters: path -> value, numbers to four significant digits.

    Args:
        space: The dimensions; those that the point lacks are left out.
        point: Name of a dimension -> value.
    """
    found: dict[str, Any] = {}
    for one in space:
        if one.name not in point:
            continue
        value = point[one.name]
        if one.multiplies is None:
            found[one.name] = value if value == one.current else _rounded(value)
        else:
            for path, number in one.multiplies.items():
                found[path] = number if value == one.current else _rounded(number * value)
    return found


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def with_parameters(content: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested parameters in which some, named by their paths, have other values."""
    changed = copy.deepcopy(dict(content))
    for path, value in values.items():
        *groups, name = path.split(".")
        group: Any = changed
        for part in groups:
            group = group[part]
        group[name] = value
    return changed
