"""What the files in reports/ hold, as far as the report shows it; anything else in them is let be.

Numbers that could not be computed are null in these files and None here.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Number = float | None
ByClass = dict[str, Number]


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Finding(_Content):
    """Problems of one kind that the audit found."""

    kind: str
    severity: str
    meaning: str
    count: int


class Range(_Content):
    """Slices of a patient."""

    least: int
    median: float
    most: int


class Spacing(_Content):
    """Slices of one spacing; null where the files do not tell."""

    spacing_y_mm: Number
    spacing_x_mm: Number
    thickness_mm: Number
    slices: int


class Size(_Content):
    """Slices of one size in pixels."""

    height: int
    width: int
    slices: int


class Audit(_Content):
    """reports/audit.json."""

    errors: int
    warnings: int
    findings: list[Finding]
    patients: int
    slices: int
    slices_per_patient: Range
    share_of_pixels: dict[str, float]
    slices_with: dict[str, int]
    patients_with: dict[str, int]
    patients_by_source: dict[str, int]
    sizes: list[Size]
    spacings_mm: list[Spacing]
    stored_types: dict[str, int]
    intensity_hu: dict[str, Number]


class Side(_Content):
    """One side of a fold in reports/split.json."""

    patients: int
    slices: int
    slices_with: dict[str, int]
    share_of_pixels: dict[str, float]
    patients_by_source: dict[str, int]


class Fold(_Content):
    """A fold in reports/split.json."""

    train: Side
    validation: Side
    test: Side


class Mean(_Content):
    """A mean over patients with its interval; no ends where there was a single patient."""

    mean: Number
    low: Number
    high: Number


class Trained(_Content):
    """How a model came about: the content of its run.json."""

    architecture: str
    run_id: str
    recipe: str
    parameters: int
    precision: str
    machine: str
    epochs: int
    best_epoch: int
    seconds: float
    peak_memory_mb: Number
    data_hash: str
    split_hash: str
    git_commit: str
    git_dirty: str


class Summary(_Content):
    """One side in scores.json: quantity -> class -> number."""

    dice: ByClass
    dice_low: ByClass
    dice_high: ByClass
    dice_slice_mean: ByClass
    dice_pooled: ByClass
    iou: ByClass
    iou_low: ByClass
    iou_high: ByClass
    iou_slice_mean: ByClass
    iou_pooled: ByClass
    precision: ByClass
    precision_low: ByClass
    precision_high: ByClass
    recall: ByClass
    recall_low: ByClass
    recall_high: ByClass
    hd95_mm: ByClass
    hd95_mm_low: ByClass
    hd95_mm_high: ByClass
    assd_mm: ByClass
    assd_mm_low: ByClass
    assd_mm_high: ByClass
    nsd: ByClass
    nsd_low: ByClass
    nsd_high: ByClass
    num_scored: dict[str, int]
    num_unscored: dict[str, int]
    num_false_positive_patients: dict[str, int]
    num_one_empty_cases: dict[str, int]

    def mean(self, quantity: str, label: str) -> Mean:
        """The mean of a quantity, such as "dice", with its interval; empty where not scored."""
        values = (getattr(self, f"{quantity}{end}").get(label) for end in ("", "_low", "_high"))
        return Mean(**dict(zip(("mean", "low", "high"), values, strict=True)))

    def levels(self, quantity: str, label: str) -> list[tuple[str, float]]:
        """What stands below the mean over patients: the mean over slices, and all pixels pooled.

        Empty for quantities other than "dice" and "iou", and where the class is not scored.
        """
        if quantity not in ("dice", "iou"):
            return []
        found = (("slices", "slice_mean"), ("pooled", "pooled"))
        values = [(title, getattr(self, f"{quantity}_{end}").get(label)) for title, end in found]
        return [(title, value) for title, value in values if value is not None]


class Scores(_Content):
    """scores.json of a model of one fold."""

    trained: Trained
    validation: Summary
    test: Summary
    seconds_per_slice: Number


class Bin(_Content):
    """A bin of the reliability diagram; no confidence and accuracy where it holds no pixel."""

    low: float
    high: float
    count: int
    confidence: Number
    accuracy: Number


class Reliability(_Content):
    """How far the probabilities are right."""

    ece: Number
    ace: Number
    brier: Number
    nll: Number
    bins: list[Bin]


class BeforeAfter(_Content):
    """Before and after temperature scaling."""

    before: Reliability
    after: Reliability


class Regions(_Content):
    """Of all pixels, and of the ring around the boundaries."""

    all_pixels: BeforeAfter
    boundary: BeforeAfter


class Calibration(_Content):
    """calibration.json; its state is that of `ModelCard.calibration`."""

    temperature: float
    state: Literal["off", "fitted", "at_limit", "unknown"]
    validation: Regions
    test: Regions


class Uncertainty(_Content):
    """What one way to measure uncertainty is worth."""

    seconds_per_slice: Number
    samples: int
    spearman: Number
    pearson: Number
    aurc: Number
    aurc_ideal: Number
    aurc_random: Number
    gain: Number = None
    coverage: list[float]
    risk: list[Number]
    cases: int


class UncertaintyFile(_Content):
    """uncertainty.json: the ways that were tried."""

    test: dict[str, Uncertainty]


class GalleryCase(_Content):
    """A case of the gallery."""

    file: str
    case: str
    patient: str
    source: str
    class_name: str = Field(alias="class")
    dice: Number
    hd95_mm: Number
    uncertainty: Number
    truth_mm2: float
    predicted_mm2: float
    tags: list[str]


class Stratum(_Content):
    """The Dice of some of the slices: a mean over patients with its interval."""

    name: str
    slices: int
    patients: int
    mean: Number
    low: Number
    high: Number


class DiceBySize(_Content):
    """dice_by_size.json."""

    class_name: str = Field(alias="class")
    by_size: list[Stratum]
    by_source: list[Stratum]


class ComparedModel(_Content):
    """A row of the comparison; an external model says less of itself."""

    name: str
    validation_dice: Number = None
    test_dice: Number
    test_low: Number
    test_high: Number
    parameters: int | None = None
    seconds_training: Number = None
    seconds_per_slice: Number = None
    peak_memory_mb: Number = None
    external: bool


class Pair(_Content):
    """Two models, paired over patients."""

    first: str
    second: str
    class_name: str = Field(alias="class")
    difference: Number
    low: Number
    high: Number
    p: Number
    p_holm: Number
    pairs: int
    dropped: int
    note: str | None = None


class Comparison(_Content):
    """reports/comparison.json."""

    champion: str
    rule: str
    few_test_patients: int | None
    models: list[ComparedModel]
    pairs: list[Pair]
