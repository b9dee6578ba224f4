"""What a stage that trains and runs no network need not wait for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.conftest import ct, organ, write_picture

ROOT = Path(__file__).parents[1]
RUN = (
    "import runpy, sys\n"
    "sys.argv = sys.argv[1:]\n"
    "try:\n"
    "    runpy.run_module(sys.argv[0], run_name='__main__')\n"
    "except SystemExit as end:\n"
    "    assert not end.code, end.code\n"
    "found = {name.split('.')[0] for name in sys.modules}\n"
    "print('LOADED', sorted({'tensorflow', 'keras', 'mlflow', 'matplotlib'} & found))\n"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which audit, split and prepare can be run, one after the other."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "params.yaml", folder)
    for patient in range(6):
        place = f"scanner_a/P{patient}"
        for number in range(2):
            hu = ct(10 * patient + number)[0]
            stored = (hu + 1024).astype("uint16")
            write_picture(folder / "data" / "images" / place / f"{number}.png", stored)
            mask = organ()[0]
            mask[20:, 20:] *= 2  # a quarter of the organ is lesion
            write_picture(folder / "data" / "masks" / place / f"{number}.png", mask)
    return folder


@pytest.mark.parametrize("stage", [["parameters"], ["audit"], ["split"], ["prepare", "0"]])
def test_a_stage_without_a_network_imports_no_large_library(
    project: Path, stage: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, f"src.stages.{stage[0]}", *stage[1:]],
        cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_help_on_studies_imports_no_large_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, "src.tune", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"
