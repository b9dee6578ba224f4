"""What everything costs beside the work itself: starting a command, DVC, and MLflow.

    python benchmarks/startup.py --cache .dvc/cache

All is run in a clone of the repository in a temporary folder, with a tracking store of its own;
DVC's cache is only read. README.md beside this file holds a table.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this is started as a file, and the project is not installed

from src import terminal  # noqa: E402

LIGHT = {"parameters": [], "audit": [], "split": [], "prepare": ["0"], "report": []}
LARGE = ("tensorflow", "keras", "mlflow", "pandas", "sklearn", "scipy", "matplotlib", "SimpleITK")
# Times every call of src.tracking that a training makes, the outermost of nested ones.
TIMED_TRAINING = """
import json, sys, time, types
from src import tracking
from src.stages import train
import src.training as training
spent, depth, fitting = {}, [0], [False]
def timed(name, call):
    def run(*arguments, **options):
        started = time.perf_counter()
        depth[0] += 1
        try:
            return call(*arguments, **options)
        finally:
            depth[0] -= 1
            if not depth[0]:
                key = ("each epoch: " if fitting[0] else "once: ") + name
                spent[key] = spent.get(key, 0.0) + time.perf_counter() - started
    return run
for name in tracking.__all__:
    call = getattr(tracking, name)
    if isinstance(call, types.FunctionType):
        if name == "start_run":  # a context: its beginning is timed, its end is a call or two
            class Start:
                def __init__(self, *arguments, **options):
                    self.context = tracking.runs.start_run(*arguments, **options)
                def __enter__(self):
                    return timed("start_run", self.context.__enter__)()
                def __exit__(self, *error):
                    return timed("start_run", self.context.__exit__)(*error)
            tracking.start_run = Start
        else:
            setattr(tracking, name, timed(name, call))
inner = training.fit
def fit(*arguments, **options):
    fitting[0] = True
    started = time.perf_counter()
    try:
        return inner(*arguments, **options)
    finally:
        fitting[0] = False
        spent["fit"] = time.perf_counter() - started
training.fit = fit
if hasattr(train, "fit"):
    train.fit = fit
train.main(sys.argv[1], 0)
print("SPENT", json.dumps(spent))
"""


def commands() -> list[str]:
    """The modules that are run as `python -m MODULE`, but those that other modules start."""
    found = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8"):
            found.append(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return found


def environment() -> dict[str, str]:
    """Without settings of the user's that would lead out of the clone."""
    unwanted = ("MLFLOW_", "DVC_", "PYTHON", "GIT_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    # DVC starts the stages as `python`: that must be this one.
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "DVC_NO_ANALYTICS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command that must succeed."""
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ValueError(
            f"`{' '.join(command[:4])}` failed:\n{(done.stdout + done.stderr)[-2000:]}"
        )
    return done


def seconds_of(command: Sequence[str], folder: Path, repeats: int) -> float:
    """Median wall-clock time of a command, after one run that warms the files."""
    run(command, folder)
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        run(command, folder)
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def imports(arguments: Sequence[str], folder: Path) -> dict[str, float]:
    """Top-level packages that a Python program imports, with the seconds that each takes alone."""
    done = run([sys.executable, "-X", "importtime", *arguments], folder)
    packages: dict[str, float] = {}
    for line in done.stderr.splitlines():
        hit = re.match(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)", line)
        if hit:
            name = hit[2].split(".")[0]
            packages[name] = packages.get(name, 0.0) + int(hit[1]) / 1e6
    return packages


def table_of_help(folder: Path, repeats: int) -> Table:
    """Seconds of `--help` of every command, with the packages that take longest to import."""
    table = Table("command", "--help (s)", "slowest imports (s)")
    nothing = seconds_of([sys.executable, "-c", "pass"], folder, repeats)
    table.add_row("python alone", f"{nothing:.2f}", "")
    for module in commands():
        seconds = seconds_of([sys.executable, "-m", module, "--help"], folder, repeats)
        slow = sorted(imports(["-m", module, "--help"], folder).items(), key=lambda item: -item[1])
        shown = ", ".join(f"{name} {spent:.2f}" for name, spent in slow[:4])
        table.add_row(module, f"{seconds:.2f}", shown)
    return table


def table_of_stages(clone: Path) -> Table:
    """The large packages that each stage imports when it does its work."""
    table = Table("stage", "seconds", "large packages imported")
    for stage, arguments in LIGHT.items():
        started = time.perf_counter()
        found = imports(["-m", f"src.stages.{stage}", *arguments], clone)
        seconds = time.perf_counter() - started
        table.add_row(stage, f"{seconds:.1f}", ", ".join(name for name in LARGE if name in found))
    return table


def clone_with_outputs(repository: Path, cache: Path, folder: Path) -> Path:
    """A clone of the repository's last commit with all that dvc.lock names."""
    clone = folder / "clone"
    run(["git", "clone", "--quiet", str(repository), str(clone)], folder)
    dvc = [sys.executable, "-m", "dvc"]
    run([*dvc, "config", "--local", "cache.dir", str(cache.resolve())], clone)
    run([*dvc, "checkout", "--quiet"], clone)
    return clone


def bare_pipeline(folder: Path, stages: int) -> Path:
    """A repository of as many stages in a chain, each of which copies a line."""
    bare = folder / "bare"
    bare.mkdir()
    run(["git", "init", "--quiet"], bare)
    dvc = [sys.executable, "-m", "dvc"]
    run([*dvc, "init", "--quiet"], bare)
    run([*dvc, "config", "core.analytics", "false"], bare)
    (bare / "0.txt").write_text("nothing\n")
    content = {
        f"stage{number}": {
            "cmd": f"cp {number}.txt {number + 1}.txt",
            "deps": [f"{number}.txt"],
            "outs": [f"{number + 1}.txt"],
        }
        for number in range(stages)
    }
    with (bare / "dvc.yaml").open("w", encoding="utf-8") as stream:
        YAML().dump({"stages": content}, stream)
    run([*dvc, "repro", "--quiet"], bare)
    return bare


def table_of_dvc(clone: Path, folder: Path, repeats: int) -> Table:
    """Seconds of DVC where nothing has changed, and of DVC with a pipeline of as many stages."""
    lock = YAML(typ="safe").load((clone / "dvc.lock").read_text(encoding="utf-8"))
    bare = bare_pipeline(folder, len(lock["stages"]))
    dvc = [sys.executable, "-m", "dvc"]
    table = Table("where", "dvc --version (s)", "dvc status (s)", "dvc repro (s)")
    for name, place in (("this project", clone), (f"{len(lock['stages'])} trivial stages", bare)):
        told = run([*dvc, "repro"], place).stdout
        if "Running stage" in told:
            raise ValueError(
                f"{name}: `dvc repro` had something to do. Commit dvc.lock after `dvc repro`, or "
                "name another repository in --repository."
            )
        times = [
            seconds_of([*dvc, *words], place, repeats)
            for words in (["--version"], ["status"], ["repro"])
        ]
        table.add_row(name, *(f"{seconds:.2f}" for seconds in times))
    return table


def table_of_tracking(clone: Path, architecture: str, epochs: int) -> Table:
    """Seconds that a training spends in calls of src.tracking."""
    yaml = YAML()
    params = yaml.load(clone / "params.yaml")
    params["train"] |= {"epochs": epochs, "warmup_epochs": 1, "overlay_every": 5}
    yaml.dump(params, clone / "params.yaml")
    done = run([sys.executable, "-c", TIMED_TRAINING, architecture], clone)
    spent = json.loads(done.stdout.rsplit("SPENT ", 1)[1])
    training = spent.pop("fit")
    table = Table("call", "seconds", f"share of {training:.1f} s of training")
    for name in sorted(spent):
        table.add_row(name, f"{spent[name]:.3f}", f"{spent[name] / training:.2%}")
    for kind in ("each epoch: ", "once: "):
        total = sum(value for name, value in spent.items() if name.startswith(kind))
        table.add_row(f"[bold]all of {kind[:-2]}[/]", f"{total:.3f}", f"{total / training:.2%}")
    return table


def main(
    parts: Annotated[
        str, typer.Option(help="of help, stages, dvc, tracking, with commas between")
    ] = "help,stages,dvc,tracking",
    repository: Annotated[Path, typer.Option(help="whose last commit is cloned")] = ROOT,
    cache: Annotated[
        Path, typer.Option(help="DVC's cache with what dvc.lock of that commit names; only read")
    ] = ROOT / ".dvc" / "cache",
    architecture: Annotated[str, typer.Option(help="that is trained")] = "unet",
    epochs: Annotated[int, typer.Option(min=2, help="of the training")] = 3,
    repeats: Annotated[int, typer.Option(min=1, help="the median of them is told")] = 5,
) -> None:
    """Times `--help` of every command, DVC with nothing to do, and MLflow's share of a training.

    Example: python benchmarks/startup.py --parts help --repeats 5
    """
    wanted = [name for name in parts.split(",") if name]
    unknown = set(wanted) - {"help", "stages", "dvc", "tracking"}
    if unknown:
        raise ValueError(f"--parts: got {sorted(unknown)}, expected help, stages, dvc, tracking.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "help" in wanted:
            terminal.console.print(table_of_help(ROOT, repeats))
        if wanted == ["help"]:
            return
        clone = clone_with_outputs(repository, cache, folder)
        if "dvc" in wanted:  # first: what follows changes the outputs
            terminal.console.print(table_of_dvc(clone, folder, repeats))
        if "tracking" in wanted:
            terminal.console.print(table_of_tracking(clone, architecture, epochs))
        if "stages" in wanted:
            terminal.console.print(table_of_stages(clone))


if __name__ == "__main__":
    terminal.run(main)
