"""The scores of other methods, kept in external/NAME: pseudonyms only, so git may hold them.

They are of the test patients of this repository, all of them and no other, under the same labels,
spacing and tolerance as those of the networks: `compare` sets them side by side.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src import tracking
from src.config import ARCHITECTURES, Params, truth_parameters
from src.data.cases import read_cases
from src.data.findings import count_of
from src.data.scans import ScanFile
from src.data.splits import TEST
from src.files import whole_folder

if TYPE_CHECKING:
    import pandas as pd

    from src.scoring import SubsetScores

FOLDER = "external"
_RULES = {
    "data_hash": "other data",
    "split_hash": "another split",
    "truth_hash": "other classes or labels",
    "spacing_mm": "another data.pictures.spacing_mm",
    "tolerance_mm": "another evaluate.tolerance_mm",
}


@dataclass(frozen=True)
class Comparison:
    """What methods are compared on: the test patients of all folds that are run.

    Attributes:
        data: The folder data/.
        cases: Their rows of the case table, in its order.
        others: Files of the masks of all other patients, relative to data/.
    """

    data: Path
    cases: pd.DataFrame
    others: frozenset[str]

    def rows(self, root: Path, truth: ScanFile) -> pd.DataFrame:
        """The rows of a truth, slice by slice.

        Args:
            root: The folder that its path is relative to.
            truth: A mask.

        Returns:
            No rows for a mask that is not of a test patient.

        Raises:
            ValueError: The file is no mask of the case table.
        """
        files = [_relative(root / file, self.data) for file in truth.files]
        found = self.cases[self.cases["mask_path"].isin(files)]
        # Masks of one slice go by their names, slices of a volume by their places in it.
        places = {file: place for place, file in enumerate(files)}
        found = found.assign(_file=found["mask_path"].map(places))
        found = found.sort_values(["_file", "slice"], kind="stable")
        if found.empty and not self.others.intersection(files):
            raise ValueError(
                f"{truth.path}: found a truth that is not in prepared/cases.csv, expected masks of "
                "data/. With --name give data, or a folder in it, as TRUTH; after a change of "
                "data/ run `dvc repro split`."
            )
        return found.drop(columns="_file")

    def check_complete(self, scored: Iterable[str], hint: str) -> None:
        """Raises unless every slice of every test patient is scored.

        Args:
            scored: Case ids.
            hint: What else could be done about those that are missing.

        Raises:
            ValueError: With the patients that are missing.
        """
        missing = self.cases[~self.cases["case_id"].isin(list(scored))]
        if missing.empty:
            return
        slices = self.cases["patient"].value_counts()
        listed = [
            f"{patient} ({number} of {count_of(int(slices[patient]), 'slice')})"
            for patient, number in missing["patient"].value_counts(sort=False).items()
        ]
        raise ValueError(
            f"no prediction, or no truth, for {len(listed)} of "
            f"{count_of(self.cases['patient'].nunique(), 'test patient')}: "
            f"{', '.join(listed[:20])}{', …' if len(listed) > 20 else ''}. Methods are compared on "
            f"all of them: add the predictions, and give all of data as TRUTH. {hint}"
        )


def _relative(path: Path, data: Path) -> str:
    """A path relative to data/, as written or with links followed; absolute where it is outside."""
    for file, folder in ((path.absolute(), data.absolute()), (path.resolve(), data.resolve())):
        if file.is_relative_to(folder):
            return file.relative_to(folder).as_posix()
    return path.as_posix()


def read_comparison(root: Path) -> Comparison:
    """Reads who is tested from prepared/.

    Raises:
        FileNotFoundError: prepared/ is not there; the message names the command.
    """
    import pandas as pd

    cases = read_cases(root / "prepared" / "cases.csv")
    path = root / "prepared" / "split.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no split there. Make it with `dvc repro split`.")
    sides = pd.read_csv(path, dtype={"patient": str, "subset": str}, keep_default_na=False)
    tested = cases["patient"].isin(sides.loc[sides["subset"] == TEST, "patient"])
    return Comparison(root / "data", cases[tested], frozenset(cases.loc[~tested, "mask_path"]))


def check_name(name: str) -> None:
    """Refuses a name that is no folder's, or that one of the networks has.

    Raises:
        ValueError: So.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or name in ARCHITECTURES:
        raise ValueError(
            f"--name {name}: expected letters, digits, '_', '.' and '-', and none of "
            f"{', '.join(ARCHITECTURES)}, which are networks of this repository. Name the method, "
            "such as nnunet."
        )


def _rules(root: Path, params: Params) -> dict[str, Any]:
    """What scores hang on; those of a method are compared with the networks' where it is equal."""
    return {
        "data_hash": tracking.data_hash(root),
        "split_hash": tracking.split_hash(root / "prepared" / "split.csv"),
        "truth_hash": tracking.short_hash(truth_parameters(params)),
        "spacing_mm": list(params.data.pictures.spacing_mm),
        "tolerance_mm": params.evaluate.tolerance_mm,
    }


def write_external(
    root: Path, params: Params, name: str, scores: SubsetScores, about: dict[str, Any]
) -> Path:
    """Writes the scores of a method, whole or not at all.

    Args:
        root: The repository.
        params: All parameters.
        name: Of the method; an older result of this name is replaced.
        scores: Of all test patients, pseudonyms only.
        about: What else is said in scores.json.

    Returns:
        The folder: counts.csv, and scores.json with what the scores hang on.
    """
    folder = root / FOLDER / name
    content = {
        "name": name,
        **about,
        **_rules(root, params),
        "test": scores.summary.to_dict(),
    }
    with whole_folder(folder) as aside:
        scores.counts.to_csv(aside / "counts.csv", index=False, lineterminator="\n")
        (aside / "scores.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return folder


def read_external(root: Path, params: Params) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """The results of other methods that belong to today's data, split and rules.

    Args:
        root: The repository.
        params: All parameters of today.

    Returns:
        Name of a method -> its counts as `scoring.read_counts` gives them, by name; and a sentence
        for each method that is left out, as it was scored on others or by other rules.
    """
    from src.scoring import read_counts

    today = _rules(root, params)
    found: dict[str, pd.DataFrame] = {}
    left_out = []
    for path in sorted((root / FOLDER).glob("*/scores.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name, value in today.items() if content.get(name) != value]
        if not other:
            found[path.parent.name] = read_counts(path.parent / "counts.csv")
            continue
        rules = ", ".join(_RULES[name] for name in other)
        left_out.append(
            f"{FOLDER}/{path.parent.name} was scored under {rules}, and is left out. Score "
            "it again with `python -m src.score`, or remove the folder."
        )
    return found, left_out
