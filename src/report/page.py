"""Puts the page together: results -> views -> report.html.jinja."""

from __future__ import annotations

import math
from pathlib import Path

from src.report.results import FEW_PATIENTS, MEAN, fold_words, number, read_results
from src.report.views import facts, headline_chart, model_chart, pair_chart, panels

QUANTITIES = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "hd95_mm": "HD95, mm",
    "assd_mm": "ASSD, mm",
    "nsd": "NSD",
}


def build_report(reports: Path) -> str:
    """Makes the page of all results.

    Args:
        reports: The folder reports/ that the stages wrote to.

    Returns:
        HTML that needs no other file and no network. The same files give the same page.

    Raises:
        FileNotFoundError: A file is missing; the message names the command that makes it.
        ValueError: A file does not hold what it should; the message names it and the field.
    """
    import jinja2

    results = read_results(reports)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": score,
        "plain": plain,
        "moved": moved,
        "percent": percent,
        "duration": duration,
        "p_value": p_value,
        "words": words,
        "tag_words": tag_words,
        "fold_words": fold_words,
        "cell": number,
    }
    champion = results.models[results.comparison.champion]
    return environment.get_template("report.html.jinja").render(
        results=results,
        champion=champion,
        several_folds=len(champion) > 1,
        quantities=QUANTITIES,
        mean=MEAN,
        few=FEW_PATIENTS,
        focus=champion[0].sizes.class_name,
        headline_chart=headline_chart(results),
        model_chart=model_chart(results),
        pair_chart=pair_chart(results),
        panels=panels(results),
        facts=facts(results),
    )


def score(value: float | None, quantity: str = "dice") -> str:
    """A score for people: three digits of a share, two of a distance in mm."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{2 if quantity.endswith('_mm') else 3}f}".replace("-", "−")


def plain(value: float | None, digits: int = 0) -> str:
    """A number with thousands set apart."""
    return "–" if value is None or math.isnan(value) else f"{value:,.{digits}f}".replace("-", "−")


def moved(before: float | None, after: float | None, digits: int = 4) -> str:
    """Which way a number went, as far as the digits that are shown tell."""
    if before is None or after is None:
        return "is not known"
    first, second = round(before, digits), round(after, digits)
    return "rises" if second > first else "falls" if second < first else "stays the same"


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent."""
    return (
        "–"
        if value is None or math.isnan(value)
        else f"{100 * value:.{digits}f} %".replace("-", "−")
    )


def duration(seconds: float | None) -> str:
    """A time: milliseconds of a slice, minutes and hours of a training."""
    if seconds is None or math.isnan(seconds):
        return "–"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 90:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def p_value(value: float | None) -> str:
    """A p value to two digits; never 0."""
    if value is None or math.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def words(name: str) -> str:
    """A class or quantity as a reader has it: `foreground mean` for mean_foreground."""
    return "foreground mean" if name == MEAN else name.replace("_", " ")


def tag_words(tag: str) -> str:
    """A tag without the signs that hold it together."""
    return tag.replace("_", " ")
