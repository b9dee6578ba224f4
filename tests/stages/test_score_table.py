import json
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from src.stages.score_table import (
    DISTANCES,
    foreground,
    one_empty_notes,
    score_table,
    side_table,
    with_interval,
)


def side(mean: float | None, low: float | None = 0.8, high: float | None = 0.9) -> dict[str, Any]:
    labels = ("background", "lesion", "mean_foreground")
    groups = {"": mean, "_low": low, "_high": high}
    scores = {
        f"{quantity}{end}": dict.fromkeys(labels, value)
        for quantity in ("dice", "iou", "precision", "recall", "nsd")
        for end, value in groups.items()
    }
    for end, value in {"": 9.876, "_low": 5.0, "_high": 124.84}.items():
        for quantity in ("hd95_mm", "assd_mm"):
            scores[f"{quantity}{end}"] = dict.fromkeys(labels, None if mean is None else value)
    return {**scores, "num_scored": dict.fromkeys(labels, 12)}


def drawn(
    names: list[str], quantities: tuple[str, ...], *, subset: str = "validation", label: str = ""
) -> list[str]:
    """The lines of a table as a terminal of 80 columns shows them."""
    results = {name: {"validation": side(0.85), "test": side(None, None, None)} for name in names}
    if label:
        text = json.dumps(results).replace("lesion", label)
        results = json.loads(text)
    stream = StringIO()
    console = Console(file=stream, width=80, highlight=False, soft_wrap=True)
    console.print(score_table(results, subset, quantities))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        (side(0.85), "0.850 (0.800 to 0.900)"),
        (side(0.85, None, None), "0.850"),  # a single patient has no interval
        (side(None, None, None), "not scored"),
    ],
)
def test_a_mean_stands_beside_its_interval(scores: dict[str, Any], text: str) -> None:
    assert with_interval(scores, "dice", "lesion") == text


def test_slices_with_a_class_on_one_side_alone_are_told_of_classes_that_have_them() -> None:
    counted = {"background": 0, "organ": 0, "lesion": 2, "mean_foreground": 2}
    (note,) = one_empty_notes({"num_one_empty_cases": counted})
    assert note.startswith("lesion: 2 slices with it in truth or prediction alone")


def test_millimetres_have_three_digits() -> None:
    assert with_interval(side(0.5), "hd95_mm", "lesion") == "9.88 (5.00 to 125)"
    some = {
        "hd95_mm": {"lesion": 24.75},
        "hd95_mm_low": {"lesion": None},
        "hd95_mm_high": {"lesion": None},
    }
    assert with_interval(some, "hd95_mm", "lesion") == "24.8"


def test_a_single_method_has_no_column_of_models() -> None:
    stream = StringIO()
    console = Console(file=stream, width=80, highlight=False, soft_wrap=True)
    console.print(side_table(side(0.85), "nnunet", ("hd95_mm", "assd_mm", "nsd")))
    lines = stream.getvalue().splitlines()
    assert lines[1].split() == ["class", "n", "HD95", "(mm)", "ASSD", "(mm)", "NSD"]
    assert lines[2].split()[:6] == ["lesion", "12", "9.88", "(5.00", "to", "125)"]
    assert len(lines) == 2 + 2
    assert max(len(line.rstrip()) for line in lines) <= 80


def test_the_background_is_not_compared() -> None:
    assert foreground(side(0.5)) == ["lesion", "mean_foreground"]


def test_models_stand_below_each_other_for_each_class() -> None:
    lines = drawn(["unet", "unetpp"], ("dice", "iou"))
    assert lines[0].split() == ["validation", "patients"]
    assert lines[1].split() == ["class", "model", "n", "Dice", "IoU"]
    interval = ["0.850", "(0.800", "to", "0.900)"]
    assert [line.split() for line in lines[2:6]] == [
        [label, model, "12", *interval, *interval]
        for label in ("lesion", "mean")
        for model in ("unet", "unetpp")
    ]


def test_a_class_that_nobody_has_is_said_to_be_not_scored() -> None:
    lines = drawn(["unet"], ("dice", "iou"), subset="test")
    assert lines[0].split() == ["test", "patients"]
    assert lines[2].split() == ["lesion", "unet", "12", "not", "scored", "not", "scored"]


@pytest.mark.parametrize("quantities", [("dice", "iou"), ("precision", "recall"), DISTANCES])
def test_a_table_is_whole_at_80_columns(quantities: tuple[str, ...]) -> None:
    lines = drawn(["attention_unet"], quantities)
    assert len(lines) == 2 + 2  # nothing wrapped
    assert max(map(len, lines)) <= 80


def test_a_long_class_name_is_folded_and_no_number_is() -> None:
    lines = drawn(["attention_unet"], ("dice", "iou"), label="gross_tumour_volume_of_the_[left]")
    assert max(map(len, lines)) <= 80
    assert sum("0.850 (0.800 to 0.900)  0.850 (0.800 to 0.900)" in line for line in lines) == 2
    folded = "".join(line.split()[0] for line in lines[2:-1])
    assert folded == "gross_tumour_volume_of_the_[left]"
