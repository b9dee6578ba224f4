"""What is wrong in params.yaml, line by line, in words that say how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel


def wrong_lines(content: Any, entries: Sequence[Any], known: type[BaseModel]) -> list[str]:
    """One line of the error message for each pydantic error.

    A misspelt name is one mistake, although pydantic counts it as an unknown and a missing one.

    Args:
        content: The file as ruamel reads it, with the lines of its nodes.
        entries: Of a `ValidationError`.
        known: The model that the file was checked against.
    """
    located = [
        (*_locate(content, one), one) for entry in entries for one in _one_by_one(content, entry)
    ]
    meant = {
        (*where[:-1], _likely_name(where, known))
        for where, _, _, entry in located
        if entry["type"] == "extra_forbidden"
    }
    return [
        _wrong_line(*one, known)
        for one in located
        if not (one[-1]["type"] == "missing" and tuple(one[0]) in meant)
    ]


def _one_by_one(content: Any, entry: Any) -> Iterator[Any]:
    """A pydantic error; one for each parameter where several do not fit each other."""
    mismatches = getattr(entry.get("ctx", {}).get("error"), "mismatches", None)
    if mismatches is None:
        yield entry
        return
    group = content
    for part in entry["loc"]:
        group = group.get(part, group)  # a discriminator stands in the location alone
    for name, reason in mismatches:
        yield {**entry, "loc": (*entry["loc"], *_parts(name, group)), "msg": reason}


def _parts(name: str, group: Any) -> list[str]:
    """A path such as `model.depth` one by one; a name in the file may hold dots itself."""
    if not name or name in group:
        return [name] * bool(name)
    first, _, rest = name.partition(".")
    return [first, *_parts(rest, group[first])]


def _locate(content: Any, entry: Any) -> tuple[list[Any], int | None, Any]:
    """Where a pydantic error lies in the file: the path to it, its line, what stands there."""
    # Discriminators and the branches of a union stand in pydantic's location but not in the file.
    where: list[Any] = []
    line = None
    node: Any = content
    for part in entry["loc"]:
        try:
            # ruamel's mappings and sequences know the lines of what they hold.
            lines: Any = node.lc
            position = lines.value(part) if isinstance(node, dict) else lines.item(part)
            node = node[part]
        except (KeyError, IndexError, TypeError, AttributeError):
            if entry["type"] == "missing" and part == entry["loc"][-1]:
                where.append(part)
            continue
        where.append(part)
        line = position[0] + 1
    return where, line, node


def _wrong_line(
    where: list[Any], line: int | None, node: Any, entry: Any, known: type[BaseModel]
) -> str:
    name = ".".join(str(part) for part in where)
    expected = str(entry["msg"]).removeprefix("Value error, ")
    if entry["type"] == "tuple_type":
        expected = "a list was expected, such as "
        expected += "[1, 2]" if node is None or isinstance(node, dict) else f"[{node}]"
    expected = expected[0].lower() + expected[1:]
    prefix = f"line {line}: " if line else ""
    if entry["type"] == "missing":
        return f"{prefix}{name}: missing; add it (`git diff params.yaml` shows what was removed)"
    if entry["type"] == "extra_forbidden":
        close = _likely_name(where, known)
        hint = f"; did you mean {close}?" if close else "; remove it"
        return f"{prefix}{name}: unknown parameter{hint}"
    if entry["type"] == "value_error":
        return f"{prefix}{name}: {expected}" if name else f"{prefix}{expected}"
    return f"{prefix}{name}: got {node!r}, {expected}"


def _likely_name(where: list[Any], known: type[BaseModel]) -> str | None:
    """What the last name of the path `where` was meant to be; None where nothing is like it."""
    close = difflib.get_close_matches(str(where[-1]), _siblings(where, known), n=1)
    return close[0] if close else None


def _siblings(where: list[Any], known: type[BaseModel]) -> list[str]:
    """The names that the group holding the parameter `where` knows."""
    groups: list[Any] = [known]
    for part in where[:-1]:
        annotations = [
            group.model_fields[part].annotation for group in groups if part in group.model_fields
        ]
        kinds = [kind for found in annotations for kind in (get_args(found) or (found,))]
        groups = [kind for kind in kinds if hasattr(kind, "model_fields")]
    return [name for group in groups for name in group.model_fields]
