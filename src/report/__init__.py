"""The results of all stages -> one self-contained HTML page, reports/report.html.

The page is made of the files in reports/ alone: no configuration, no MLflow, no TensorFlow, and
nothing that a patient could be known by, since these files hold pseudonyms only.
"""

from src.report.page import build_report

__all__ = ["build_report"]
