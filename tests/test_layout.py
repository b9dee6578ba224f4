"""The rules of the house that a reader cannot be asked to check by eye."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from src.stages.audit import DEMO_HASH

ROOT = Path(__file__).parent.parent
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
PACKAGES = ("data", "models", "evaluation", "tracking", "figures", "search")
QUIET = ROOT / "src" / "__init__.py"  # how much TensorFlow says: no result depends on it


def path_of(module: str) -> Path | None:
    """The file of a module of this project; None for any other."""
    base = ROOT / module.replace(".", "/")
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def imported(path: Path) -> set[Path]:
    """The files of this project that a file imports, within functions too."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found |= {file for name in names if name.startswith("src") and (file := path_of(name))}
    return {file for file in found if file.stat().st_size and file != QUIET}


def reached(path: Path) -> set[Path]:
    """All files of this project that a file needs, itself included."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += imported(file)
    return seen


@pytest.mark.parametrize("stage", STAGES)
def test_every_module_that_a_stage_imports_is_among_its_deps(stage: str) -> None:
    deps = [ROOT / dep for dep in STAGES[stage]["deps"] if "$" not in dep]
    module = STAGES[stage]["cmd"].split()[2]
    start = path_of(module)
    assert start is not None
    missing = [
        str(file.relative_to(ROOT))
        for file in reached(start)
        if not any(file == dep or dep in file.parents for dep in deps)
    ]
    assert sorted(missing) == []


def test_the_pipeline_names_no_architecture_so_that_any_list_of_them_runs() -> None:
    assert "unet" not in (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    # What is compared lies below a dependency that names no architecture and no fold.
    deps = {Path(dep) for dep in STAGES["compare"]["deps"]}
    for stage, folder in (("train", "models"), ("evaluate", "reports")):
        (out,) = (
            Path(o) for o in STAGES[stage]["outs"] if o.startswith(folder) and "curves" not in o
        )
        assert deps & set(out.parents)


def test_every_fold_has_outputs_of_its_own() -> None:
    for stage in ("prepare", "train", "evaluate"):
        assert STAGES[stage]["matrix"]["fold"] == "${split.fold}"
        assert STAGES[stage]["cmd"].endswith("${item.fold}")
        for out in STAGES[stage]["outs"]:
            assert out.endswith("/fold${item.fold}")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_middle_package_imports_no_sibling_and_nothing_above_it(package: str) -> None:
    shared = ("addresses.py", "files.py", "label_values.py", "terminal.py", "processor.py")
    allowed = {ROOT / "src" / name for name in shared}
    folder = ROOT / "src" / package
    wrong = {
        f"{file.name} imports {other.relative_to(ROOT)}"
        for file in folder.glob("*.py")
        for other in imported(file)
        if folder not in other.parents and other not in allowed
    }
    assert wrong == set()


def test_each_large_library_is_imported_in_one_place() -> None:
    importers: dict[str, set[str]] = {"mlflow": set(), "matplotlib": set(), "optuna": set()}
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                if name.split(".")[0] in importers:
                    part = file.relative_to(ROOT / "src").parts[0]
                    importers[name.split(".")[0]].add(part)
    assert importers["mlflow"] == {"tracking", "packaged_model.py"}
    assert importers["matplotlib"] == {"figures"}
    assert importers["optuna"] == {"search"}


@pytest.mark.parametrize(
    "module",
    [
        "src.stages.parameters",
        "src.stages.audit",
        "src.stages.split",
        "src.stages.train",
        "src.stages.evaluate",
        "src.stages.compare",
        "src.stages.report",
        "src.data.phantom",
        "src.ingest",
        "src.score",
        "src.ui",
        "src.tune",
        "src.dashboard",
    ],
)
def test_help_starts_no_large_library_and_has_an_example(module: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{module!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit:\n"
        "    pass\n"
        "print('LOADED', sorted({'tensorflow', 'keras', 'mlflow', 'optuna'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "LOADED []" in done.stdout
    assert f"Example: python -m {module}" in done.stdout


@pytest.mark.parametrize(("set_before", "found"), [({}, "2"), ({"TF_CPP_MIN_LOG_LEVEL": "0"}, "0")])
def test_tensorflow_is_asked_to_be_quiet_unless_the_user_says_otherwise(
    set_before: dict[str, str], found: str
) -> None:
    clean = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    code = "import os, src; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=clean | set_before,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == found


def test_the_demo_remote_holds_the_demo_data_and_nothing_else() -> None:
    yaml = YAML(typ="safe")
    listed = yaml.load(ROOT / "data.dvc")["outs"][0]
    if listed.get("remote") != "demo":
        pytest.skip("this clone holds data of its own; the demo remote is not used")
    assert listed["md5"] == DEMO_HASH
    files = [path for path in (ROOT / "demo-remote").rglob("*") if path.is_file()]
    table = ROOT / "demo-remote" / "files" / "md5" / DEMO_HASH[:2] / DEMO_HASH[2:]
    entries = yaml.load(table.read_text(encoding="utf-8"))
    wanted = {entry["md5"] for entry in entries} | {DEMO_HASH}
    assert {path.parent.name + path.name for path in files} == wanted
    assert sum(path.stat().st_size for path in files) < 8 * 2**20


@pytest.mark.parametrize(
    "path",
    [
        "demo-remote/files/md5/ab/0123456789abcdef0123456789abcd",  # pushed by mistake
        "accuracy/cases/test/images/P-3f9c1e2a.png",
        "hu.npy",
        "nnunet_masks/Doe.nii.gz",
        "docs/Doe.dcm",
    ],
)
def test_git_takes_no_scan(path: str) -> None:
    done = subprocess.run(["git", "check-ignore", "--quiet", path], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_git_ignores_no_file_of_the_project_but_those_of_the_demo() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--ignored", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    assert [name for name in listed if name and not name.startswith("demo-remote/")] == []
