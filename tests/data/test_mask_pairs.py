from pathlib import Path

import numpy as np
import pytest

from src.data.mask_pairs import find_masks, read_pair
from src.data.matching import match_masks
from src.data.scans import ScanFile
from tests.data.conftest import (
    MASK_WORDS,
    ct,
    organ,
    write_ct_picture,
    write_picture,
    write_segmentation,
    write_series,
    write_volume,
)

WORDS = ("mask", "masks", "seg", "pred", "prediction")


def paired(truths: list[str], predictions: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Pairs of paths and kinds of findings for files of these names."""
    sides = [[ScanFile(path, (path,), "volume") for path in side] for side in (truths, predictions)]
    pairs, alone, strangers, findings = match_masks(*sides, words=WORDS)
    left = [f"alone {scan.path}" for scan in alone] + [f"stray {s.path}" for s in strangers]
    return [(one.path, other.path) for one, other in pairs], left + [f.kind for f in findings]


def read(truth: Path, prediction: Path):
    one, other = find_masks(truth, MASK_WORDS), find_masks(prediction, MASK_WORDS)
    return read_pair(one, one.masks[0], other, other.masks[0])


@pytest.mark.parametrize(
    ("truth", "prediction"),
    [
        ("P1/01.png", "P1/01.png"),
        ("P1/01_mask.png", "P1/01_pred.tif"),
        ("P1/mask.nii.gz", "P1.nii.gz"),
        ("masks/P1/01.png", "P1_01.png"),
    ],
)
def test_masks_match_by_what_is_left_of_their_names(truth: str, prediction: str) -> None:
    assert paired([truth], [prediction]) == ([(truth, prediction)], [])


def test_one_never_matches_eleven_and_both_are_left_over() -> None:
    assert paired(["P/1.png", "P/2.png"], ["P/11.png", "P/2.png"]) == (
        [("P/2.png", "P/2.png")],
        ["alone P/1.png", "stray P/11.png"],
    )


def test_two_predictions_of_one_truth_are_an_error_that_names_both() -> None:
    sides = [
        [ScanFile(path, (path,), "volume") for path in side]
        for side in (["P1.nii"], ["P1.nii", "P1_pred.nii"])
    ]
    *_, findings = match_masks(*sides, words=WORDS)
    (finding,) = findings
    assert finding.severity == "error"
    assert "1 truth (P1.nii) and 2 predictions (P1.nii, P1_pred.nii)" in finding.found
    assert "data/" not in finding.remedy


def test_what_lies_beside_a_mask_of_its_name_is_an_image(tmp_path: Path) -> None:
    for name in ("P1/1.png", "P1/img_1.png", "P1/1_overlay.png", "P1/2.png", "P2/1.png"):
        write_ct_picture(tmp_path / name, 1)
    write_picture(tmp_path / "P1" / "1_mask.png", organ()[0])
    found = find_masks(tmp_path, MASK_WORDS, image_words=("img",))
    assert [scan.path for scan in found.masks] == ["P1/1_mask.png", "P1/2.png", "P2/1.png"]
    assert [scan.path for scan in found.images] == ["P1/1.png", "P1/1_overlay.png", "P1/img_1.png"]


def test_what_predict_writes_beside_its_masks_is_no_mask(tmp_path: Path) -> None:
    write_volume(tmp_path / "P1_mask.nii.gz", organ(depth=2))
    for name in ("P1_uncertainty", "P1_probability_organ"):
        write_volume(tmp_path / f"{name}.nii.gz", organ(depth=2))
    for place in range(2):
        write_picture(tmp_path / "P1_overlay" / f"{place:03d}.png", organ()[0])
    found = find_masks(tmp_path, MASK_WORDS)
    assert [scan.path for scan in found.masks] == ["P1_mask.nii.gz"]
    assert len(found.images) == 4


def test_where_no_name_says_mask_all_are_masks(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        write_picture(tmp_path / name, organ()[0])
    found = find_masks(tmp_path, MASK_WORDS)
    assert [scan.path for scan in found.masks] == ["1.png", "2.png"]
    assert found.images == []


def test_a_folder_without_masks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="found no mask"):
        find_masks(tmp_path, MASK_WORDS)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        find_masks(tmp_path / "other", MASK_WORDS)


def test_a_picture_and_a_volume_of_one_slice_are_read_on_one_grid(tmp_path: Path) -> None:
    truth = write_picture(tmp_path / "1.png", organ()[0])
    prediction = write_volume(tmp_path / "1.nii.gz", organ(value=2))
    pair = read(truth, prediction)
    np.testing.assert_array_equal(pair.truth, organ())
    np.testing.assert_array_equal(pair.prediction, organ(value=2))
    assert pair.spacing_mm is None
    assert pair.prediction_spacing_mm == pytest.approx((0.75, 0.5))


def test_volumes_of_another_size_or_place_are_told_and_not_scored(tmp_path: Path) -> None:
    truth = write_volume(tmp_path / "truth.nii.gz", organ(depth=3))
    for name, changes, kind in (
        ("size", {"array": organ(depth=4)}, "size-mismatch"),
        ("spacing", {"spacing": (0.5, 0.8, 3.0)}, "geometry-mismatch"),
        ("origin", {"origin": (10.0, 20.0, 36.0)}, "geometry-mismatch"),
    ):
        given = {"array": organ(depth=3), **changes}
        prediction = write_volume(tmp_path / f"{name}.mha", **given)
        pair = read(truth, prediction)
        assert pair.prediction is None
        assert [finding.kind for finding in pair.findings] == [kind]
        assert "a prediction" in pair.findings[0].found
        assert "mask" not in str(pair.findings[0])


def test_a_prediction_without_geometry_is_read_with_a_warning(tmp_path: Path) -> None:
    truth = write_volume(tmp_path / "truth.nii.gz", organ(depth=3))
    bare = write_volume(tmp_path / "p.nrrd", organ(depth=3), spacing=(1, 1, 1), origin=(0, 0, 0))
    pair = read(truth, bare)
    assert pair.prediction is not None
    assert [finding.severity for finding in pair.findings] == ["warning"]


def segments(*rows: int) -> np.ndarray:
    """(3, 40, 40, 1): slice number n has n + 1 columns of row `rows[n]`."""
    drawn = np.zeros((len(rows), 40, 40, 1), bool)
    for place, row in enumerate(rows):
        drawn[place, row, : place + 1] = True
    return drawn


def test_dicom_segmentations_lie_on_the_slices_they_name(tmp_path: Path) -> None:
    sets = write_series(tmp_path / "ct", ct(1, depth=3))
    truth = write_segmentation(tmp_path / "t.dcm", sets, segments(1, 2, 3))
    # The method drew on the last two slices alone.
    prediction = write_segmentation(tmp_path / "p.dcm", sets[1:], segments(1, 2, 3)[1:])
    pair = read(truth, prediction)
    assert pair.spacing_mm == pytest.approx((0.5, 0.75))
    pixels = [
        (one.sum(), other.sum()) for one, other in zip(pair.truth, pair.prediction, strict=True)
    ]
    assert sorted(pixels) == [(1, 0), (2, 2), (3, 3)]


def test_a_segmentation_beside_a_volume_needs_the_series(tmp_path: Path) -> None:
    sets = write_series(tmp_path / "truth" / "ct", ct(1, depth=3))
    seg = write_segmentation(tmp_path / "truth" / "P1_seg.dcm", sets, segments(1, 2, 3))
    labels = segments(1, 2, 3)[..., 0].astype(np.uint8)
    volume = write_volume(tmp_path / "P1.nii.gz", labels)
    with pytest.raises(ValueError, match="does not say which slices it holds"):
        read(seg, volume)
    pair = read(tmp_path / "truth", volume)
    np.testing.assert_array_equal(pair.truth, labels)
    np.testing.assert_array_equal(pair.prediction, labels)


def test_segmentations_of_other_series_are_refused(tmp_path: Path) -> None:
    first = write_series(tmp_path / "a", ct(1, depth=2), name="a")
    second = write_series(tmp_path / "b", ct(1, depth=2), name="b")
    truth = write_segmentation(tmp_path / "t.dcm", first, segments(1, 2))
    prediction = write_segmentation(tmp_path / "p.dcm", second, segments(1, 2))
    with pytest.raises(ValueError, match="other slices than"):
        read(truth, prediction)


def test_a_segmentation_of_slices_that_the_series_lacks_is_refused(tmp_path: Path) -> None:
    sets = write_series(tmp_path / "truth" / "ct", ct(1, depth=3))
    write_segmentation(tmp_path / "truth" / "P1_seg.dcm", sets, segments(1, 2, 3))
    # The method was given a copy of the series whose slices have names of their own.
    copy = write_series(tmp_path / "copy", ct(1, depth=3), name="b")
    prediction = write_segmentation(tmp_path / "p.dcm", copy, segments(1, 2, 3))
    with pytest.raises(ValueError, match=r"p\.dcm: found segments on 3 slices that the series"):
        read(tmp_path / "truth", prediction)
