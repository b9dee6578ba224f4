"""What becomes of networks and folds that come and go; DVC itself runs the stages."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from src.stages.leftovers import remove_unlisted

ROOT = Path(__file__).parents[2]
PLACES = ("models", "reports/curves", "reports/evaluation", "prepared/predictions")
MAKE = """
import sys
from pathlib import Path

for name in sys.argv[1:]:
    Path(name, "deep").mkdir(parents=True)
    Path(name, "weights").write_text(name)
    Path(name, "deep", "notes").write_text("of " + name)
with Path("made.log").open("a") as stream:
    print(*sys.argv[1:], file=stream)
"""
COMPARE = """
from pathlib import Path
from ruamel.yaml import YAML
from src.stages.leftovers import remove_unlisted

params = YAML(typ="safe").load(Path("params.yaml"))
remove_unlisted(Path.cwd(), params["architectures"], params["split"]["fold"])
Path("compared.txt").write_text(str(params))
"""


def dvc(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def make(folder: Path) -> None:
    """A repository with the outputs of this one, made of a line of text in place of a training."""
    folder.mkdir()
    (folder / "make.py").write_text(MAKE, encoding="utf-8")
    (folder / "compare.py").write_text(COMPARE, encoding="utf-8")
    (folder / ".gitignore").write_text("/models/\n/reports/\n/prepared/\n", encoding="utf-8")
    outs = [f"{place}/${{item.architecture}}/fold${{item.fold}}" for place in PLACES]
    arrays = "prepared/arrays/fold${item.fold}"
    matrix = {"architecture": "${architectures}", "fold": "${split.fold}"}
    python = sys.executable
    content = {
        "prepare": {"matrix": {"fold": "${split.fold}"}, "cmd": f"{python} make.py {arrays}",
                    "deps": ["make.py"], "outs": [arrays]},
        "train": {"matrix": matrix, "cmd": f"{python} make.py {' '.join(outs)}",
                  "deps": ["make.py", arrays], "outs": outs},
        "compare": {"cmd": f"{python} compare.py", "outs": ["compared.txt"],
                    "deps": ["compare.py", "models", "reports/evaluation"],
                    "params": ["architectures", "split.fold"]},
    }  # fmt: skip
    YAML().dump({"stages": content}, folder / "dvc.yaml")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    dvc(folder, "init", "-q")


def repro(folder: Path, architectures: list[str], folds: list[int]) -> str:
    params = {"architectures": architectures, "split": {"fold": folds}}
    YAML().dump(params, folder / "params.yaml")
    return dvc(folder, "repro")


def compared(folder: Path) -> Any:
    """What dvc.lock holds of the comparison."""
    return YAML(typ="safe").load(folder / "dvc.lock")["stages"]["compare"]


def outputs(folder: Path) -> set[str]:
    """All folders of a fold that are there."""
    places = [*(f"{place}/*/*" for place in PLACES), "prepared/arrays/*"]
    found = [path for place in places for path in folder.glob(place)]
    return {path.relative_to(folder).as_posix() for path in found if path.name.startswith("fold")}


def test_what_is_taken_off_the_lists_leaves_no_hash_behind_and_comes_back_from_the_cache(
    tmp_path: Path,
) -> None:
    ours, clone = tmp_path / "ours", tmp_path / "clone"
    make(ours)
    repro(ours, ["unet", "unetpp"], [0, 1])
    everything = outputs(ours)
    assert len(everything) == 2 + 2 * 2 * len(PLACES)
    assert "models/unetpp/fold1" in everything

    said = repro(ours, ["unet"], [0])
    assert "removed what params.yaml does not list: " in said
    assert outputs(ours) == {"prepared/arrays/fold0", *(f"{place}/unet/fold0" for place in PLACES)}
    assert [path.name for path in (ours / "models").iterdir()] == ["unet"]
    assert "up to date" in dvc(ours, "status")
    make(clone)
    repro(clone, ["unet"], [0])
    assert compared(ours) == compared(clone)

    runs = (ours / "made.log").read_text(encoding="utf-8")
    said = repro(ours, ["unet", "unetpp"], [0, 1])
    assert "Stage 'train@unetpp-1' is cached - skipping run" in said
    assert outputs(ours) == everything
    assert (ours / "models/unetpp/fold1/weights").read_text("utf-8") == "models/unetpp/fold1"
    assert (ours / "made.log").read_text(encoding="utf-8") == runs
    assert "removed" in repro(ours, ["unet"], [0])  # though DVC has seen this params.yaml before
    assert compared(ours) == compared(clone)


def test_what_a_user_put_there_is_left_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "ours"
    make(folder)
    repro(folder, ["unet", "unetpp"], [0])
    by_hand = ("models/attention_unet/fold0", "models/mine/fold0", "models/unetpp/fold0-before")
    for name in by_hand:
        shutil.copytree(folder / "models/unetpp/fold0", folder / name)
    (folder / "models/unetpp/fold0/weights").write_text("trained once more by hand", "utf-8")
    (folder / "reports/curves/unetpp/fold0").rename(folder / "elsewhere")
    (folder / "reports/curves/unetpp/fold0").symlink_to(folder / "elsewhere")
    (folder / "reports/evaluation/unetpp/notes.txt").write_text("mine", encoding="utf-8")
    remove_unlisted(folder, ["unet"], [0])
    said = capsys.readouterr()
    assert said.out.startswith(
        "removed what params.yaml does not list: reports/evaluation/unetpp/fold0, "
        "prepared/predictions/unetpp/fold0. "
    )
    left = "found models/unetpp/fold0, models/attention_unet/fold0, which params.yaml does not list"
    assert left in said.err
    assert (folder / "reports/evaluation/unetpp/notes.txt").is_file()
    assert (folder / "elsewhere/weights").is_file()
    assert outputs(folder) == {
        "prepared/arrays/fold0", "models/unetpp/fold0", "reports/curves/unetpp/fold0", *by_hand,
        *(f"{place}/unet/fold0" for place in PLACES),
    }  # fmt: skip


def test_where_dvc_keeps_nothing_nothing_is_removed(tmp_path: Path) -> None:
    (tmp_path / "models/unetpp/fold0").mkdir(parents=True)
    remove_unlisted(tmp_path, ["unet"], [0])
    assert (tmp_path / "models/unetpp/fold0").is_dir()


def test_what_the_cache_has_lost_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "ours"
    make(folder)
    repro(folder, ["unet", "unetpp"], [0])
    YAML().dump({"architectures": ["unet"], "split": {"fold": [0]}}, folder / "params.yaml")
    dvc(folder, "gc", "--workspace", "--force")
    remove_unlisted(folder, ["unet"], [0])
    said = capsys.readouterr()
    assert not said.out
    assert "found models/unetpp/fold0" in said.err
    assert (folder / "models/unetpp/fold0/weights").is_file()
