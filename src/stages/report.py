"""Stage `report`: the results of all stages as one page, kept with the champion's run.

Writes reports/report.html.
"""

from __future__ import annotations

import json
from pathlib import Path

from src import terminal, tracking
from src.files import write_text
from src.report import build_report


def champion_run(reports: Path, store: tracking.Store) -> tracking.Run | None:
    """The run of the model that `compare` chose: its training, or its ensemble of several folds.

    Args:
        reports: The folder reports/.
        store: Where the runs are kept.

    Returns:
        The run; None where this store does not have it, as after a training on another machine.
    """
    chosen = json.loads((reports / "comparison.json").read_text(encoding="utf-8"))["champion"]
    folds = json.loads((reports / "split.json").read_text(encoding="utf-8"))
    members = [
        json.loads(
            (reports / "evaluation" / chosen / fold / "scores.json").read_text(encoding="utf-8")
        )["trained"]["run_id"]
        for fold in folds
    ]
    if len(members) == 1:
        return tracking.kept_run(store, members[0])
    found = tracking.find_run(store, {"members": ",".join(members)})
    return tracking.Run(store, found) if found else None


def main() -> None:
    """Makes reports/report.html of what the other stages left in reports/.

    Example: python -m src.stages.report
    """
    reports = Path("reports")
    page = reports / "report.html"
    write_text(page, build_report(reports))
    run = champion_run(reports, tracking.open_store(Path.cwd()))
    if run is None:
        terminal.warn(
            "the run of the champion is not in this MLflow store: no report is kept there"
        )
    else:
        tracking.log_artifact(run, page, "report")
    terminal.console.print(f"the report is made. Look at it: open {page}")


if __name__ == "__main__":
    terminal.run(main)
