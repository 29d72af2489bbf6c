"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The developers' folder of reference data, or a skip that says where it was looked for."""
    folder = REPOSITORY / os.environ.get("BRAINLM_BIDS_SHARED", "../shared")
    if not (folder / "golden").is_dir():
        pytest.skip(f"reference data not found in {folder}; set BRAINLM_BIDS_SHARED")
    return folder.resolve()
