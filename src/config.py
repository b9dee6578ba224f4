"""params.yaml -> frozen, validated `Params`. Imports no TensorFlow.

The file is the only place where a parameter has a value: no default hides in code, or a changed
default would not be noticed by the pipeline. A wrong file yields every wrong line at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

ARCHITECTURES = ("unet", "unetpp", "attention_unet")  # src.models has the builders; a test compares
LOSS_PARAMETERS = {  # likewise: what src.models.losses takes beside class weights
    "categorical_cross_entropy": (),
    "dice": ("batch",),
    "dice_cross_entropy": ("batch",),
    "focal": ("gamma",),
    "tversky": ("batch", "alpha", "beta"),
    "focal_tversky": ("batch", "alpha", "beta", "gamma"),
}

ARCHITECTURE = "architecture"  # in tune.space: the network; architectures is a list
NOT_SEARCHED = {  # parameters of `train` that a study must not change, and why
    "architectures": f"name the networks under {ARCHITECTURE}",
    "train.seed": "the luckiest seed is no better model",
    "train.validation_cases": "it would change what the trials are measured on",
}

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
# YAML has lists where the code wants immutable tuples; only the container is converted.
Words = Annotated[tuple[str, ...], Strict(False)]
Pair = Annotated[tuple[Positive, Positive], Strict(False)]
Size = Annotated[
    tuple[Annotated[int, Field(ge=16, le=8192)], Annotated[int, Field(ge=16, le=8192)]],
    Strict(False),
]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Pictures(_Group):
    """HU and size of the pixels of picture files: HU = slope * stored value + intercept."""

    slope: Annotated[float, Field(gt=0)]
    intercept: float
    spacing_mm: Pair
    thickness_mm: Positive


class Data(_Group):
    """What the files under data/ hold."""

    classes: Words
    labels: dict[int | str, str]
    image_words: Words
    mask_words: Words
    patient: str | None
    source: str | None
    pictures: Pictures

    @model_validator(mode="after")
    def _consistent(self) -> Data:
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes must be two or more different names, got {self.classes}")
        if len(self.classes) > 256:
            raise ValueError(f"classes must be at most 256, got {len(self.classes)}")
        for name in self.classes:
            if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
                raise ValueError(
                    f"class names take letters, digits, '_', '.' and '-', got {name!r}"
                )
        for value, name in self.labels.items():
            if isinstance(value, str) and not re.fullmatch("#[0-9a-fA-F]{6}", value):
                raise ValueError(f"labels: key {value!r} is neither a whole number nor '#rrggbb'")
            if name not in self.classes:
                raise ValueError(
                    f"labels: {value!r} names the class {name!r}, which is not in classes "
                    f"{list(self.classes)}"
                )
        missing = set(self.classes) - set(self.labels.values())
        if missing:
            raise ValueError(f"labels: no mask value stands for {sorted(missing)}")
        for rule in ("patient", "source"):
            pattern = getattr(self, rule)
            if pattern is None or pattern == "dicom":
                continue
            try:
                groups = re.compile(pattern).groupindex
            except re.error as error:
                raise ValueError(
                    f"{rule}: {pattern!r} is no regular expression: {error}"
                ) from error
            if rule not in groups:
                raise ValueError(f"{rule}: {pattern!r} has no group named (?P<{rule}>…)")
        return self


class Audit(_Group):
    """The checks on the case table."""

    near_duplicate_correlation: Annotated[float, Field(ge=0.7, le=1)]


class Split(_Group):
    """Patients on one side each: train, validation, test."""

    seed: Annotated[int, Field(ge=0)]
    validation: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(gt=0, lt=1)]
    stratify_class: str
    test_patients: Words
    folds: Annotated[int, Field(ge=0)]
    fold: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Strict(False)]

    @model_validator(mode="after")
    def _consistent(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation ({self.validation}) and test ({self.test}) together must leave "
                "patients for training: their sum must be below 1"
            )
        if self.folds in (1, 2):
            raise ValueError(f"folds must be 0 (one split) or at least 3, got {self.folds}")
        folds = list(self.fold)
        if not folds or len(set(folds)) != len(folds):
            raise ValueError(f"fold must name one or more folds, each once, got {folds}")
        if max(folds) >= max(self.folds, 1):
            known = f"below folds ({self.folds})" if self.folds else "[0] where folds is 0"
            raise ValueError(f"fold must be {known}, got {folds}")
        if self.folds and self.test_patients:
            raise ValueError("folds and test_patients exclude each other: set one of them")
        return self


class LevelWidth(_Group):
    """A HU window by its middle and its width."""

    kind: Literal["level_width"]
    level: float
    width: Positive


class Percentiles(_Group):
    """A window by percentiles of the training slices' pixels."""

    kind: Literal["percentiles"]
    lower: Annotated[float, Field(ge=0, lt=100)]
    upper: Annotated[float, Field(gt=0, le=100)]

    @model_validator(mode="after")
    def _ordered(self) -> Percentiles:
        if self.lower >= self.upper:
            raise ValueError(f"lower ({self.lower}) must be below upper ({self.upper})")
        return self


class NoWindow(_Group):
    """All values as they are, scaled by the range of the training slices."""

    kind: Literal["none"]


class Prepare(_Group):
    """Files -> arrays."""

    window: Annotated[LevelWidth | Percentiles | NoWindow, Field(discriminator="kind")]
    size_mode: Literal["resize", "pad", "native"]
    image_size: Size
    pad_to_multiple: Annotated[int, Field(ge=1, le=512)]
    spacing_mm: Pair | Literal["median"] | None
    normalise: Literal["zscore", "unit"]


class Model(_Group):
    """The network."""

    depth: Annotated[int, Field(ge=1, le=7)]
    filters: Annotated[int, Field(ge=1, le=1024)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    normalisation: Literal["batch", "instance", "none"]
    upsampling: Literal["transpose", "bilinear", "nearest"]
    residual: bool
    deep_supervision: bool


class Loss(_Group):
    """What training makes small."""

    name: str
    class_weights: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Strict(False)] | None
    parameters: dict[str, bool | float]

    @model_validator(mode="after")
    def _known(self) -> Loss:
        if self.name not in LOSS_PARAMETERS:
            raise ValueError(f"name must be one of {list(LOSS_PARAMETERS)}, got {self.name!r}")
        known = LOSS_PARAMETERS[self.name]
        for parameter in self.parameters:
            if parameter not in known:
                raise ValueError(
                    f"parameters: {self.name} takes {list(known) or 'none'}, got {parameter!r}"
                )
        return self


class Sampling(_Group):
    """Which slices, or which patches of them, an epoch shows."""

    patch_size: Size | None
    foreground: Fraction
    cases_per_epoch: Annotated[int, Field(ge=1)] | None


class Augmentation(_Group):
    """How far training pictures are moved and changed; 0 switches one off."""

    flip_horizontal: Fraction
    flip_vertical: Fraction
    rotation_degrees: Annotated[float, Field(ge=0, le=180)]
    scale: Annotated[float, Field(ge=0, le=0.9)]
    shear_degrees: Annotated[float, Field(ge=0, le=45)]
    translation: Annotated[float, Field(ge=0, lt=1)]
    elastic: Annotated[float, Field(ge=0, le=0.1)]
    probability: Fraction
    blur: Annotated[float, Field(ge=0, le=10)]
    low_resolution: Annotated[float, Field(ge=0, le=8)]
    gamma: Annotated[float, Field(ge=0, lt=1)]
    contrast: Annotated[float, Field(ge=0, lt=1)]
    brightness: Annotated[float, Field(ge=0)]
    noise: Annotated[float, Field(ge=0)]


class Train(_Group):
    """The training of one network."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    epochs: Annotated[int, Field(ge=1)]
    max_minutes: Positive | None
    batch_size: Annotated[int, Field(ge=1)]
    optimizer: Literal["adam", "adamw"]
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0, lt=1)]
    warmup_epochs: Annotated[int, Field(ge=0)]
    patience: Annotated[int, Field(ge=1)]
    monitor: Literal["loss", "mean_iou"]
    validation_cases: Annotated[int, Field(ge=1)] | None
    precision: Literal["auto", "float32", "mixed_bfloat16"]
    overlay_every: Annotated[int, Field(ge=1)]
    context: Annotated[int, Field(ge=0, le=15)]
    model: Model
    loss: Loss
    sampling: Sampling
    augmentation: Augmentation

    @model_validator(mode="after")
    def _consistent(self) -> Train:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs ({self.warmup_epochs}) must be below epochs ({self.epochs})"
            )
        step = 2**self.model.depth
        if self.sampling.patch_size and any(side % step for side in self.sampling.patch_size):
            raise ValueError(
                f"sampling.patch_size must be divisible by {step} (model.depth "
                f"{self.model.depth}), got {list(self.sampling.patch_size)}"
            )
        return self


class Inference(_Group):
    """How a trained model segments; kept with the model."""

    overlap: Annotated[float, Field(ge=0, lt=1)]
    flips: bool
    postprocessing: bool
    calibration: bool


class Evaluate(_Group):
    """Scores on validation and test patients."""

    seed: Annotated[int, Field(ge=0)]
    bootstrap_resamples: Annotated[int, Field(ge=100, le=1_000_000)]
    tolerance_mm: Annotated[float, Field(ge=0)]
    overlay_patients: Annotated[int, Field(ge=1, le=20)]
    gallery_slices: Annotated[int, Field(ge=0, le=1000)]
    dropout_runs: Annotated[int, Field(ge=0, le=100)]


class Compare(_Group):
    """The choice among architectures, and the registry."""

    registered_model: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]


class Dimension(_Group):
    """One dimension of a search: numbers between two ends, both included, or choices."""

    low: int | float | None = None
    high: int | float | None = None
    scale: Literal["linear", "log"] | None = None
    choices: Annotated[tuple[bool | int | float | str | None, ...], Strict(False)] | None = None
    multiplies: Words | None = None

    @model_validator(mode="after")
    def _range_or_choices(self) -> Dimension:
        given = [name for name in ("low", "high", "scale") if getattr(self, name) is not None]
        if self.choices is not None:
            if given or self.multiplies:
                raise ValueError(f"choices stands alone, got {[*given, 'multiplies'][0]} as well")
            if len(self.choices) < 2 or len(set(self.choices)) != len(self.choices):
                raise ValueError(f"choices must be two or more, got {list(self.choices)}")
            return self
        if self.low is None or self.high is None or self.scale is None:
            raise ValueError(f"needs low, high and scale, or choices; got {given or 'neither'}")
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"low must be above 0 where scale is log, got {self.low}")
        return self


class Tune(_Group):
    """A search for better parameters: `python -m src.tune`. No stage reads it."""

    trials: Annotated[int, Field(ge=1, le=100_000)]
    minutes: Positive | None
    workers: Annotated[int, Field(ge=1, le=256)]
    storage: str | None
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    pruner: Literal["hyperband", "median", "none"]
    retries: Annotated[int, Field(ge=0, le=100)]
    heartbeat_seconds: Annotated[int, Field(ge=1, le=3600)]
    space: dict[str, Dimension]


class Params(_Group):
    """All of params.yaml."""

    data: Data
    audit: Audit
    split: Split
    prepare: Prepare
    architectures: Words
    train: Train
    inference: Inference
    evaluate: Evaluate
    compare: Compare
    tune: Tune

    @model_validator(mode="after")
    def _space_names_parameters(self) -> Params:
        known = [f"train.{name}" for name in leaves(self.train.model_dump())]
        wrong = []
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
                    wrong.append(f"tune.space.{key}: {reason}")
        if wrong:
            raise ValueError("\n  ".join(wrong))
        return self

    @model_validator(mode="after")
    def _groups_fit_together(self) -> Params:
        names = list(self.architectures)
        if not names or not set(names) <= set(ARCHITECTURES):
            raise ValueError(f"architectures must be among {list(ARCHITECTURES)}, got {names}")
        if len(set(names)) != len(names):
            raise ValueError(f"architectures names one twice: {names}")
        if self.split.stratify_class not in self.data.classes[1:]:
            raise ValueError(
                f"split.stratify_class must be one of {list(self.data.classes[1:])} (data.classes "
                f"without the background), got {self.split.stratify_class!r}"
            )
        weights = self.train.loss.class_weights
        if weights is not None and len(weights) != len(self.data.classes):
            raise ValueError(
                f"train.loss.class_weights must hold one number for each of the "
                f"{len(self.data.classes)} classes {list(self.data.classes)}, got {list(weights)}"
            )
        if weights is not None and not any(weights):
            raise ValueError("train.loss.class_weights must hold one number above 0")
        patch = self.train.sampling.patch_size
        if (
            patch
            and self.prepare.size_mode == "resize"
            and any(
                side > whole for side, whole in zip(patch, self.prepare.image_size, strict=True)
            )
        ):
            raise ValueError(
                f"train.sampling.patch_size {list(patch)} must fit into prepare.image_size "
                f"{list(self.prepare.image_size)}, or set prepare.size_mode: native"
            )
        step = 2**self.train.model.depth
        depth = self.train.model.depth
        if self.prepare.size_mode == "resize" and any(
            side % step for side in self.prepare.image_size
        ):
            raise ValueError(
                f"prepare.image_size must be divisible by {step} (train.model.depth {depth}), "
                f"got {list(self.prepare.image_size)}"
            )
        if self.prepare.size_mode != "resize" and self.prepare.pad_to_multiple % step:
            raise ValueError(
                f"prepare.pad_to_multiple must be divisible by {step} (train.model.depth {depth}), "
                f"got {self.prepare.pad_to_multiple}"
            )
        if self.prepare.size_mode == "resize" and self.prepare.spacing_mm is not None:
            raise ValueError(
                "prepare.spacing_mm must be null where prepare.size_mode is resize, which gives "
                f"every slice prepare.image_size whatever its pixels; got {self.prepare.spacing_mm}"
                ". Set prepare.size_mode: native or pad"
            )
        if self.prepare.size_mode == "pad" and any(
            side % self.prepare.pad_to_multiple for side in self.prepare.image_size
        ):
            raise ValueError(
                "prepare.image_size must be divisible by prepare.pad_to_multiple "
                f"({self.prepare.pad_to_multiple}), got {list(self.prepare.image_size)}"
            )
        return self


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
        lines = _wrong_lines(content, error.errors())
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


def _wrong_lines(content: Any, entries: Sequence[Any]) -> list[str]:
    """One line of the error message for each pydantic error.

    A misspelt name is one mistake, although pydantic counts it as an unknown and a missing one.
    """
    located = [(*_locate(content, entry), entry) for entry in entries]
    meant = {
        (*where[:-1], _likely_name(where))
        for where, _, _, entry in located
        if entry["type"] == "extra_forbidden"
    }
    return [
        _wrong_line(*one)
        for one in located
        if not (one[-1]["type"] == "missing" and tuple(one[0]) in meant)
    ]


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


def _wrong_line(where: list[Any], line: int | None, node: Any, entry: Any) -> str:
    name = ".".join(str(part) for part in where)
    expected = str(entry["msg"]).removeprefix("Value error, ")
    expected = expected[0].lower() + expected[1:]
    prefix = f"line {line}: " if line else ""
    if entry["type"] == "missing":
        return f"{prefix}{name}: missing; add it (`git diff params.yaml` shows what was removed)"
    if entry["type"] == "extra_forbidden":
        close = _likely_name(where)
        hint = f"; did you mean {close}?" if close else "; remove it"
        return f"{prefix}{name}: unknown parameter{hint}"
    if entry["type"] == "value_error":
        return f"{prefix}{name}: {expected}" if name else f"{prefix}{expected}"
    return f"{prefix}{name}: got {node!r}, {expected}"


def _likely_name(where: list[Any]) -> str | None:
    """What the last name of the path `where` was meant to be; None where nothing is like it."""
    close = difflib.get_close_matches(str(where[-1]), _siblings(where), n=1)
    return close[0] if close else None


def _siblings(where: list[Any]) -> list[str]:
    """The names that the group holding the parameter `where` knows."""
    groups: list[Any] = [Params]
    for part in where[:-1]:
        annotations = [
            group.model_fields[part].annotation for group in groups if part in group.model_fields
        ]
        kinds = [kind for found in annotations for kind in (get_args(found) or (found,))]
        groups = [kind for kind in kinds if hasattr(kind, "model_fields")]
    return [name for group in groups for name in group.model_fields]


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
