"""Test Dice of this project's networks, MONAI's and nnU-Net on the same patients and wall clock.

    python benchmarks/accuracy.py --data FOLDER --out FOLDER

Each method trains for the same minutes on the same cores, in its own process, one after the other.
It chooses its weights on the validation patients and writes masks of the test patients at the size
of their scans; one scorer, this project's, reads all of them. README.md beside this file says what
is counted in the minutes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this is started as a file, and the project is not installed

from benchmarks import no_image, scoring  # noqa: E402
from benchmarks.machine import machine  # noqa: E402
from benchmarks.ours import train_and_segment  # noqa: E402
from benchmarks.setting import Setting, finished, make_setting, run_logged  # noqa: E402
from src import terminal  # noqa: E402
from src.files import write_text  # noqa: E402

OURS = ("unet", "unetpp", "attention_unet")
PEERS = {
    "monai-basicunet": ["monai_unets.py", "--network", "basicunet"],
    "monai-attentionunet": ["monai_unets.py", "--network", "attentionunet"],
    "nnunet": ["nnunet.py"],
    # The planned batch leaves time for some dozens of steps on two cores; this one is meant to be
    # nnU-Net as one would set it for them.
    "nnunet-cpu": ["nnunet.py", "--batch-size", "8", "--precision", "bfloat16"],
}
CONTROL = "no-image"  # no method: what the borders of the scans give away
SIDES = ("validation", "test")
BUSY = 10.0  # percent of all cores, used by others
PEERS_FOLDER = ROOT / "benchmarks" / "peers"


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        method: Its name.
        repeat: From 0.
        seed: Of its generators.
        minutes: Wall clock of training.
        cores: Threads it may use.
        folder: Where its masks, log and summary go.
    """

    method: str
    repeat: int
    seed: int
    minutes: float
    cores: int
    folder: Path


def run_ours(job: Job, setting: Setting) -> None:
    """Trains one of this project's networks by its own stages, and predicts by `src.predict`.

    Args:
        job: What to do; validation/, test/ and training.json appear in its folder.
        setting: The patients; its repository is worked in.
    """
    changes = {"train.seed": job.seed, "train.max_minutes": job.minutes}
    train_and_segment(job.folder, setting, job.method, changes, SIDES)


def run_control(job: Job, setting: Setting) -> None:
    """Writes the masks of the control; nothing is trained."""
    no_image.write_masks(job.folder, setting, SIDES)


def run_peer(job: Job, setting: Setting, *, python: Path) -> None:
    """Trains a peer by its script, in the peers' environment.

    Raises:
        FileNotFoundError: The environment is not there.
    """
    if not python.is_file():
        raise FileNotFoundError(
            f"{python}: no such Python. Make the peers' environment as benchmarks/README.md says, "
            "or name it with --peers-python."
        )
    script, *options = PEERS[job.method]
    run_logged(
        [str(python), str(PEERS_FOLDER / script), *options, "--cases", str(setting.folder),
         "--minutes", str(job.minutes), "--seed", str(job.seed), "--threads", str(job.cores),
         "--out", str(job.folder)],
        cwd=PEERS_FOLDER, log=job.folder / "log.txt", environment=setting.environment,
    )  # fmt: skip


def finish(job: Job, setting: Setting, run: Callable[[Job, Setting], None]) -> None:
    """Runs one job unless an earlier call finished it; result.json appears last.

    Raises:
        ValueError: The finished one had another number of minutes.
        subprocess.CalledProcessError: The method failed.
    """
    result = job.folder / "result.json"
    if finished(result, job.method, minutes=job.minutes):
        return
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True)
    busy = psutil.cpu_percent(interval=2)
    if busy > BUSY:
        terminal.warn(
            f"this machine is busy ({busy:.0f} %) before {job.method} starts: what else runs takes "
            "training steps from it"
        )
    started = time.perf_counter()
    with terminal.console.status(f"{job.method}: log in {job.folder / 'log.txt'}"):
        run(job, setting)
    told = json.loads((job.folder / "training.json").read_text(encoding="utf-8"))
    content = {
        "method": job.method, "repeat": job.repeat, "seed": job.seed, "minutes": job.minutes,
        "cores": job.cores, "busy_before_percent": busy, "date": date.today().isoformat(),
        "seconds_of_everything": round(time.perf_counter() - started, 1), "training": told,
    }  # fmt: skip
    write_text(result, json.dumps(content, indent=2) + "\n")
    terminal.console.print(
        f"{job.method}: {told['seconds']:.0f} s of training, {content['seconds_of_everything']:.0f}"
        " s with preparation and prediction"
    )


def main(
    data: Annotated[Path, typer.Option(help="scans and masks, one volume a patient")],
    out: Annotated[Path, typer.Option(help="results; started again, it goes on there")],
    minutes: Annotated[float, typer.Option(help="of training, for each method")] = 10.0,
    methods: Annotated[str, typer.Option(help="with commas between")] = ",".join(
        [*OURS, *PEERS, CONTROL]
    ),
    repeats: Annotated[int, typer.Option(min=1, help="with other seeds")] = 1,
    params: Annotated[Path, typer.Option(help="parameters of this project's networks")] = ROOT
    / "examples"
    / "sts-ct"
    / "params.yaml",
    peers_python: Annotated[
        Path, typer.Option(help="Python of the peers' environment")
    ] = PEERS_FOLDER / ".venv" / "bin" / "python",
    cores: Annotated[int, typer.Option(min=1, help="for each method")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="of the first repeat")] = 1,
) -> None:
    """Trains methods for the same wall clock and scores their masks of the same test patients.

    Example: python benchmarks/accuracy.py --data FOLDER --out accuracy
    """
    names, known = methods.split(","), (*OURS, *PEERS, CONTROL)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"--methods: {unknown} not known, expected some of {list(known)}")
    out = out.resolve()
    setting = make_setting(data, params, out, cores)
    failed, done = [], []
    for repeat in range(repeats):
        for name in names:
            job = Job(name, repeat, seed + repeat, minutes, cores, out / name / str(repeat))
            run: Callable[[Job, Setting], None] = partial(run_peer, python=peers_python.absolute())
            run = {**dict.fromkeys(OURS, run_ours), CONTROL: run_control}.get(name, run)
            try:
                finish(job, setting, run)
                done.append(job)
            except subprocess.CalledProcessError:
                failed.append(job)
                terminal.warn(f"{name} failed: see {job.folder / 'log.txt'}")
    report(done, setting, out, {"minutes": minutes, "cores": cores})
    if failed:
        terminal.fail(f"{len(failed)} of {len(failed) + len(done)} trainings failed")


def report(jobs: list[Job], setting: Setting, out: Path, conditions: dict[str, Any]) -> None:
    """Scores what is there, prints the table, and writes accuracy.json and accuracy.md."""
    scores: dict[str, list[dict[str, dict[str, float]]]] = {}
    results: dict[str, list[dict[str, Any]]] = {}
    for job in jobs:
        dice = {side: scoring.side_overlap(job.folder, setting, side)["dice"] for side in SIDES}
        scores.setdefault(job.method, []).append(dice)
        content = json.loads((job.folder / "result.json").read_text(encoding="utf-8"))
        results.setdefault(job.method, []).append(content)
    if not scores:
        return
    training = {name: [entry["training"] for entry in found] for name, found in results.items()}
    rows = scoring.table_rows(scores, training, list(PEERS))
    patients = {side: len(setting.patients[side]) for side in ("train", *SIDES)}
    versions = sorted({entry["versions"] for found in training.values() for entry in found})
    head = {
        "machine": machine(),
        "date": date.today().isoformat(),
        "training": f"{conditions['minutes']:g} minutes of wall clock, {conditions['cores']} cores",
        "patients": ", ".join(f"{number} {side}" for side, number in patients.items()),
        "versions": "; ".join(versions),
    }
    # Two tables, for all columns in one do not fit a terminal.
    table, training_table = Table(*scoring.SCORES), Table("method", *scoring.TRAINING)
    for name, *told in map(scoring.cells, rows):
        table.add_row(name, *told[: len(scoring.SCORES) - 1])
        training_table.add_row(name, *told[len(scoring.SCORES) - 1 :])
    terminal.console.print(table)
    terminal.console.print(training_table)
    content = {
        **head, "rows": [asdict(row) for row in rows], "dice_of_patients": scores,
        "results": results,
    }  # fmt: skip
    # NaN, which JSON does not know, becomes null.
    plain = json.loads(json.dumps(content), parse_constant=lambda _: None)
    write_text(out / "accuracy.json", json.dumps(plain, indent=2) + "\n")
    write_text(out / "accuracy.md", scoring.markdown(rows, head))
    terminal.console.print(
        "Dice: mean over patients with its 95 % interval, at the size of the scans; the best peer "
        f"is the one with the highest test Dice. Tables: {out / 'accuracy.md'}, accuracy.json"
    )


if __name__ == "__main__":
    terminal.run(main)
