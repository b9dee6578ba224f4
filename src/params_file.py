"""Changes values in params.yaml and nothing else: comments and layout stay as they are."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML


def with_values(text: str, values: Mapping[str, Any]) -> str:
    """The text of a YAML file in which some values are others.

    Args:
        text: The file: nested groups.
        values: Path, such as train.learning_rate, -> number, word, null or list of them.

    Raises:
        ValueError: The file has no such value.
    """
    spans = []
    for path, value in values.items():
        node = YAML().compose(io.StringIO(text))
        key = node
        for part in path.split("."):
            pairs = node.value if node is not None and node.id == "mapping" else []
            key, node = next((pair for pair in pairs if pair[0].value == part), (None, None))
        if node is None:
            raise ValueError(f"params.yaml has no {path}. It was changed meanwhile: put it back.")
        start, end, written = node.start_mark.index, node.end_mark.index, _written(value)
        if start == end or (node.id == "sequence" and not node.flow_style):
            # An empty value, or a list with a line for each entry: all behind the key goes.
            start, written = key.end_mark.index, f": {written}"
            end = start + max(1, len(text[start:end].rstrip()))
        spans.append((start, end, written))
    for start, end, written in sorted(spans, reverse=True):
        text = text[:start] + written + text[end:]
    return text


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    # Words that YAML would not take for words are quoted.
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z]\w+", value) and value not in _OTHERS:
        return value
    return json.dumps(value)


_OTHERS = {"true", "false", "null", "True", "False", "Null", "TRUE", "FALSE", "NULL"}
