"""A trained model -> class probabilities for scans of any size, at the scan's own size."""

from src.inference.ensemble import AnySegmenter, Ensemble
from src.inference.loading import load_segmenter
from src.inference.segmenter import Segmenter, cleaned, most_probable, predicted_scans

__all__ = [
    "AnySegmenter",
    "Ensemble",
    "Segmenter",
    "cleaned",
    "load_segmenter",
    "most_probable",
    "predicted_scans",
]
