"""The groups of params.yaml: what each parameter is, and which values it can have."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, model_validator

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


class Group(BaseModel):
    """Frozen, strict, and without names that are not known."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


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

    @model_validator(mode="after")
    def _ordered(self) -> Percentiles:
        if self.lower >= self.upper:
            raise ValueError(f"lower ({self.lower}) must be below upper ({self.upper})")
        return self


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

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        weights = self.deep_supervision
        if not isinstance(weights, bool) and (len(weights) != self.depth or not weights[0]):
            raise ValueError(
                f"deep_supervision must be true, false or as many weights as depth ({self.depth}), "
                f"the first above 0, got {list(weights)}"
            )
        return self


class Loss(Group):
    """What training makes small."""

    name: str
    class_weights: Weights | None
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


class Tune(Group):
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
