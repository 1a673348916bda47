"""What all tests share: threads of parallel runs, markers, and where the (optional) recordings and benchmark images lie."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
ROS = REPO / "test" / "ros"

# Before torch is imported: workers of pytest-xdist would each take all cores. The processes that tests start inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    cores = len(os.sched_getaffinity(0)) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores)))

# Compiled models are kept for the tests of one run, not in the user's home.
if "D2A2_TEST_CACHE" not in os.environ:
    os.environ["D2A2_TEST_CACHE"] = os.environ["D2A2_CACHE"] = tempfile.mkdtemp(prefix="d2a2_cache_")
    atexit.register(shutil.rmtree, os.environ["D2A2_CACHE"], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests in test/ros, and skips those for a GPU where there is none."""
    for item in items:
        if item.path.is_relative_to(ROS):
            item.add_marker("ros")
        if item.get_closest_marker("gpu"):
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a GPU that torch can use (torch.cuda.is_available())"))


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
