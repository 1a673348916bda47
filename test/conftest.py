"""Fixtures shared by all tests: where the (optional) recordings and benchmark images lie."""

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repo() -> Path:
    """Root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with recordings, benchmark images and parity vectors; the test is skipped where it is absent."""
    folder = Path(os.environ.get("D2A2_SHARED", REPO.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the shared test data, not found at {folder} (set D2A2_SHARED to its folder)")
    return folder
