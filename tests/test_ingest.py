import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from src.data.phantom import write_phantom
from src.ingest import forget_the_demo
from src.stages.audit import DEMO_HASH

ROOT = Path(__file__).parent.parent


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def with_the_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone that still holds the demo: data/, data.dvc with the demo remote."""
    folder = tmp_path_factory.mktemp("clone")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    shutil.copy(ROOT / "params.yaml", folder)
    assert run(folder, "dvc", "init", "-q").returncode == 0
    assert run(folder, "dvc", "config", "core.analytics", "false").returncode == 0
    assert run(folder, "dvc", "remote", "add", "demo", "demo-remote").returncode == 0
    write_phantom(folder / "data", patients=3, seed=1)
    assert run(folder, "dvc", "add", "-q", "data").returncode == 0
    text = (folder / "data.dvc").read_text(encoding="utf-8")
    (folder / "data.dvc").write_text(text + "  remote: demo\n", encoding="utf-8")
    return folder


@pytest.fixture
def repository(with_the_demo: Path, tmp_path: Path) -> Path:
    """Such a clone of a test's own."""
    return shutil.copytree(with_the_demo, tmp_path / "repository", symlinks=True)


def test_own_data_replace_the_demo_and_the_demo_remote_is_gone(
    repository: Path, tmp_path: Path
) -> None:
    write_phantom(tmp_path / "mine", patients=4, seed=2)
    done = run(repository, "src.ingest", str(tmp_path / "mine"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 patients in data/" in done.stdout
    assert len(list((repository / "data" / "images").glob("*/*"))) == 4
    assert "remote" not in YAML(typ="safe").load(repository / "data.dvc")["outs"][0]
    settings = (repository / ".dvc" / "config").read_text(encoding="utf-8")
    assert "demo" not in settings
    assert "analytics = false" in settings
    assert len(list((tmp_path / "mine" / "images").glob("*/*"))) == 4


def test_no_empty_folder_of_earlier_data_is_left(repository: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "first", patients=4, seed=2)
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    first = next(iter((tmp_path / "first" / "images").iterdir()))
    for role in ("images", "masks"):
        shutil.move(tmp_path / "second" / role / first.name, tmp_path / "second" / role / "other")
    for name in ("first", "second"):
        done = run(repository, "src.ingest", str(tmp_path / name))
        assert done.returncode == 0, done.stdout + done.stderr
    here = {path.name for path in (repository / "data" / "images").iterdir()}
    assert "other" in here
    assert first.name not in here


def test_files_that_were_pushed_into_the_repository_are_told_of(
    repository: Path, tmp_path: Path
) -> None:
    pushed = repository / "demo-remote" / "files" / "md5" / "ab" / "cdef"
    pushed.parent.mkdir(parents=True)
    pushed.write_bytes(b"an image")
    write_phantom(tmp_path / "mine", patients=4, seed=2)
    done = run(repository, "src.ingest", str(tmp_path / "mine"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "demo-remote/: found 1 file that git does not hold, such as demo-remote/" in done.stderr
    subprocess.run(["git", "clean", "-fdxq", "demo-remote"], cwd=repository, check=True)
    assert not pushed.exists()


def test_a_linked_folder_is_an_error_for_dvc_would_leave_it_out(
    repository: Path, tmp_path: Path
) -> None:
    write_phantom(tmp_path / "mine", patients=4, seed=2)
    first = min((tmp_path / "mine" / "images").iterdir())
    kept = tmp_path / "elsewhere"
    shutil.move(first, kept)
    first.symlink_to(kept, target_is_directory=True)
    done = run(repository, "src.ingest", str(tmp_path / "mine"))
    assert done.returncode == 1
    assert f"images/{first.name}: a link to a folder, which DVC does not follow" in done.stdout
    assert len(list((repository / "data" / "images").glob("*/*"))) == 3  # as before
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-rL", str(tmp_path / "mine"), str(copy)], check=True)  # the remedy
    done = run(repository, "src.ingest", str(copy))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((repository / "data" / "images").glob("*/*"))) == 4


def test_a_linked_file_is_brought_in_as_what_it_leads_to(repository: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "mine", patients=4, seed=2)
    first = min((tmp_path / "mine" / "images").rglob("*.png"))
    content = first.read_bytes()
    first.rename(tmp_path / "elsewhere.png")
    first.symlink_to(tmp_path / "elsewhere.png")
    done = run(repository, "src.ingest", str(tmp_path / "mine"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (repository / "data" / first.relative_to(tmp_path / "mine")).read_bytes() == content


def test_data_with_an_error_change_nothing(repository: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "mine", patients=4, seed=2)
    broken = sorted((tmp_path / "mine" / "images").rglob("*.png"))[0]
    broken.write_bytes(broken.read_bytes()[:-200])
    before = (repository / "data.dvc").read_bytes()
    done = run(repository, "src.ingest", str(tmp_path / "mine"))
    assert done.returncode == 1
    assert "nothing was brought in" in done.stderr
    assert broken.name in done.stdout
    told = (repository / "prepared" / "ingest_findings.csv").read_text(encoding="utf-8")
    assert broken.name in told
    assert "prepared/ingest_findings.csv" in done.stderr
    assert (repository / "data.dvc").read_bytes() == before
    assert len(list((repository / "data" / "images").glob("*/*"))) == 3


def test_changed_data_are_not_overwritten(repository: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "mine", patients=4, seed=2)
    (repository / "data" / "mine.txt").write_text("kept nowhere else", encoding="utf-8")
    done = run(repository, "src.ingest", str(tmp_path / "mine"))
    assert done.returncode == 1
    assert "data/ differs from what data.dvc names" in done.stderr
    assert "`python -m src.ingest data` to keep it" in done.stderr
    assert (repository / "data" / "mine.txt").is_file()


def test_names_in_the_parameters_are_told_before_they_are_committed(
    repository: Path, tmp_path: Path
) -> None:
    write_phantom(tmp_path / "mine", patients=4, seed=2)
    path, yaml = repository / "params.yaml", YAML()
    content = yaml.load(path)
    content["split"]["test_patients"] = ["patient_001"]
    yaml.dump(content, path)
    done = run(repository, "src.ingest", str(tmp_path / "mine"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no name but in split.test_patients" in done.stdout
    assert "commit neither, or write `test_patients: [P-" in done.stderr


def own_data_in_place(repository: Path) -> None:
    shutil.rmtree(repository / "data")
    write_phantom(repository / "data", patients=4, seed=2)


def test_data_that_lie_in_place_are_versioned_there_and_cannot_be_pushed_to_the_demo(
    repository: Path,
) -> None:
    own_data_in_place(repository)
    done = run(repository, "src.ingest", "data")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 patients in data/" in done.stdout
    assert "was replaced" not in done.stdout
    assert "remote" not in YAML(typ="safe").load(repository / "data.dvc")["outs"][0]
    assert run(repository, "dvc", "status", "--quiet", "data.dvc").returncode == 0
    assert run(repository, "dvc", "push").returncode != 0  # there is no remote
    assert not (repository / "demo-remote").exists()
    assert len(list((repository / "data" / "images").glob("*/*"))) == 4


def test_data_in_place_with_an_error_are_not_versioned(repository: Path) -> None:
    own_data_in_place(repository)
    broken = min((repository / "data" / "images").rglob("*.png"))
    broken.write_bytes(broken.read_bytes()[:-200])
    before = (repository / "data.dvc").read_bytes()
    done = run(repository, "src.ingest", "data")
    assert done.returncode == 1
    assert broken.name in done.stdout
    assert (repository / "data.dvc").read_bytes() == before


def test_data_that_were_never_versioned_are_told_the_way(repository: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "mine", patients=4, seed=2)
    (repository / "data.dvc").unlink()
    done = run(repository, "src.ingest", str(tmp_path / "mine"))
    assert done.returncode == 1
    assert "Run `python -m src.ingest data` to version it" in done.stderr
    done = run(repository, "src.ingest", "data")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 patients in data/" in done.stdout


def test_a_part_of_data_is_not_versioned_alone(repository: Path) -> None:
    done = run(repository, "src.ingest", "data/images")
    assert done.returncode == 1
    assert "data/images is a part of data/, expected all of it" in done.stderr


def test_a_link_in_the_place_of_data_is_told_for_dvc_would_not_follow_it(
    repository: Path, tmp_path: Path
) -> None:
    (repository / "data").rename(tmp_path / "mine")
    (repository / "data").symlink_to(tmp_path / "mine", target_is_directory=True)
    done = run(repository, "src.ingest", "data")
    assert done.returncode == 1
    assert f"data/ is a link to {tmp_path / 'mine'}, expected a folder" in done.stderr
    (repository / "data").unlink()  # the remedy
    done = run(repository, "src.ingest", str(tmp_path / "mine"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_audit_stops_where_own_data_would_be_pushed_to_the_demo_until_they_are_ingested(
    repository: Path,
) -> None:
    version = repository / "data.dvc"
    digest = YAML(typ="safe").load(version)["outs"][0]["md5"]
    version.write_text(version.read_text(encoding="utf-8").replace(digest, DEMO_HASH), "utf-8")
    stage = {"cmd": f"{sys.executable} -m src.stages.audit", "deps": ["data"]}
    YAML().dump({"stages": {"audit": stage}}, repository / "dvc.yaml")
    own_data_in_place(repository)
    done = run(repository, "dvc", "repro")
    assert done.returncode != 0
    out = YAML(typ="safe").load(version)["outs"][0]  # DVC itself wrote it again, remote and all
    assert (out["md5"] != DEMO_HASH, out["remote"]) == (True, "demo")
    assert "data.dvc: found `remote: demo` beside data that are not the demo" in done.stderr
    # A push by mistake makes them no demo.
    assert run(repository, "dvc", "push").returncode == 0
    assert run(repository, "src.stages.audit").returncode == 1
    assert not (repository / "prepared").exists()
    assert run(repository, "src.ingest", "data").returncode == 0
    done = run(repository, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (repository / "prepared" / "cases.csv").is_file()


def test_the_audit_of_the_demo_goes_on(repository: Path) -> None:
    version = repository / "data.dvc"
    digest = YAML(typ="safe").load(version)["outs"][0]["md5"]
    version.write_text(version.read_text(encoding="utf-8").replace(digest, DEMO_HASH), "utf-8")
    done = run(repository, "src.stages.audit")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_missing_folder_is_named(repository: Path) -> None:
    done = run(repository, "src.ingest", "nowhere")
    assert done.returncode == 1
    assert "nowhere: no such folder" in done.stderr


def test_the_demo_is_forgotten_once_and_a_remote_of_ones_own_is_kept(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(repository, "dvc", "remote", "add", "-d", "private", "/private").returncode == 0
    monkeypatch.chdir(repository)
    forget_the_demo(repository)
    forget_the_demo(repository)  # bringing in data a second time finds no demo, and says nothing
    assert capfd.readouterr() == ("", "")
    settings = (repository / ".dvc" / "config").read_text(encoding="utf-8")
    assert "demo" not in settings
    assert "remote = private" in settings
    assert "url = /private" in settings
