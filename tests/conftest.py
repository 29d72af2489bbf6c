"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest
from small_models import small_brainlm, small_vitmae

from brainlm_bids.model.checkpoint import LoadedModel

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The developers' folder of reference data, or a skip that says where it was looked for."""
    folder = REPOSITORY / os.environ.get("BRAINLM_BIDS_SHARED", "../shared")
    if not (folder / "golden").is_dir():
        pytest.skip(f"reference data not found in {folder}; set BRAINLM_BIDS_SHARED")
    return folder.resolve()


@pytest.fixture(scope="session")
def tiny() -> LoadedModel:
    return small_brainlm()


@pytest.fixture(scope="session")
def image() -> LoadedModel:
    return small_vitmae()


@pytest.fixture(params=["brainlm", "vitmae"])
def model(request: pytest.FixtureRequest, tiny: LoadedModel, image: LoadedModel) -> LoadedModel:
    return tiny if request.param == "brainlm" else image
