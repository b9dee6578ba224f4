"""The one door to Optuna: what is searched, the study, the processes that run its trials.

Importing this package imports no Optuna, which takes a second.
"""

from src.search.outcomes import GONE, Outcome, Standing
from src.search.space import (
    Dimension,
    baseline,
    dimensions,
    ends,
    parameters_of,
    with_parameters,
)
from src.search.storage import (
    ENVIRONMENT,
    GO_ON,
    default_address,
    serve_dashboard,
    storage_address,
)
from src.search.study import Search, Setting
from src.search.trial import RunningTrial, halt, run_trial
from src.search.worker import Start, Worker

__all__ = [
    "ENVIRONMENT",
    "GONE",
    "GO_ON",
    "Dimension",
    "Outcome",
    "RunningTrial",
    "Search",
    "Setting",
    "Standing",
    "Start",
    "Worker",
    "baseline",
    "default_address",
    "dimensions",
    "ends",
    "halt",
    "parameters_of",
    "run_trial",
    "serve_dashboard",
    "storage_address",
    "with_parameters",
]
