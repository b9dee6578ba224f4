"""A database for studies: a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.search import storage_address


@pytest.fixture
def address(tmp_path: Path) -> str:
    """Of a file."""
    return storage_address(None, tmp_path, taken=[])
