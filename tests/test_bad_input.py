"""Broken data, wrong parameters and disks that take no more, met at the command line.

Each ends in exit code 1 and one message that names the file or the parameter and says what to do;
outputs are absent, or the whole ones of an earlier run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from src import tracking
from tests.data.conftest import add_patient, organ, write_picture

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("parameters", "audit", "split", "prepare", "train unet", "evaluate unet", "compare")


def command(stage: str) -> list[str]:
    name, *arguments = stage.split()
    return [sys.executable, "-m", f"src.stages.{name}", *arguments]


def run(folder: Path, *line: str) -> subprocess.CompletedProcess[str]:
    # Some forty interpreters are started: they may keep what they compiled.
    unwanted = ("MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE", "CT_SEGMENTATION_TRACEBACK")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    wide = {"COLUMNS": "500"}  # no sentence of a table is broken
    return subprocess.run(
        line, cwd=folder, env=kept | wide | {"PYTHONPATH": str(ROOT)}, check=False, timeout=300,
        capture_output=True, text=True,
    )  # fmt: skip


def message(done: subprocess.CompletedProcess[str]) -> str:
    """The one message of a command that failed as it should."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    _, *told = re.split("^error: ", done.stderr, flags=re.MULTILINE)
    assert len(told) == 1, done.stderr
    return str(told[0])


def files(folder: Path) -> dict[str, bytes]:
    """Everything that was made of the data: path -> content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in ("prepared", "reports", "models")
        for path in (folder / name).rglob("*")
        if path.is_file()
    }


def change(folder: Path, **parameters: Any) -> None:
    """Sets parameters; a double underscore stands for the dot."""
    yaml = YAML()
    content = yaml.load(folder / "params.yaml")
    for name, value in parameters.items():
        *groups, last = name.split("__")
        node = content
        for group in groups:
            node = node[group]
        node[last] = value
    yaml.dump(content, folder / "params.yaml")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients and right parameters; nothing was made of them yet."""
    folder = tmp_path_factory.mktemp("healthy")
    shutil.copy(ROOT / "params.yaml", folder)
    change(
        folder,
        data__classes=["background", "organ"], data__labels={0: "background", 1: "organ"},
        data__source=None, split__stratify_class="organ", prepare__image_size=[32, 32],
        architectures=["unet"], train__model__depth=2,
    )  # fmt: skip
    for seed in range(4):
        add_patient(folder / "data", f"P{seed}", seed)
    return folder


@pytest.fixture(scope="module")
def prepared(healthy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after the stages audit, split and prepare, with a model from before."""
    folder = tmp_path_factory.mktemp("prepared") / "copy"
    shutil.copytree(healthy, folder)
    for stage in STAGES[:4]:
        done = run(folder, *command(stage))
        assert done.returncode == 0, done.stdout + done.stderr
    (folder / "models" / "unet" / "fold0").mkdir(parents=True)
    (folder / "models" / "unet" / "fold0" / "model.json").write_text(
        "from before", encoding="utf-8"
    )
    return folder


@pytest.fixture
def fresh(healthy: Path, tmp_path: Path) -> Path:
    """A copy of `healthy` that a test may break."""
    return Path(shutil.copytree(healthy, tmp_path / "copy"))


@pytest.fixture
def later(prepared: Path, tmp_path: Path) -> Path:
    """A copy of `prepared` that a test may break."""
    return Path(shutil.copytree(prepared, tmp_path / "copy"))


# --- Parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_refuses_a_misspelt_parameter_and_touches_nothing(
    later: Path, stage: str
) -> None:
    change(later, train__lerning_rate=0.1)
    before = files(later)
    told = message(run(later, *command(stage)))
    assert "params.yaml has 1 wrong line" in told
    assert "train.lerning_rate: unknown parameter; did you mean learning_rate?" in told
    assert files(later) == before


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("train__learning_rate", 2, "train.learning_rate: got 2, input should be less than"),
        ("train__epochs", "many", "train.epochs: got 'many', input should be a valid integer"),
        (
            "prepare__image_size",
            [30, 30],
            "prepare.image_size: must be divisible by 4 (train.model.depth 2)",
        ),
        ("split__stratify_class", "tumour", "split.stratify_class: must be one of ['organ']"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_right(
    fresh: Path, name: str, value: object, words: str
) -> None:
    change(fresh, **{name: value})
    told = message(run(fresh, *command("audit")))
    assert "params.yaml has 1 wrong line" in told
    assert words in told
    assert files(fresh) == {}


def test_a_file_that_is_no_yaml_is_told_with_the_line(fresh: Path) -> None:
    (fresh / "params.yaml").write_text("data:\n  classes: [background\n", encoding="utf-8")
    told = message(run(fresh, *command("audit")))
    assert "params.yaml is not valid YAML" in told
    assert "line 3" in told


def test_without_parameters_the_way_back_is_told(fresh: Path) -> None:
    (fresh / "params.yaml").unlink()
    assert "`git checkout params.yaml`" in message(run(fresh, *command("audit")))


def test_a_test_patient_that_is_not_in_the_data_is_named(later: Path) -> None:
    change(later, split__test_patients=["P1", "P9"])
    before = files(later)
    told = message(run(later, *command("split")))
    assert "split.test_patients names ['P9'], not among the 4 patients" in told
    assert files(later) == before


def test_a_test_patient_by_name_is_warned_of_and_its_pseudonym_is_the_same_without(
    later: Path,
) -> None:
    change(later, split__test_patients=["P1"])
    named = run(later, *command("split"))
    assert named.returncode == 0, named.stderr
    told = re.search(r"commit neither, or write `test_patients: \[(P-[0-9a-f]{8})\]`", named.stderr)
    assert told, named.stderr
    sides = (later / "prepared" / "split.csv").read_bytes()
    assert b"P1,0,test\n" in sides
    assert told[1] in (later / "reports" / "split.json").read_text(encoding="utf-8")
    change(later, split__test_patients=[told[1]])
    done = run(later, *command("split"))
    assert done.returncode == 0, done.stderr
    assert "split.test_patients" not in done.stderr
    assert (later / "prepared" / "split.csv").read_bytes() == sides


# --- Data -----------------------------------------------------------------------------------------


def no_file(data: Path) -> None:
    shutil.rmtree(data)
    data.mkdir()


def no_mask(data: Path) -> None:
    shutil.rmtree(data / "masks")


def cut_short(data: Path) -> None:
    path = data / "images" / "P1" / "0.png"
    path.write_bytes(path.read_bytes()[:-50])


def mask_of_another_size(data: Path) -> None:
    write_picture(data / "masks" / "P1" / "0.png", organ(size=48)[0])


def unknown_label(data: Path) -> None:
    write_picture(data / "masks" / "P1" / "0.png", organ(value=255)[0])


def one_patient(data: Path) -> None:
    for kind in ("images", "masks"):
        for name in ("P1", "P2", "P3"):
            shutil.rmtree(data / kind / name)


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (no_file, ("no file that can be read", "`python -m src.ingest FOLDER`")),
        (no_mask, ("none of them a mask", "add your word to data.mask_words")),
        (cut_short, ("images/P1/0.png: a PNG without its end", "Copy or export the file again")),
        (
            mask_of_another_size,
            ("masks/P1/0.png: a mask of 1 × 48 × 48", "Export the mask on the grid of its image"),
        ),
        (unknown_label, ("masks/P1/0.png: the values 255", "data.labels of params.yaml")),
        (one_patient, ("1 patient (expected: at least 3", "Add patients")),
    ],
)
def test_broken_data_are_told_with_the_file_and_the_remedy(
    later: Path, breaks: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    breaks(later / "data")
    before = files(later)
    done = run(later, *command("audit"))
    told = message(done)
    assert "1 error in the data" in told
    assert "prepared/findings.csv" in told
    for part in words:
        assert part in done.stdout
    after = files(later)
    # The case table of the data as they were would let the next stage go on.
    assert "prepared/cases.csv" not in after
    assert "Make it with `dvc repro audit`" in message(run(later, *command("split")))
    # The two lists of findings are new; all else is as it was, and nothing is half-written.
    new = {"prepared/findings.csv", "reports/audit.json"}
    assert set(after) == set(before) - {"prepared/cases.csv"}
    assert {name for name in after if after[name] != before[name]} == new


def test_without_a_data_folder_both_ways_to_one_are_told(fresh: Path) -> None:
    shutil.rmtree(fresh / "data")
    told = message(run(fresh, *command("audit")))
    assert "data: no such folder" in told
    assert "`dvc pull data.dvc`" in told
    assert "`python -m src.ingest FOLDER`" in told
    assert files(fresh) == {}


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("split", "prepared/cases.csv: no case table there. Make it with `dvc repro audit`"),
        ("prepare", "prepared/split.csv is missing. Make it with `dvc repro split`"),
        (
            "train unet",
            "prepared/arrays/fold0: no prepared arrays there. Make them with",
        ),
        ("evaluate unet", "prepared/split.csv is missing. Make it with `dvc repro split`"),
        ("compare", "Make it with `dvc repro evaluate@unet-0`"),
    ],
)
def test_a_stage_without_its_input_names_the_command_that_makes_it(
    fresh: Path, stage: str, words: str
) -> None:
    assert words in message(run(fresh, *command(stage)))
    assert files(fresh) == {}


def test_wrong_use_of_a_command_is_code_2(fresh: Path) -> None:
    done = run(fresh, *command("train"))
    assert done.returncode == 2
    assert "Missing argument" in done.stderr


# --- Disks that take no more ----------------------------------------------------------------------

# The folder becomes a small disk of its own, which this process and its children alone see: it is
# filled up or made read-only, the command runs, and what it left is copied out. Permission bits
# would not hold back root, as whom tests often run in containers.
DISK = """
state=$1 folder=$2 disk=$3 after=$4; shift 4
mount -t tmpfs -o size=32m small "$disk" && cp -a "$folder/." "$disk" || exit 99
mount --bind "$disk" "$folder" && cd "$folder" || exit 99
case $state in
    full) head -c 32m /dev/zero > filler 2> /dev/null ;;
    read-only) mount -o remount,bind,ro "$folder" || exit 99 ;;
esac
"$@"
code=$?
rm -f filler 2> /dev/null
cp -a . "$after" && exit $code
"""
ALONE = ["unshare", "--map-root-user", "--mount"]


@pytest.fixture(scope="module")
def mounts() -> None:
    """Skips where the system lets nobody mount, as in most containers."""
    tried = "mount -t tmpfs small /tmp && mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp"
    if (
        shutil.which("unshare") is None
        or subprocess.run([*ALONE, "sh", "-c", tried], check=False, capture_output=True).returncode
    ):
        pytest.skip("needs unshare(1) and the right to mount a disk of its own")


def on_a_disk(
    state: str, folder: Path, *line: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, bytes]]:
    """Runs a command in a folder on a full or a read-only disk; its outputs afterwards."""
    disk, after = folder.parent / "disk", folder.parent / "after"
    disk.mkdir()
    after.mkdir()
    around = ["sh", "-c", DISK, "sh", state, str(folder), str(disk), str(after)]
    return run(folder, *ALONE, *around, *line), files(after)


@pytest.mark.usefixtures("mounts")
@pytest.mark.parametrize(
    ("stage", "named"),
    [("split", "prepared/split.csv"), ("prepare", "prepared/arrays/fold0")],
)
@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("full", "the disk is full. Free some space, then run the same command again"),
        ("read-only", "the folder is read-only. Work in a folder that you may write to"),
    ],
)
def test_a_disk_that_takes_no_more_leaves_the_earlier_outputs(
    later: Path, stage: str, named: str, state: str, words: str
) -> None:
    before = files(later)
    done, after = on_a_disk(state, later, *command(stage))
    assert f"{named}: {words}" in message(done)
    assert after == before


@pytest.mark.usefixtures("mounts")
@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("full", "reports/audit.json: the disk is full"),
        ("read-only", "reports: the folder is read-only"),
    ],
)
def test_a_first_audit_on_a_disk_that_takes_no_more_leaves_nothing(
    fresh: Path, state: str, words: str
) -> None:
    done, after = on_a_disk(state, fresh, *command("audit"))
    assert words in message(done)
    assert after == {}


@pytest.mark.usefixtures("mounts")
@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("full", "mlruns/mlflow.db: the disk is full"),
        ("read-only", "mlruns: the folder is read-only"),
    ],
)
def test_a_store_that_cannot_be_made_is_told_and_not_half_made(
    fresh: Path, state: str, words: str
) -> None:
    done, _ = on_a_disk(state, fresh, sys.executable, "-m", "src.ui", "--port", "1")
    assert words in message(done)
    assert not (fresh.parent / "after" / "mlruns" / "mlflow.db").exists()


@pytest.mark.usefixtures("mounts")
def test_a_training_that_cannot_be_logged_is_told_and_leaves_the_earlier_model(
    later: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking.open_store(later)
    before = files(later)
    done, after = on_a_disk("full", later, *command("train unet"))
    assert "mlruns/mlflow.db: the disk is full. Free some space" in message(done)
    assert after == before
