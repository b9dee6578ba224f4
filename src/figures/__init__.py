"""Every picture the project draws: overlays, learning curves, scores by patient, studies.

The only importer of matplotlib, and that inside the functions that draw: figures are objects of
their own, never pyplot's, so nothing stays open after a long run and no display is needed.
"""

from src.figures.augmentation import augmentation_sheet
from src.figures.charts import learning_curves, patient_scores
from src.figures.confidence import dice_by_stratum, reliability_diagram, risk_coverage_curves
from src.figures.overlays import OverlayCase, overlay_picture, overlay_sheet
from src.figures.studies import (
    StudyTrial,
    study_history,
    study_importances,
    study_parallel,
    study_slices,
)
from src.figures.style import COLOURS, save

__all__ = [
    "COLOURS",
    "OverlayCase",
    "StudyTrial",
    "augmentation_sheet",
    "dice_by_stratum",
    "learning_curves",
    "overlay_picture",
    "overlay_sheet",
    "patient_scores",
    "reliability_diagram",
    "risk_coverage_curves",
    "save",
    "study_history",
    "study_importances",
    "study_parallel",
    "study_slices",
]
