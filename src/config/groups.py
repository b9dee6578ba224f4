"""The groups of params.yaml: what each parameter is, and which values it can have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, model_validator

from src.label_values import label_value

ARCHITECTURES = ("unet", "unetpp", "attention_unet")  # src.models has the builders; a test compares
LOSS_PARAMETERS = {  # likewise: what src.models.losses takes beside class weights
    "categorical_cross_entropy": (),
    "dice": ("batch",),
    "dice_cross_entropy": ("batch",),
    "focal": ("gamma",),
    "tversky": ("batch", "alpha", "beta"),
    "focal_tversky": ("batch", "alpha", "beta", "gamma"),
}

MEAN_OF_CLASSES = "mean_foreground"  # likewise: what src.evaluation.overlap calls the mean

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


def _known_and_different(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or not set(names) <= set(ARCHITECTURES):
        raise ValueError(f"must be among {list(ARCHITECTURES)}, got {list(names)}")
    if len(set(names)) != len(names):
        raise ValueError(f"names one twice: {list(names)}")
    return names


Architectures = Annotated[Words, AfterValidator(_known_and_different)]
Weights = Annotated[tuple[Annotated[float, Field(ge=0)], ...], Strict(False)]
Pair = Annotated[tuple[Positive, Positive], Strict(False)]
Size = Annotated[
    tuple[Annotated[int, Field(ge=16, le=8192)], Annotated[int, Field(ge=16, le=8192)]],
    Strict(False),
]


class Mismatch(NamedTuple):
    """A parameter (its path within the group), and why it does not fit the others."""

    name: str
    reason: str


class MismatchError(ValueError):
    """Parameters that are possible one by one, and not together."""

    def __init__(self, mismatches: Sequence[Mismatch]) -> None:
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in mismatches))
        self.mismatches = mismatches


class Group(BaseModel):
    """Frozen, strict, without names that are not known; its parameters fit each other."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if mismatches := [*self.mismatches()]:
            raise MismatchError(mismatches)
        return self

    def mismatches(self) -> Iterator[Mismatch]:
        """What does not fit together, where every parameter by itself is possible."""
        yield from ()


class Pictures(Group):
    """HU and size of the pixels of picture files: HU = slope * stored value + intercept."""

    slope: Annotated[float, Field(gt=0)]
    intercept: float
    spacing_mm: Pair
    thickness_mm: Positive


class Data(Group):
    """What the files under data/ hold."""

    classes: Words
    labels: dict[int | str, str]
    image_words: Words
    mask_words: Words
    patient: str | None
    source: str | None
    pictures: Pictures

    def mismatches(self) -> Iterator[Mismatch]:
        """Of classes, labels and rules."""
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            yield Mismatch(
                "classes", f"must be two or more different names, got {list(self.classes)}"
            )
        if len(self.classes) > 256:
            yield Mismatch("classes", f"must be at most 256, got {len(self.classes)}")
        for name in self.classes:
            if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
                yield Mismatch(
                    "classes", f"names take letters, digits, '_', '.' and '-', got {name!r}"
                )
        if MEAN_OF_CLASSES in self.classes:
            yield Mismatch(
                "classes",
                f"{MEAN_OF_CLASSES!r} names the mean over classes in every table of scores: rename "
                "the class",
            )
        known: dict[int, int | str] = {}
        for value, name in self.labels.items():
            if isinstance(value, str) and not re.fullmatch("#[0-9a-fA-F]{6}", value):
                yield Mismatch("labels", f"key {value!r} is neither a whole number nor '#rrggbb'")
            elif (first := known.setdefault(label_value(value), value)) is not value:
                yield Mismatch(
                    "labels", f"keys {first!r} and {value!r} are the same in a mask: keep one"
                )
            if name not in self.classes:
                yield Mismatch(
                    "labels",
                    f"{value!r} names the class {name!r}, which is not in classes "
                    f"{list(self.classes)}",
                )
        missing = set(self.classes) - set(self.labels.values())
        if missing:
            yield Mismatch("labels", f"no mask value stands for {sorted(missing)}")
        for rule in ("patient", "source"):
            pattern = getattr(self, rule)
            if pattern is None or pattern == "dicom":
                continue
            try:
                groups = re.compile(pattern).groupindex
            except re.error as error:
                yield Mismatch(rule, f"{pattern!r} is no regular expression: {error}")
                continue
            if rule not in groups:
                yield Mismatch(rule, f"{pattern!r} has no group named (?P<{rule}>…)")


class Audit(Group):
    """The checks on the case table."""

    near_duplicate_correlation: Annotated[float, Field(ge=0.7, le=1)]


class Split(Group):
    """Patients on one side each: train, validation, test."""

    seed: Annotated[int, Field(ge=0)]
    validation: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(gt=0, lt=1)]
    stratify_class: str
    test_patients: Words
    folds: Annotated[int, Field(ge=0)]
    fold: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Strict(False)]

    def mismatches(self) -> Iterator[Mismatch]:
        """Of the shares, and of the folds."""
        if self.validation + self.test >= 1:
            yield Mismatch(
                "validation",
                f"{self.validation} and test ({self.test}) together must leave patients for "
                "training: their sum must be below 1",
            )
        folds = list(self.fold)
        if self.folds in (1, 2):
            yield Mismatch("folds", f"must be 0 (one split) or at least 3, got {self.folds}")
        elif not folds or len(set(folds)) != len(folds):
            yield Mismatch("fold", f"must name one or more folds, each once, got {folds}")
        elif max(folds) >= max(self.folds, 1):
            known = f"below folds ({self.folds})" if self.folds else "[0] where folds is 0"
            yield Mismatch("fold", f"must be {known}, got {folds}")
        if self.folds and self.test_patients:
            yield Mismatch(
                "test_patients", f"must be [] where folds ({self.folds}) is not 0, or folds 0"
            )


class LevelWidth(Group):
    """A HU window by its middle and its width."""

    kind: Literal["level_width"]
    level: float
    width: Positive


class Percentiles(Group):
    """A window by percentiles of the training slices' pixels."""

    kind: Literal["percentiles"]
    lower: Annotated[float, Field(ge=0, lt=100)]
    upper: Annotated[float, Field(gt=0, le=100)]

    def mismatches(self) -> Iterator[Mismatch]:
        """Of the two ends."""
        if self.lower >= self.upper:
            yield Mismatch("lower", f"must be below upper ({self.upper}), got {self.lower}")


class NoWindow(Group):
    """All values as they are, scaled by the range of the training slices."""

    kind: Literal["none"]


class Prepare(Group):
    """Files -> arrays."""

    window: Annotated[LevelWidth | Percentiles | NoWindow, Field(discriminator="kind")]
    size_mode: Literal["resize", "pad", "native"]
    image_size: Size
    pad_to_multiple: Annotated[int, Field(ge=1, le=512)]
    spacing_mm: Pair | Literal["median"] | None
    normalise: Literal["zscore", "unit"]


class Model(Group):
    """The network."""

    depth: Annotated[int, Field(ge=1, le=7)]
    filters: Annotated[int, Field(ge=1, le=1024)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    normalisation: Literal["batch", "instance", "none"]
    upsampling: Literal["transpose", "bilinear", "nearest"]
    residual: bool
    deep_supervision: bool | Weights

    def mismatches(self) -> Iterator[Mismatch]:
        """Of the outputs and their weights."""
        weights = self.deep_supervision
        if not isinstance(weights, bool) and (len(weights) != self.depth or not weights[0]):
            yield Mismatch(
                "deep_supervision",
                f"must be true, false or as many weights as depth ({self.depth}), the first above "
                f"0, got {list(weights)}",
            )


class Loss(Group):
    """What training makes small."""

    name: str
    class_weights: Weights | None
    parameters: dict[str, bool | float]

    def mismatches(self) -> Iterator[Mismatch]:
        """Of the name, and of what this loss takes."""
        if self.name not in LOSS_PARAMETERS:
            yield Mismatch("name", f"must be one of {list(LOSS_PARAMETERS)}, got {self.name!r}")
            return
        known = LOSS_PARAMETERS[self.name]
        for parameter in self.parameters:
            if parameter not in known:
                yield Mismatch(
                    "parameters", f"{self.name} takes {list(known) or 'none'}, got {parameter!r}"
                )


class Sampling(Group):
    """Which slices, or which patches of them, an epoch shows."""

    patch_size: Size | None
    foreground: Fraction
    cases_per_epoch: Annotated[int, Field(ge=1)] | None


class Augmentation(Group):
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


class Train(Group):
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

    def mismatches(self) -> Iterator[Mismatch]:
        """Of the epochs, and of the patches and the network."""
        if self.warmup_epochs >= self.epochs:
            yield Mismatch(
                "warmup_epochs", f"must be below epochs ({self.epochs}), got {self.warmup_epochs}"
            )
        step, patch = 2**self.model.depth, self.sampling.patch_size
        if patch and any(side % step for side in patch):
            yield Mismatch(
                "sampling.patch_size",
                f"must be divisible by {step} (model.depth {self.model.depth}), got {list(patch)}",
            )


class Inference(Group):
    """How a trained model segments; kept with the model."""

    engine: Literal["auto", "keras", "openvino"]
    overlap: Annotated[float, Field(ge=0, lt=1)]
    flips: bool
    postprocessing: bool
    calibration: bool


class Evaluate(Group):
    """Scores on validation and test patients."""

    seed: Annotated[int, Field(ge=0)]
    bootstrap_resamples: Annotated[int, Field(ge=100, le=1_000_000)]
    tolerance_mm: Annotated[float, Field(ge=0)]
    overlay_patients: Annotated[int, Field(ge=1, le=20)]
    gallery_slices: Annotated[int, Field(ge=0, le=1000)]
    dropout_runs: Annotated[int, Field(ge=0, le=100)]

    def mismatches(self) -> Iterator[Mismatch]:
        """Of the looks with dropout, which are compared with each other."""
        if self.dropout_runs == 1:
            yield Mismatch("dropout_runs", "must be 0 (none) or at least 2, got 1")


class Compare(Group):
    """The choice among architectures, and the registry."""

    registered_model: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]


class Dimension(Group):
    """One dimension of a search: numbers between two ends, both included, or choices."""

    low: int | float | None = None
    high: int | float | None = None
    scale: Literal["linear", "log"] | None = None
    choices: Annotated[tuple[bool | int | float | str | None, ...], Strict(False)] | None = None
    multiplies: Words | None = None

    def mismatches(self) -> Iterator[Mismatch]:
        """Of ends and choices; of the dimension as a whole where no one line is wrong."""
        given = [name for name in ("low", "high", "scale") if getattr(self, name) is not None]
        if self.choices is not None:
            if given or self.multiplies:
                yield Mismatch("", f"choices stands alone, got {[*given, 'multiplies'][0]} as well")
            if len(self.choices) < 2 or len(set(self.choices)) != len(self.choices):
                yield Mismatch("choices", f"must be two or more, got {list(self.choices)}")
        elif self.low is None or self.high is None or self.scale is None:
            yield Mismatch("", f"needs low, high and scale, or choices; got {given or 'neither'}")
        elif self.low >= self.high:
            yield Mismatch("low", f"must be below high ({self.high}), got {self.low}")
        elif self.scale == "log" and self.low <= 0:
            yield Mismatch("low", f"must be above 0 where scale is log, got {self.low}")


def _without_password(address: str) -> str:
    # What is wrong is not shown: whoever sees the message need not know it.
    if re.search(r":(?!//)\S*@|password=", address):
        raise ValueError(
            "must hold no password, as this file is committed: set it to null, and give the "
            "address in OPTUNA_STORAGE (export OPTUNA_STORAGE=postgresql://USER:PASSWORD@HOST/NAME)"
        )
    return address


class Tune(Group):
    """A search for better parameters: `python -m src.tune`. No stage reads it."""

    trials: Annotated[int, Field(ge=1, le=100_000)]
    minutes: Positive | None
    workers: Annotated[int, Field(ge=1, le=256)]
    storage: Annotated[str, AfterValidator(_without_password)] | None
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    pruner: Literal["hyperband", "median", "none"]
    retries: Annotated[int, Field(ge=0, le=100)]
    heartbeat_seconds: Annotated[int, Field(ge=1, le=3600)]
    space: dict[str, Dimension]
