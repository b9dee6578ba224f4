"""The one door to MLflow: the store, the runs and what they hold, the registry.

Everything a person reads in the MLflow UI passes through here, so names are made here as well:
metrics `train/loss`, `validation/iou/lesion`; pictures `overlay/case 01`; runs `unet, 3f9c1e`.
Callers pass pseudonyms; what would name a patient, a file or a place is refused or withheld.

Importing this package imports no MLflow, which takes seconds: hashes and names are free.
"""

from src.tracking.origin import (
    COMPARABLE,
    PROVENANCE,
    UNKNOWN,
    data_hash,
    flatten,
    git_state,
    provenance,
    run_name,
    short_hash,
    split_hash,
)
from src.tracking.registry import (
    CHAMPION,
    INFERENCE_PACKAGES,
    SCORE_TAG,
    RegisteredVersion,
    champion,
    champion_folder,
    log_model,
    model_folder,
    model_of,
    register_champion,
    register_model,
    requirements,
)
from src.tracking.runs import (
    PRIVATE_COLUMNS,
    PrunedError,
    Run,
    end_run,
    find_run,
    kept_run,
    log_artifact,
    log_dataset,
    log_figure,
    log_metrics,
    log_picture,
    log_table,
    log_tags,
    picture_run,
    start_run,
)
from src.tracking.servers import serve_model, serve_ui
from src.tracking.store import (
    EXPERIMENT,
    Store,
    open_store,
    repository,
    store_uri,
)

__all__ = [
    "CHAMPION",
    "COMPARABLE",
    "EXPERIMENT",
    "INFERENCE_PACKAGES",
    "PRIVATE_COLUMNS",
    "PROVENANCE",
    "SCORE_TAG",
    "UNKNOWN",
    "PrunedError",
    "RegisteredVersion",
    "Run",
    "Store",
    "champion",
    "champion_folder",
    "data_hash",
    "end_run",
    "find_run",
    "flatten",
    "git_state",
    "kept_run",
    "log_artifact",
    "log_dataset",
    "log_figure",
    "log_metrics",
    "log_model",
    "log_picture",
    "log_table",
    "log_tags",
    "model_folder",
    "model_of",
    "open_store",
    "picture_run",
    "provenance",
    "register_champion",
    "register_model",
    "repository",
    "requirements",
    "run_name",
    "serve_model",
    "serve_ui",
    "short_hash",
    "split_hash",
    "start_run",
    "store_uri",
]
