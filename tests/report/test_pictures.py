import base64
from pathlib import Path

import cv2
import numpy as np
import pytest

from src.report.pictures import embed


def noise(path: Path, height: int, width: int) -> Path:
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    cv2.imwrite(str(path), picture)
    return path


def decoded(uri: str) -> np.ndarray:
    head, data = uri.split(",")
    assert head == "data:image/webp;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


def test_a_picture_that_fits_keeps_its_size(tmp_path: Path) -> None:
    path = noise(tmp_path / "case.png", 20, 60)
    picture = embed(path, 100_000)
    assert (picture.height, picture.width) == (20, 60)
    assert decoded(picture.uri).shape == (20, 60, 3)


def test_a_picture_that_does_not_fit_is_made_smaller_in_proportion(tmp_path: Path) -> None:
    path = noise(tmp_path / "case.png", 500, 1500)
    picture = embed(path, 40_000)
    assert len(picture.uri) <= 40_100  # the budget and the words before the data
    assert picture.width < 1500
    assert picture.height == pytest.approx(picture.width / 3, abs=1)
    assert decoded(picture.uri).shape == (picture.height, picture.width, 3)


def test_a_missing_picture_and_a_broken_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"case.png is missing"):
        embed(tmp_path / "case.png", 1000)
    (tmp_path / "case.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"case.png: found no picture"):
        embed(tmp_path / "case.png", 1000)
