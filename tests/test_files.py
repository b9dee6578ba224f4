import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from src.files import md5_of, whole_file, whole_folder, write_text
from src.terminal import explain

ROOT = Path(__file__).parent.parent


def test_a_file_that_was_not_finished_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_text(path, "old")

    def stop_half_way() -> None:
        with whole_file(path) as aside:
            aside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stop_half_way()
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_text() == "old"


def test_a_file_that_finds_no_room_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from src.files import write_bytes\n"
        "write_bytes(Path(sys.argv[1]), b'old')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    write_bytes(Path(sys.argv[1]), bytes(1001))\n"
        "except OSError as error:\n"
        "    print(error.filename)\n"
    )
    path = tmp_path / "mask.png"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(path)
    assert [file.name for file in tmp_path.iterdir()] == ["mask.png"]
    assert path.read_text() == "old"


def test_a_folder_that_was_not_finished_leaves_the_old_one_and_nothing_else(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "arrays"
    with whole_folder(folder) as aside:
        (aside / "a").write_text("old")

    def stop_half_way() -> None:
        with whole_folder(folder) as aside:
            (aside / "a").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stop_half_way()
    assert [file.name for file in tmp_path.iterdir()] == ["arrays"]
    assert (folder / "a").read_text() == "old"


def test_a_finished_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with whole_folder(tmp_path / "arrays") as aside:
            (aside / name).write_text(name)
    assert [file.name for file in (tmp_path / "arrays").iterdir()] == ["b"]


def test_a_link_to_a_folder_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk" / "arrays").mkdir(parents=True)
    (tmp_path / "disk" / "arrays" / "old").write_text("old")
    link = tmp_path / "arrays"
    link.symlink_to(tmp_path / "disk" / "arrays")
    with whole_folder(link) as aside:
        (aside / "new").write_text("new")
    assert link.is_symlink()
    assert [file.name for file in link.iterdir()] == ["new"]
    assert [file.name for file in (tmp_path / "disk").iterdir()] == ["arrays"]


def kept_in(tmp_path: Path, message: str) -> list[str]:
    """The files of the hidden folder beside arrays, which a message names."""
    (aside,) = tmp_path.glob(".arrays-*")
    assert f"What was made is whole and is kept as {aside}: move it" in message
    return [file.name for file in aside.iterdir()]


def test_a_result_whose_place_is_taken_by_a_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "arrays"
    path.write_text("a file")
    with pytest.raises(ValueError, match="found what cannot be moved away") as error:  # noqa: SIM117
        with whole_folder(path) as aside:
            (aside / "new").write_text("new")
    assert path.read_text() == "a file"
    assert kept_in(tmp_path, str(error.value)) == ["new"]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare(1)")
def test_a_result_whose_place_is_a_mounted_disk_is_kept(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from src.files import whole_folder\n"
        "try:\n"
        "    with whole_folder(Path(sys.argv[1])) as aside:\n"
        "        (aside / 'new').write_text('new')\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    path = tmp_path / "arrays"
    path.mkdir()
    (path / "old").write_text("old")
    # A mount that this process and its children alone see.
    mounted = 'mount --bind "$1" "$1" || exit 99; shift; "$@"'
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, "sh", str(path),
         sys.executable, "-c", code, str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 99 or done.stderr.startswith("unshare"):
        pytest.skip(f"needs the right to mount a folder: {done.stderr}")
    assert "found what cannot be moved away (Device or resource busy)" in done.stdout
    assert kept_in(tmp_path, done.stdout) == ["new"]
    assert (path / "old").read_text() == "old"


def test_the_md5_is_the_one_everybody_knows(tmp_path: Path) -> None:
    write_text(tmp_path / "abc", "abc")
    assert md5_of(tmp_path / "abc") == "900150983cd24fb0d6963f7d28e17f72"


def test_arrays_that_find_no_room_are_an_error_before_a_pixel_is_written(tmp_path: Path) -> None:
    # A limit on the size of files stands for a full disk: the blocks are refused in the same way.
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from src.data.arrays import _pixel_file\n"
        "from src.files import whole_folder\n"
        "from src.terminal import explain\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    with whole_folder(Path(sys.argv[1])) as aside:\n"
        "        with _pixel_file(aside / 'images.npy', 10_000_000, np.float16):\n"
        "            print('room was found')\n"
        "except OSError as error:\n"
        "    print(explain(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "arrays")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "the file would be larger than this system allows" in done.stdout
    assert "room was found" not in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "prepared/arrays: the disk is full. Free some space"),
        (errno.EROFS, "prepared/arrays: the folder is read-only"),
        (errno.EACCES, "prepared/arrays: permission denied"),
    ],
)
def test_the_limits_of_a_machine_are_told_with_their_remedy(number: int, words: str) -> None:
    assert explain(OSError(number, "words of the system", "prepared/arrays")).startswith(words)
