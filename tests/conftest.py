"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest
from small_models import small_brainlm, small_vitmae

from brainlm_bids.model.checkpoint import LoadedModel

REPOSITORY = Path(__file__).resolve().parents[1]
# The files that take longest, these first: a file runs in one process, so that one
# which begins last leaves the other core idle.
LONGEST = (
    "app/test_group.py",
    "bids/test_fmriprep_derivatives.py",
    "app/test_participant.py",
    "training/test_finetune.py",
    "app/test_states.py",
    "docs/test_notebooks.py",
    "app/test_studyforrest.py",
    "figures/test_figures.py",
    "training/test_pretrain.py",
    "api/test_app.py",
    "app/test_clusters.py",
    "bids/test_timeseries.py",
    "report/test_methods.py",
    "api/test_estimator_checks.py",
    "app/test_index.py",
    "benchmarks/test_hard_inputs.py",
    "preproc/test_steps.py",
    "app/test_precision.py",
    "app/test_workers.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    tests = Path(__file__).parent
    places = {tests / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


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
