"""Reads the files in reports/ that the report shows; a missing or odd one is told by its name."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from src.report.formats import (
    Audit,
    Calibration,
    ComparedModel,
    Comparison,
    DiceBySize,
    Fold,
    GalleryCase,
    Mean,
    Scores,
    UncertaintyFile,
)

MEAN = "mean_foreground"
FEW_PATIENTS = 10

Content = TypeVar("Content")
Curve = list[tuple[float, float | None, float | None]]
"""Epoch, value in training, value on validation."""


@dataclass(frozen=True)
class Model:
    """What one network of one fold left in reports/.

    Attributes:
        architecture: Its name.
        fold: "fold0".
        folder: reports/evaluation/ARCHITECTURE/foldN, where the pictures of the gallery lie.
        scores: scores.json.
        patients: Rows of test_patients.csv.
        calibration: calibration.json.
        uncertainty: uncertainty.json.
        gallery: gallery.json, worst first.
        sizes: dice_by_size.json.
        curves: Name of a quantity -> its curve.
    """

    architecture: str
    fold: str
    folder: Path
    scores: Scores
    patients: list[dict[str, str]]
    calibration: Calibration
    uncertainty: UncertaintyFile
    gallery: list[GalleryCase]
    sizes: DiceBySize
    curves: dict[str, Curve]


@dataclass(frozen=True)
class Results:
    """All that the report is made of.

    Attributes:
        audit: audit.json.
        split: Name of a fold -> its sides.
        comparison: comparison.json.
        means: Name of a network -> "dice" or "iou" -> class -> mean over the test patients of
            all folds, from metrics.json.
        models: Name of a network -> its folds; the champion first.
    """

    audit: Audit
    split: dict[str, Fold]
    comparison: Comparison
    means: dict[str, dict[str, dict[str, Mean]]]
    models: dict[str, list[Model]]

    @property
    def classes(self) -> list[str]:
        """The foreground classes, in the order of their index."""
        names = next(iter(self.models.values()))[0].scores.test.dice
        return [name for name in names if name != MEAN][1:]

    @property
    def rows(self) -> list[str]:
        """The foreground classes, and their mean where there are several."""
        return self.classes + ([MEAN] if len(self.classes) > 1 else [])

    @property
    def tells_sources(self) -> bool:
        """Whether a scanner or site is told; with `source: null` in params.yaml none is."""
        return any(self.audit.patients_by_source)

    @property
    def absent(self) -> list[str]:
        """The foreground classes of which no test slice holds a pixel of truth."""
        held = [fold.test.slices_with for fold in self.split.values()]
        return [name for name in self.classes if not any(side.get(name, 0) for side in held)]

    @property
    def test_patients(self) -> int:
        """How many patients were tested; with several folds each stands in one of them."""
        return sum(fold.test.patients for fold in self.split.values())

    @property
    def ranked(self) -> list[ComparedModel]:
        """The models compared: the champion, the others trained here, those from outside."""
        chosen = self.comparison.champion
        return sorted(
            self.comparison.models, key=lambda one: (one.external, one.name != chosen, one.name)
        )

    def scored(self, name: str, label: str) -> int:
        """How many test patients of a network count in the mean of a class."""
        return sum(fold.scores.test.num_scored.get(label, 0) for fold in self.models[name])

    def false_positives(self, name: str, label: str) -> int:
        """In how many test patients a network predicted a class that is not there."""
        sides = [fold.scores.test.num_false_positive_patients for fold in self.models[name]]
        return sum(side.get(label, 0) for side in sides)

    def test_rows(self, name: str) -> list[dict[str, str]]:
        """The test patients of all folds of a network, each once, as in test_patients.csv."""
        return [row for fold in self.models[name] for row in fold.patients]

    def averages_absent(self, name: str) -> bool:
        """Whether the mean over the classes counts one that has no truth, as it was predicted."""
        return any(self.scored(name, label) for label in self.absent)


def read_results(reports: Path) -> Results:
    """Reads all that the report shows.

    Args:
        reports: The folder that the stages wrote to.

    Returns:
        The results.

    Raises:
        FileNotFoundError: A file is missing; the message names the command that makes it.
        ValueError: A file does not hold what it should; the message names it and the field.
    """
    comparison = _read(reports, "comparison.json", Comparison, "compare")
    split = _read(reports, "split.json", dict[str, Fold], "split")
    metrics = _read(reports, "metrics.json", dict[str, Any], "compare")
    names = [model.name for model in comparison.models if not model.external]
    if comparison.champion not in names:
        raise ValueError(
            f"{reports.name}/comparison.json: champion is {comparison.champion!r}, expected one of "
            f"the models trained here ({', '.join(names)}). Make it anew with "
            "`dvc repro --force compare`."
        )
    names.sort(key=lambda name: name != comparison.champion)
    return Results(
        audit=_read(reports, "audit.json", Audit, "audit"),
        split=split,
        comparison=comparison,
        means={name: _means(reports, metrics, name) for name in names},
        models={name: [read_model(reports, name, fold) for fold in split] for name in names},
    )


def read_model(reports: Path, architecture: str, fold: str) -> Model:
    """Reads what a network of one fold left; see `read_results`."""
    place = f"evaluation/{architecture}/{fold}"
    return Model(
        architecture=architecture,
        fold=fold,
        folder=reports / place,
        scores=_read(reports, f"{place}/scores.json", Scores, "evaluate"),
        patients=_rows(reports, f"{place}/test_patients.csv", "evaluate"),
        calibration=_read(reports, f"{place}/calibration.json", Calibration, "evaluate"),
        uncertainty=_read(reports, f"{place}/uncertainty.json", UncertaintyFile, "evaluate"),
        gallery=_read(reports, f"{place}/gallery.json", list[GalleryCase], "evaluate"),
        sizes=_read(reports, f"{place}/dice_by_size.json", DiceBySize, "evaluate"),
        curves=_curves(reports, f"curves/{architecture}/{fold}"),
    )


def number(text: str | None) -> float | None:
    """A cell of a CSV file; None where it is empty."""
    return float(text) if text and text.lower() != "nan" else None


def _means(reports: Path, metrics: Mapping[str, Any], name: str) -> dict[str, dict[str, Mean]]:
    where = f"{reports.name}/metrics.json"
    if name not in metrics:
        raise _odd(where, f"{name} is missing", "compare")
    adapter = TypeAdapter(dict[str, dict[str, Mean]])
    try:
        return adapter.validate_python(metrics[name]["test"])
    except (KeyError, TypeError) as error:
        raise _odd(where, f"{name}.test is missing", "compare") from error
    except ValidationError as error:
        raise _odd(where, _first(error), "compare") from error


def _read(reports: Path, name: str, kind: type[Content], stage: str) -> Content:
    path = _present(reports, name, stage)
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError as error:
        raise _odd(f"{reports.name}/{name}", _first(error), stage) from error


def _rows(reports: Path, name: str, stage: str) -> list[dict[str, str]]:
    path = _present(reports, name, stage)
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _curves(reports: Path, name: str) -> dict[str, Curve]:
    paths = sorted((reports / name).glob("*.csv"))
    if not paths:
        _present(reports, f"{name}/loss.csv", "train")
    curves: dict[str, Curve] = {}
    for path in paths:
        try:
            curves[path.stem] = [
                (float(row["epoch"]), number(row["train"]), number(row["validation"]))
                for row in _rows(reports, f"{name}/{path.name}", "train")
            ]
        except (KeyError, ValueError) as error:
            found = f"a row without epoch, train and validation as numbers ({error})"
            raise _odd(f"{reports.name}/{name}/{path.name}", found, "train") from error
    return curves


def _present(reports: Path, name: str, stage: str) -> Path:
    path = reports / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{reports.name}/{name} is missing. Make it with `dvc repro {stage}`."
        )
    return path


def _first(error: ValidationError) -> str:
    entry: Any = error.errors()[0]
    place = ".".join(str(part) for part in entry["loc"])
    return f"{place or 'content'}: {entry['msg']}"


def _odd(where: str, found: str, stage: str) -> ValueError:
    return ValueError(
        f"{where}: {found}. Another version of the project may have written it: make it anew with "
        f"`dvc repro --force {stage}`."
    )


def fold_words(fold: str) -> str:
    """The name of a fold as a reader has it: `fold 0` for fold0."""
    return fold.replace("fold", "fold ")
