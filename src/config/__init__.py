"""params.yaml -> frozen, validated `Params`. Imports no TensorFlow.

The file is the only place where a parameter has a value: no default hides in code, or a changed
default would not be noticed by the pipeline. A wrong file yields every wrong line at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from src.config.groups import (
    ARCHITECTURE,
    ARCHITECTURES,
    LOSS_PARAMETERS,
    NOT_SEARCHED,
    Architectures,
    Audit,
    Compare,
    Data,
    Evaluate,
    Group,
    Inference,
    Mismatch,
    Prepare,
    Split,
    Train,
    Tune,
)
from src.config.messages import wrong_lines

__all__ = [
    "ARCHITECTURE",
    "ARCHITECTURES",
    "LOSS_PARAMETERS",
    "Evaluate",
    "Params",
    "Split",
    "leaves",
    "load_params",
    "public_parameters",
    "truth_parameters",
]


class Params(Group):
    """All of params.yaml."""

    data: Data
    audit: Audit
    split: Split
    prepare: Prepare
    architectures: Architectures
    train: Train
    inference: Inference
    evaluate: Evaluate
    compare: Compare
    tune: Tune

    def mismatches(self) -> Iterator[Mismatch]:
        """Between the groups."""
        yield from self._of_classes()
        yield from self._of_sizes()
        yield from self._of_the_space()

    def _of_classes(self) -> Iterator[Mismatch]:
        classes = list(self.data.classes)
        if self.split.stratify_class not in classes[1:]:
            yield Mismatch(
                "split.stratify_class",
                f"must be one of {classes[1:]} (data.classes without the background), got "
                f"{self.split.stratify_class!r}",
            )
        weights = self.train.loss.class_weights
        if weights is not None and len(weights) != len(classes):
            yield Mismatch(
                "train.loss.class_weights",
                f"must hold one number for each of the {len(classes)} classes {classes}, got "
                f"{list(weights)}",
            )
        elif weights is not None and not any(weights):
            yield Mismatch("train.loss.class_weights", "must hold one number above 0")

    def _of_sizes(self) -> Iterator[Mismatch]:
        prepare, patch, depth = self.prepare, self.train.sampling.patch_size, self.train.model.depth
        size, step = list(prepare.image_size), 2**depth
        divisible = f"must be divisible by {step} (train.model.depth {depth}), got"
        if prepare.size_mode == "resize":
            if any(side % step for side in size):
                yield Mismatch("prepare.image_size", f"{divisible} {size}")
            if patch and any(side > whole for side, whole in zip(patch, size, strict=True)):
                yield Mismatch(
                    "train.sampling.patch_size",
                    f"must fit into prepare.image_size {size}, got {list(patch)}; or set "
                    "prepare.size_mode: native",
                )
            if prepare.spacing_mm is not None:
                yield Mismatch(
                    "prepare.spacing_mm",
                    "must be null where prepare.size_mode is resize, which gives every slice "
                    f"prepare.image_size whatever its pixels; got {prepare.spacing_mm}. Set "
                    "prepare.size_mode: native or pad",
                )
            return
        multiple = prepare.pad_to_multiple
        if multiple % step:
            yield Mismatch("prepare.pad_to_multiple", f"{divisible} {multiple}")
        if prepare.size_mode == "pad" and any(side % multiple for side in size):
            yield Mismatch(
                "prepare.image_size",
                f"must be divisible by prepare.pad_to_multiple ({multiple}), got {size}",
            )

    def _of_the_space(self) -> Iterator[Mismatch]:
        known = [f"train.{name}" for name in leaves(self.train.model_dump())]
        for key, dimension in self.tune.space.items():
            for name in [key] if dimension.multiplies is None else dimension.multiplies:
                if name == ARCHITECTURE and dimension.choices:
                    unknown = [c for c in dimension.choices if c not in ARCHITECTURES]
                    reason = f"must be among {list(ARCHITECTURES)}, got {unknown}" * bool(unknown)
                elif name in NOT_SEARCHED:
                    reason = f"{name} cannot be searched: {NOT_SEARCHED[name]}"
                elif name.split(".")[0] in set(Params.model_fields) - {"train"}:
                    reason = (
                        f"{name} cannot be searched: the trials of a study share the prepared "
                        "arrays and are measured alike. Only parameters of train can be"
                    )
                elif name not in known:
                    near = difflib.get_close_matches(name, [*known, ARCHITECTURE], n=3, cutoff=0.5)
                    reason = f"{name} is no parameter" + (
                        f"; did you mean {' or '.join(near)}?" if near else " of train"
                    )
                else:
                    reason = ""
                if reason:
                    yield Mismatch(f"tune.space.{key}", reason)


def leaves(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested parameters as `{"model.depth": 4}`; an empty group has no leaf."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        inner = isinstance(value, Mapping)
        flat |= leaves(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def load_params(path: Path) -> Params:
    """Reads and checks params.yaml.

    Args:
        path: The YAML file.

    Returns:
        The parameters, frozen.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: One message with every wrong line: its number, the parameter, what was found
            and what was expected.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.name} is missing: it holds every parameter. Restore it with "
            f"`git checkout {path.name}`."
        )
    # YAML 1.2, because PyYAML's 1.1 reads `1e-3` as a string; round-trip for line numbers.
    yaml = YAML(typ="rt")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise ValueError(f"{path.name} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path.name} must hold groups of parameters, got {type(content).__name__}"
        )
    try:
        return Params.model_validate(_plain(content))
    except ValidationError as error:
        lines = wrong_lines(content, error.errors(), Params)
        raise ValueError(
            f"{path.name} has {len(lines)} wrong {'line' if len(lines) == 1 else 'lines'}:\n"
            + "\n".join(f"  {line}" for line in lines)
        ) from None


def _plain(node: Any) -> Any:
    """Ruamel's round-trip nodes -> plain Python, which strict validation asks for."""
    if isinstance(node, dict):
        return {
            (int(key) if isinstance(key, int) else str(key)): _plain(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_plain(value) for value in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def truth_parameters(params: Params) -> dict[str, Any]:
    """What the values in masks mean: scores under another meaning cannot be compared."""
    return {
        "classes": list(params.data.classes),
        "labels": {str(value): name for value, name in params.data.labels.items()},
    }


def public_parameters(params: Params, architecture: str, fold: int | None = None) -> dict[str, Any]:
    """The parameters as MLflow may hold them: no patients' names, one architecture, no `tune`.

    Args:
        params: All parameters.
        architecture: The one of the run.
        fold: The one of the run; None for all of `split.fold` together.
    """
    content = params.model_dump()
    content["split"]["test_patients"] = len(content["split"]["test_patients"])
    if fold is not None:
        content["split"]["fold"] = fold
    content.pop("tune")  # it decides nothing about a model
    content.pop("architectures")
    return {"architecture": architecture, **content}
