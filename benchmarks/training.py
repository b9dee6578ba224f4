"""Images a second of a training step: this project beside PyTorch and stock Keras.

    python benchmarks/training.py --peers-python PYTHON

The same networks, number of parameters, loss and optimiser on one batch that lies in memory. Each
program has a process of its own; they take turns, and while one computes the others wait.
"""

from __future__ import annotations

import statistics
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this is started as a file, and the project is not installed

from benchmarks.machine import machine  # noqa: E402
from benchmarks.setting import bind_to_cores, limited_environment  # noqa: E402
from benchmarks.training_task import Task  # noqa: E402
from benchmarks.turns import Program  # noqa: E402
from src import terminal  # noqa: E402

PEERS = ROOT / "benchmarks" / "peers"
OURS = "this project"
# Command of each program, without its Python and its task.
PROGRAMS = {
    OURS: [str(ROOT / "benchmarks" / "training_steps.py")],
    "pytorch": [str(PEERS / "torch_steps.py")],
    "keras": [str(PEERS / "keras_steps.py")],
    "keras-xla": [str(PEERS / "keras_steps.py")],
}
ARGUMENTS = {"keras-xla": ["xla"]}  # after the task
DEFAULT_PEERS = "pytorch,keras"
FIRST_STEPS = 3  # of a turn that is not counted, from which the length of the others follows


@dataclass(frozen=True)
class Result:
    """What a program did.

    Attributes:
        form: Its number format and memory layout.
        versions: Of its libraries.
        parameters: Trained numbers of its network.
        rates: Images a second, one number a round.
    """

    form: str
    versions: str
    parameters: int
    rates: list[float]

    @property
    def rate(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.rates)


def compare(
    task: Task, peers: list[str], peers_python: Path, *, seconds: float, rounds: int
) -> dict[str, Result]:
    """Times all programs at one task.

    Args:
        task: The training step.
        peers: Names of `PROGRAMS` beside this project.
        peers_python: Of the environment with PyTorch.
        seconds: Of a turn, about.
        rounds: Turns of each program.

    Returns:
        Name of the program -> what it did, this project first.

    Raises:
        ValueError: A program failed, or the networks have different numbers of parameters.
    """
    environment = limited_environment(task.cores)
    with TemporaryDirectory() as folder, ExitStack() as running:
        programs = {}
        for name in (OURS, *peers):
            python = str(peers_python) if name == "pytorch" else sys.executable
            command = [python, *PROGRAMS[name], task.to_argument(), *ARGUMENTS.get(name, [])]
            log = Path(folder) / f"{name}.log"
            programs[name] = running.enter_context(Program(name, command, environment, log))
        parameters = {name: program.told["parameters"] for name, program in programs.items()}
        if len(set(parameters.values())) > 1:
            raise ValueError(
                f"the networks {task.architecture} must have the same number of parameters, got "
                f"{parameters}. Mend benchmarks/peers."
            )
        steps = {
            name: max(1, round(seconds * FIRST_STEPS / program.seconds(FIRST_STEPS)))
            for name, program in programs.items()
        }
        rates: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(rounds):
            for name, program in programs.items():
                images = steps[name] * task.batch_size
                rates[name].append(images / program.seconds(steps[name]))
    return {
        name: Result(told["form"], told["versions"], told["parameters"], rates[name])
        for name, told in ((name, program.told) for name, program in programs.items())
    }


def spread(ours: Result, other: Result) -> str:
    """The range over the rounds of how many times as fast ours is."""
    rounds = [one / two for one, two in zip(ours.rates, other.rates, strict=True)]
    return f"{min(rounds):.2f} to {max(rounds):.2f}"


def names(given: str, known: tuple[str, ...], option: str) -> list[str]:
    """Names with commas between.

    Raises:
        ValueError: One is not known.
    """
    found = [name.strip() for name in given.split(",") if name.strip()]
    if unknown := [name for name in found if name not in known]:
        raise ValueError(f"{option} must be among {', '.join(known)}, got {', '.join(unknown)}.")
    return found


def main(
    architectures: Annotated[str, typer.Option(help="with commas between")] = (
        "unet,unetpp,attention_unet"
    ),
    sizes: Annotated[str, typer.Option(help="height and width in pixels")] = "128,256",
    normalisations: Annotated[str, typer.Option(help="with commas between")] = "batch,instance",
    batch_size: Annotated[int, typer.Option(min=1, help="images of a step")] = 8,
    peers: Annotated[
        str, typer.Option(help=f"among {', '.join(list(PROGRAMS)[1:])}")
    ] = DEFAULT_PEERS,
    peers_python: Annotated[Path, typer.Option(help="Python of the peers' environment")] = PEERS
    / ".venv"
    / "bin"
    / "python",
    torch_compile: Annotated[
        bool, typer.Option(help="PyTorch tries torch.compile too; wants a C++ compiler")
    ] = False,
    cores: Annotated[int, typer.Option(min=1, help="threads of each program")] = 2,
    seconds: Annotated[float, typer.Option(min=0.1, help="of a turn, about")] = 3.0,
    rounds: Annotated[int, typer.Option(min=1, help="the median of them is told")] = 7,
) -> None:
    """Times a training step of this project, PyTorch and stock Keras on the same networks.

    Example: python benchmarks/training.py --architectures unet --sizes 128 --seconds 2 --rounds 3
    """
    chosen = names(peers, tuple(PROGRAMS)[1:], "--peers")
    networks = names(architectures, ("unet", "unetpp", "attention_unet"), "--architectures")
    norms = names(normalisations, ("batch", "instance"), "--normalisations")
    if "pytorch" in chosen and not peers_python.is_file():
        raise FileNotFoundError(
            f"{peers_python}: no such Python. Make the peers' environment as benchmarks/README.md "
            "says, name it with --peers-python, or leave pytorch out of --peers."
        )
    bind_to_cores(cores)
    tasks = [
        Task(architecture, norm, int(size), cores, batch_size, compiled=torch_compile)
        for norm in norms
        for architecture in networks
        for size in sizes.split(",")
    ]
    table = Table(
        "network", "normalisation", "pixels", OURS, *chosen, *(f"ours / {name}" for name in chosen)
    )
    notes = []
    versions: set[str] = set()
    with terminal.progress("timing", len(tasks)) as step:
        for task in tasks:
            found = compare(task, chosen, peers_python, seconds=seconds, rounds=rounds)
            ours = found[OURS]
            table.add_row(
                task.architecture, task.normalisation, str(task.size),
                *(f"{result.rate:.1f}" for result in found.values()),
                *(f"{ours.rate / found[name].rate:.2f}" for name in chosen),
            )  # fmt: skip
            notes.append(
                f"{task.architecture} {task.normalisation} {task.size}: "
                f"{ours.parameters:,} parameters; {ours.form}; "
                + "; ".join(
                    f"{name} in {found[name].form}, ratio {spread(ours, found[name])}"
                    for name in chosen
                )
            )
            versions |= {result.versions for result in found.values()}
            step()
    terminal.console.print(table)
    terminal.console.print(
        f"images a second of training steps of {batch_size}, each the median of {rounds} turns of "
        f"{seconds:g} s. {machine()}, {cores} used; {', '.join(sorted(versions))}; "
        f"{date.today().isoformat()}"
    )
    terminal.console.print("\n".join(notes))


if __name__ == "__main__":
    terminal.run(main)
