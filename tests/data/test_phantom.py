"""The demo data: shape, difficulty and repeatability of the synthetic patients."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from src.data.phantom import PhantomPatient, make_patient, write_phantom

SEED = 2026
DEMO = Path(__file__).parents[2] / "demo-remote" / "files" / "md5"


@pytest.fixture(scope="module")
def patients() -> list[PhantomPatient]:
    return [make_patient(index, SEED) for index in range(30)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("phantom") / "data"
    write_phantom(target, patients=3, seed=SEED)
    return target


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def best_band_dice(patients: list[PhantomPatient]) -> tuple[float, float]:
    """Best lesion Dice of any rule `low < HU <= high`, pooled and as the mean over patients.

    Counts up to each HU level give the counts of every band by subtraction. One-sided thresholds
    are the bands that begin below or end above every value.
    """
    levels = np.concatenate([[-2000], np.arange(-400, 400, 4), [5000]])
    pooled, dices = np.zeros((3, levels.size, levels.size)), []
    for patient in patients:
        inside = np.sort(patient.hu[patient.mask == 2])
        below_lesion = np.searchsorted(inside, levels, side="right")
        below = np.searchsorted(np.sort(patient.hu, axis=None), levels, side="right")
        hits = below_lesion[None, :] - below_lesion[:, None]
        chosen = below[None, :] - below[:, None]
        counts = np.triu(np.stack([hits, chosen, np.full_like(hits, inside.size)]), k=1)
        pooled += counts
        dices.append(2 * counts[0] / np.maximum(counts[1] + counts[2], 1))
    pooled_dice = 2 * pooled[0] / np.maximum(pooled[1] + pooled[2], 1)
    return float(pooled_dice.max()), float(np.mean(dices, axis=0).max())


def test_a_patient_is_a_stack_of_six_to_ten_slices_of_128(patients):
    for patient in patients:
        assert patient.hu.dtype == np.float32
        assert patient.mask.dtype == np.uint8
        assert patient.hu.shape == patient.mask.shape
        assert 6 <= patient.hu.shape[0] <= 10
        assert patient.hu.shape[1:] == (128, 128)
        assert patient.hu.min() >= -1024
        assert patient.hu.max() <= 3071


def test_names_are_unique_and_scanners_take_turns(patients):
    assert [patient.name for patient in patients[:2]] == ["patient_001", "patient_002"]
    assert len({patient.name for patient in patients}) == 30
    scanners = [patient.scanner for patient in patients]
    assert scanners[:4] == ["scanner_a", "scanner_b", "scanner_c", "scanner_a"]
    assert {name: scanners.count(name) for name in scanners} == dict.fromkeys(scanners, 10)


def test_every_patient_has_all_three_classes(patients):
    for patient in patients:
        assert np.unique(patient.mask).tolist() == [0, 1, 2]


def test_lesions_are_sparse_and_absent_from_about_a_third_of_the_slices(patients):
    masks = np.concatenate([patient.mask for patient in patients])
    assert (masks == 2).mean() < 0.03
    assert 0.25 <= (masks != 2).all(axis=(1, 2)).mean() <= 0.45


def test_no_threshold_and_no_band_of_hu_finds_the_lesions(patients):
    pooled, patient_mean = best_band_dice(patients)
    assert pooled < 0.4
    assert patient_mean < 0.4


def test_the_best_band_is_found_where_hu_alone_does_decide():
    # Lesion at 50, 54; all else at 0 or 200: the band (48, 56] is right everywhere.
    hu = np.array([[[0, 50, 54, 200]]], np.float32)
    mask = np.array([[[0, 2, 2, 1]]], np.uint8)
    assert best_band_dice([PhantomPatient("p", "s", hu, mask)]) == (1.0, 1.0)


def test_a_lesion_is_darker_than_its_organ_and_brighter_than_water(patients):
    for patient in patients:
        lesion = np.median(patient.hu[patient.mask == 2])
        organ = np.median(patient.hu[patient.mask == 1])
        assert 30 < lesion < organ - 20


def test_scanners_differ_in_noise(patients):
    def noise(scanner: str) -> float:
        # The top rows hold nothing but air.
        return float(np.mean([p.hu[:, :8].std() for p in patients if p.scanner == scanner]))

    a, b, c = noise("scanner_a"), noise("scanner_b"), noise("scanner_c")
    assert b > a + 0.5
    assert a > c + 0.2


def test_scanners_differ_in_noise_texture(patients):
    def neighbour_correlation(scanner: str) -> float:
        air = np.concatenate([p.hu[:, :8] for p in patients if p.scanner == scanner])
        return float(np.corrcoef(air[..., :-1].ravel(), air[..., 1:].ravel())[0, 1])

    a, b, c = map(neighbour_correlation, ("scanner_a", "scanner_b", "scanner_c"))
    assert a < b < c
    assert c - a > 0.2


def test_patients_are_not_near_duplicates(patients):
    middles = [patient.mask[len(patient.mask) // 2] > 0 for patient in patients]
    for position, first in enumerate(middles):
        for second in middles[position + 1 :]:
            assert 2 * (first & second).sum() / (first.sum() + second.sum()) < 0.97


def test_another_seed_gives_another_patient_and_the_same_seed_the_same(patients):
    again = make_patient(4, SEED)
    assert np.array_equal(again.hu, patients[4].hu)
    assert np.array_equal(again.mask, patients[4].mask)
    other = make_patient(4, SEED + 1)
    assert other.hu.shape != again.hu.shape or not np.array_equal(other.hu, again.hu)


def test_a_negative_index_or_seed_is_refused():
    with pytest.raises(ValueError, match="at least 0, got index -1 and seed 3"):
        make_patient(-1, 3)
    with pytest.raises(ValueError, match="at least 0, got index 0 and seed -3"):
        make_patient(0, -3)


def test_every_image_has_the_mask_of_its_name(folder):
    images = {path.relative_to(folder / "images") for path in folder.glob("images/*/*/*.png")}
    masks = {path.relative_to(folder / "masks") for path in folder.glob("masks/*/*/*.png")}
    assert masks == {path.with_name(f"{path.stem}_mask.png") for path in images}
    assert Path("scanner_b/patient_002/slice_000.png") in images


def test_files_hold_hu_plus_1024_and_the_classes(folder, patients):
    for position, hu in enumerate(patients[1].hu):
        name = f"scanner_b/patient_002/slice_{position:03d}"
        image = read(folder / "images" / f"{name}.png")
        mask = read(folder / "masks" / f"{name}_mask.png")
        assert image.dtype == np.uint16
        assert mask.dtype == np.uint8
        assert np.array_equal(image, hu + 1024)
        assert np.array_equal(mask, patients[1].mask[position])


def test_the_pixels_are_those_of_the_demo_in_the_repository(folder):
    # One patient of each scanner, as the demo remote has kept them since they were first drawn.
    (table,) = DEMO.glob("*/*.dir")
    kept = {entry["relpath"]: entry["md5"] for entry in json.loads(table.read_text())}
    for path in folder.rglob("*.png"):
        md5 = kept[path.relative_to(folder).as_posix()]
        assert np.array_equal(read(path), read(DEMO / md5[:2] / md5[2:]))


def test_the_whole_set_stays_under_six_megabytes(folder):
    # 3 patients of 30, one of each scanner.
    assert 10 * sum(map(len, files(folder).values())) < 6_000_000


def test_two_writes_are_byte_identical(folder, tmp_path):
    write_phantom(tmp_path / "again", patients=3, seed=SEED)
    assert files(tmp_path / "again") == files(folder)


def test_an_empty_folder_is_filled_and_nothing_is_left_beside_it(tmp_path):
    (tmp_path / "data").mkdir()
    write_phantom(tmp_path / "data", patients=1, seed=SEED)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["images", "masks"]


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=r"is not empty; .* Name another folder"):
        write_phantom(tmp_path, patients=1, seed=SEED)
    assert files(tmp_path) == {"mine.txt": b"precious"}


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "data").write_text("precious")
    with pytest.raises(FileExistsError, match="a new or an empty folder only"):
        write_phantom(tmp_path / "data", patients=1, seed=SEED)


def test_fewer_than_one_patient_is_refused(tmp_path):
    with pytest.raises(ValueError, match="patients must be at least 1, got 0"):
        write_phantom(tmp_path / "data", patients=0)
    assert list(tmp_path.iterdir()) == []


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "src.data.phantom", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_writes_the_set_and_says_where_to_look(tmp_path, folder):
    done = run(str(tmp_path / "data"), "--patients", "1", "--seed", str(SEED))
    assert done.returncode == 0
    assert "Wrote 1 patient to" in done.stdout
    written = files(tmp_path / "data")
    assert written == {name: data for name, data in files(folder).items() if name in written}


def test_the_command_refuses_a_folder_that_holds_something_with_exit_code_1(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    done = run(str(tmp_path), "--patients", "1")
    assert done.returncode == 1
    assert "is not empty" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_help_shows_an_example():
    done = run("--help")
    assert done.returncode == 0
    assert "python -m src.data.phantom data" in done.stdout
