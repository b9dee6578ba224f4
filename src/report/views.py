"""From results to what the template prints: charts, the panel of each model, facts of the card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from markupsafe import Markup

from src.report import charts
from src.report.formats import BeforeAfter, GalleryCase, Mean, Stratum
from src.report.pictures import BUDGET_BYTES, Picture, embed
from src.report.results import FEW_PATIENTS, MEAN, Model, Results, fold_words, number

_CURVES = ("loss", "mean_iou", "accuracy")  # first among the curves, in this order


@dataclass(frozen=True)
class Panel:
    """One model of one fold, as the page shows it.

    Attributes:
        key: For ids in the page.
        title: "unetpp", or "unetpp, fold 1".
        model: Its results.
        curves: Title and chart of each quantity.
        reliability: Title and chart of each region.
        risk: The risk-coverage chart.
        sizes: Dice by size; None where no slice was scored.
        sources: Dice by scanner or site, likewise.
        gallery: Cases with their pictures.
        tags: Tag -> number of cases of the gallery; "" for cases without one.
    """

    key: str
    title: str
    model: Model
    curves: list[tuple[str, Markup]]
    reliability: list[tuple[str, Markup]]
    risk: Markup
    sizes: Markup | None
    sources: Markup | None
    gallery: list[tuple[GalleryCase, Picture]]
    tags: dict[str, int]


@dataclass(frozen=True)
class Facts:
    """What the model card and its limits say.

    Attributes:
        spacings: Least and greatest in-plane spacing and thickness in mm; None where unknown.
        unseen: Sources of test patients of which no patient was trained on.
        sources: All sources that are told.
        trained_on: Those of the training patients.
        hashes: Name -> value, of the champion.
    """

    spacings: dict[str, tuple[float, float] | None]
    unseen: list[str]
    sources: list[str]
    trained_on: list[str]
    hashes: list[tuple[str, str]]


def small(count: int) -> str:
    """What stands beside an interval in a chart: `n = 6, small`."""
    return f"n = {count}, small" if count < FEW_PATIENTS else f"n = {count}"


def headline_chart(results: Results) -> Markup:
    """Dice of the champion: a row a class with every test patient."""
    name = results.comparison.champion
    rows = [_dice_row(results, name, label, label, colour=1) for label in _shown(results)]
    return charts.intervals(
        rows, label=f"Dice of {name} by class and patient", unit="Dice of a test patient", most=1.0
    )


def model_chart(results: Results) -> Markup:
    """Dice of the stratified class, or of the first that has truth: a row a network."""
    label, champion = _focus(results), results.comparison.champion
    rows = [
        _dice_row(results, name, label, name, colour=int(name == champion))
        for name in results.models
    ]
    return charts.intervals(
        rows, label=f"{label} Dice by model and patient", unit=f"{label} Dice of a test patient",
        most=1.0,
    )  # fmt: skip


def pair_chart(results: Results) -> Markup | None:
    """Differences of two models with their intervals; None where nothing is compared."""
    rows = [
        charts.Row(
            label=f"{pair.first} − {pair.second}, {_class(pair.class_name)}",
            mean=pair.difference,
            low=pair.low,
            high=pair.high,
            colour=1,
            note=small(pair.pairs),
        )
        for pair in results.comparison.pairs
        if pair.class_name not in results.absent
    ]
    if not rows:
        return None
    return charts.intervals(
        rows, label="Differences of Dice", unit="difference of Dice, paired by patient", zero=True
    )


def panels(results: Results) -> list[Panel]:
    """All models, the champion first; their pictures share the room of the page."""
    models = [model for folds in results.models.values() for model in folds]
    share = BUDGET_BYTES / max(1, sum(len(model.gallery) for model in models))
    several = len(results.split) > 1
    return [
        Panel(
            key=f"model-{index}",
            title=model.architecture + (f", {fold_words(model.fold)}" if several else ""),
            model=model,
            curves=_curves(model),
            reliability=[
                (title, _reliability(region, title))
                for title, region in (
                    ("All pixels", model.calibration.test.all_pixels),
                    ("Within 5 mm of a boundary", model.calibration.test.boundary),
                )
            ],
            risk=_risk(model),
            sizes=_strata(model, model.sizes.by_size, "size"),
            sources=_strata(model, model.sizes.by_source, "source"),
            gallery=[(case, embed(model.folder / case.file, share)) for case in model.gallery],
            tags=dict(Counter(tag for case in model.gallery for tag in case.tags or [""])),
        )
        for index, model in enumerate(models)
    ]


def facts(results: Results) -> Facts:
    """What the model card says of data and origin."""
    spacings: dict[str, tuple[float, float] | None] = {}
    for name, fields in {
        "Spacing in plane": ("spacing_y_mm", "spacing_x_mm"),
        "Slice thickness": ("thickness_mm",),
    }.items():
        values = [
            value
            for entry in results.audit.spacings_mm
            for field in fields
            if (value := getattr(entry, field)) is not None and value == value
        ]
        spacings[name] = (min(values), max(values)) if values else None
    unseen = {
        source
        for fold in results.split.values()
        for source in fold.test.patients_by_source
        if not fold.train.patients_by_source.get(source)
    }
    models = results.models[results.comparison.champion]
    trained = models[0].scores.trained
    dirty = trained.git_dirty.lower() == "true"
    return Facts(
        spacings=spacings,
        unseen=sorted(unseen),
        sources=sorted(filter(None, results.audit.patients_by_source)),
        trained_on=sorted({s for fold in results.split.values()
                           for s, count in fold.train.patients_by_source.items() if s and count}),
        hashes=[
            ("Data hash", trained.data_hash),
            ("Split hash", trained.split_hash),
            ("Git commit", trained.git_commit + (", with uncommitted changes" if dirty else "")),
            ("Recipe", trained.recipe),
            *(
                ("MLflow run" if len(models) == 1 else f"MLflow run, {fold_words(model.fold)}",
                 model.scores.trained.run_id)
                for model in models
            ),
        ],
    )  # fmt: skip


def _class(label: str) -> str:
    return "mean" if label == MEAN else label


def _shown(results: Results) -> list[str]:
    return [label for label in results.classes if label not in results.absent]


def _focus(results: Results) -> str:
    label = results.models[results.comparison.champion][0].sizes.class_name
    shown = _shown(results)
    return label if label in shown or not shown else shown[0]


def _dice_row(results: Results, name: str, label: str, title: str, *, colour: int) -> charts.Row:
    found = results.means[name]["dice"].get(label, Mean(mean=None, low=None, high=None))
    values = [
        (row["patient_pseudonym"], value)
        for row in results.test_rows(name)
        if (value := number(row.get(f"dice_{label}"))) is not None
    ]
    return charts.Row(
        label=title,
        mean=found.mean,
        low=found.low,
        high=found.high,
        points=values,
        colour=colour,
        note=small(results.scored(name, label)),
    )


def _curves(model: Model) -> list[tuple[str, Markup]]:
    order = sorted(model.curves, key=lambda name: (name not in _CURVES, name))
    order.sort(key=lambda name: _CURVES.index(name) if name in _CURVES else len(_CURVES))
    made = []
    for name in order:
        title = name.replace("_", " ").replace("iou", "IoU")
        rows = model.curves[name]
        sides = {
            "training": [(epoch, train) for epoch, train, _ in rows if train is not None],
            "validation": [(epoch, held) for epoch, _, held in rows if held is not None],
        }
        series = [
            charts.Line(side, points, colour=colour, dashed=not colour)
            for (side, points), colour in zip(sides.items(), (0, 1), strict=True)
        ]
        values = [value for points in sides.values() for _, value in points]
        bounded = bool(values) and name != "loss" and min(values) >= 0 and max(values) <= 1
        chart = charts.lines(
            series,
            label=f"{title} of {model.architecture} by epoch",
            axes=("epoch", title),
            y_range=(0.0, 1.0) if bounded else None,
        )
        made.append((title, chart))
    return made


def _reliability(region: BeforeAfter, name: str) -> Markup:
    series = []
    for title, colour, side in (
        ("before scaling", 0, region.before),
        ("after temperature scaling", 1, region.after),
    ):
        filled = [
            (bin_.confidence, bin_.accuracy, bin_.count)
            for bin_ in side.bins
            if bin_.confidence is not None and bin_.accuracy is not None and bin_.count
        ]
        most = max((count for *_, count in filled), default=1)
        series.append(
            charts.Line(
                title,
                [(confidence, accuracy) for confidence, accuracy, _ in filled],
                colour=colour,
                dots=[count / most for *_, count in filled],
            )
        )
    return charts.lines(
        series,
        label=f"Reliability diagram, {name}",
        axes=("confidence of a pixel", "share that is right"),
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        diagonal=True,
    )


def _risk(model: Model) -> Markup:
    series = [
        charts.Line(
            name.replace("_", " "),
            [(c, r) for c, r in zip(way.coverage, way.risk, strict=False) if _known(r)],
            colour=index,
        )
        for index, (name, way) in enumerate(model.uncertainty.test.items(), start=1)
    ]
    top = max((risk for line in series for _, risk in line.points), default=1.0)
    return charts.lines(
        series,
        label=f"Risk-coverage curve of {model.architecture}",
        axes=("share of cases kept, most certain first", "mean error of the cases kept"),
        x_range=(0.0, 1.0),
        y_range=(0.0, top),
    )


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and value == value


def _strata(model: Model, found: Sequence[Stratum], what: str) -> Markup | None:
    name = model.sizes.class_name
    rows = [
        charts.Row(one.name or "not told", one.mean, one.low, one.high, note=_of(one))
        for one in found
    ]
    if not rows:
        return None
    unit = f"mean {name} Dice of a slice"
    return charts.intervals(rows, label=f"{name} Dice by {what}", unit=unit, most=1.0)


def _of(one: Stratum) -> str:
    return f"{one.slices} slice{'' if one.slices == 1 else 's'}, {small(one.patients)}"
