"""`python -m src.ingest FOLDER`: your own images and masks, checked, versioned, kept private."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from ruamel.yaml import YAML

from src import terminal
from src.config import load_params
from src.data.findings import count_of
from src.files import whole_file
from src.stages.audit import DEMO, audit, report, write_findings
from src.stages.split import warn_of_names

FINDINGS = "prepared/ingest_findings.csv"  # of a folder that is not yet a version of data/


def dvc(*arguments: str) -> None:
    """Runs DVC; its own words reach the terminal.

    Raises:
        ValueError: DVC failed.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    if subprocess.run(command, check=False).returncode:
        raise ValueError(f"`dvc {' '.join(arguments)}` failed; its message stands above.")


def dvc_agrees(*arguments: str) -> bool:
    """Asks DVC something; whether it answers with success. Nothing reaches the terminal."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def refuse_to_lose(root: Path) -> None:
    """Raises where data/ holds something that DVC does not have, for it would be replaced."""
    if not (root / "data.dvc").is_file():
        raise ValueError(
            "data/ is there but not versioned (no data.dvc): bringing in other data would lose it. "
            "Run `python -m src.ingest data` to version it, or move the folder away."
        )
    if not dvc_agrees("status", "--quiet", "data.dvc"):
        raise ValueError(
            "data/ differs from what data.dvc names: bringing in other data would lose the "
            "difference. Run `python -m src.ingest data` to keep it, or `dvc checkout data.dvc` to "
            "drop it."
        )


def forget_the_demo(root: Path) -> None:
    """Takes the demo remote out of data.dvc and of DVC's settings: private data never go there."""
    path = root / "data.dvc"
    if path.is_file():
        yaml = YAML()
        content = yaml.load(path)
        if content["outs"][0].get("remote") == DEMO:
            del content["outs"][0]["remote"]
            with whole_file(path) as aside:
                yaml.dump(content, aside)
    if dvc_agrees("config", "--project", f"remote.{DEMO}.url"):
        dvc("remote", "remove", "--project", DEMO)


def remove_empty_folders(folder: Path) -> None:
    """Removes what DVC leaves of data that were here before: it removes files alone."""
    for below in sorted(folder.rglob("*/"), reverse=True):
        if not below.is_symlink() and below.is_dir() and not any(below.iterdir()):
            below.rmdir()


def warn_of_published(root: Path) -> None:
    """Tells of files that an earlier `dvc push` put into the repository."""
    command = ["git", "ls-files", "--others", "--", "demo-remote"]
    done = subprocess.run(command, cwd=root, check=False, capture_output=True, text=True)
    found = done.stdout.splitlines()
    if found:
        terminal.warn(
            f"demo-remote/: found {count_of(len(found), 'file')} that git does not hold, such as "
            f"{found[0]}: images of an earlier `dvc push`? `git clean -fdx demo-remote` removes "
            "them."
        )


def main(
    folder: Annotated[Path, typer.Argument(help="all your images and masks, nested as you like")],
    link: Annotated[
        bool,
        typer.Option(
            help="link data/ to DVC's cache instead of keeping a second copy of each file"
        ),
    ] = False,
) -> None:
    """Checks FOLDER by params.yaml, places a copy at data/ and versions it, away from the demo.

    The copy takes the place of what data/ held, which DVC's cache keeps: to add a patient, add it
    to FOLDER. FOLDER itself is only read. Nothing is changed while there are errors.

    Files that lie in data/ already are versioned there: python -m src.ingest data

    Example: python -m src.ingest /path/to/scans
    """
    root = Path.cwd()
    params = load_params(root / "params.yaml")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder. Give the folder of images and masks.")
    source = folder.resolve()
    if (root / "data").is_symlink():
        raise ValueError(
            f"data/ is a link to {(root / 'data').resolve()}, expected a folder: DVC does not "
            "follow links. Remove the link (`rm data`) and bring in the folder that it leads to."
        )
    in_place = source == root / "data"
    if (root / "data") in source.parents:
        raise ValueError(
            f"{folder} is a part of data/, expected all of it: `python -m src.ingest data`."
        )
    table, findings = audit(source, params)
    errors = report(findings, table, all_in=FINDINGS)
    if errors:
        write_findings(root / FINDINGS, findings)
        terminal.fail(
            f"{count_of(errors, 'error')}: nothing was brought in. Mend the files, or the groups "
            f"data and audit of params.yaml, and run the same command again. All of them stand in "
            f"{FINDINGS}."
        )
    replaces = (root / "data").exists() and not in_place
    if replaces:
        refuse_to_lose(root)
    forget_the_demo(root)
    if link:
        dvc("config", "--local", "cache.type", "reflink,hardlink,symlink,copy")
    if in_place:
        dvc("add", "data")
    else:
        dvc("add", "--force", "--out", "data", str(source))
        remove_empty_folders(root / "data")
    if replaces:
        terminal.console.print(
            "data/ was replaced as a whole. What it held stays in DVC's cache: with the data.dvc "
            "of an earlier commit, `dvc checkout data.dvc` brings it back."
        )
    warn_of_published(root)
    warn_of_names(table, params.split.test_patients)
    terminal.console.print(
        f"{count_of(table['patient'].nunique(), 'patient')} in data/, versioned in data.dvc; the "
        "demo remote is removed, so nothing private can be pushed into the repository.\n"
        "Next:\n"
        "  git commit -m 'Our data' data.dvc .dvc/config params.yaml  # no picture; no name "
        "but in split.test_patients, which takes pseudonyms as well\n"
        "  dvc repro                                                  # run the pipeline\n"
        "  git commit -m 'First results' dvc.lock params.yaml         # compared with later\n"
        "  dvc remote add --default private /path/or/s3://…  # a place of your own; then: dvc push"
    )


if __name__ == "__main__":
    terminal.run(main)
